"""The adiabatic parameter along a run: its four readings, where it leaves its null, and whether it foretells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np

from ..errors import DataError, SettingError
from ..recording import Recording
from ..recording.select import BlockChoice, block_label
from ..theory.adiabatic import adiabatic as window_adiabatic
from ..theory.gap import Rule
from ..theory.perturbation import Reading
from ..theory.stability import Mode, check_mode
from ..theory.surrogates import NullKind
from .adiabatic_regimes import Regime, by_cuts, by_null
from .columns import Table
from .draws import window_draws
from .foresight import Foresight, foresight
from .stretches import stretches
from .timeline import outcome_names, row_rates
from .windows import grams_ending_at

READINGS: tuple[Reading, ...] = get_args(Reading)


@dataclass(frozen=True, eq=False)
class Adiabaticity:
    """A of N windows, each with the window m = 1 and m = W rows before it. Keys of the dicts are m.

    Attributes:
        steps: (N) optimizer step at the end of the later window.
        position: m to (N) k* of the earlier window; 0 where nothing is resolved.
        width: m to (N) g of the earlier window [parameter].
        lr: (N) learning rate per optimizer step over the rows of the later window.
        relative: m to reading to (N) ||dG|| / g^2, a pure number.
        absolute: m to reading to (N) ||dG|| / (lr g^2) [1 / lr].
        davis_kahan: m to (N) ||dM||_F / (lambda_k - lambda_{k+1}), a pure number.
        regimes: m to where the headline reading lies: ``operator`` of A_rel (strict), ``dlam`` of A_abs (author).
        kernel_steps, kernel: (Q) steps of the probes that measured the tangent kernel, and A_ker there.
        foresight: Metric to whether A tells anything of its change over the next W rows.
        null: Kind of null behind the regimes.
        window, stride, block, mode: Settings.
        notes: What is missing and why.
    """

    steps: np.ndarray
    position: dict[int, np.ndarray]
    width: dict[int, np.ndarray]
    lr: np.ndarray
    relative: dict[int, dict[Reading, np.ndarray]]
    absolute: dict[int, dict[Reading, np.ndarray]]
    davis_kahan: dict[int, np.ndarray]
    regimes: dict[int, Regime]
    kernel_steps: np.ndarray
    kernel: np.ndarray
    foresight: dict[str, Foresight]
    null: NullKind
    window: int
    stride: int
    block: str
    mode: str
    notes: tuple[str, ...] = field(default=())

    def table(self) -> Table:
        """Columns by name, one entry a window; ``relative_operator_lag1`` is A_rel with the window before."""
        table: Table = {"step": self.steps, "lr": self.lr}
        for m in self.relative:
            table |= {f"k_star_lag{m}": self.position[m], f"width_lag{m}": self.width[m]}
            for reading in READINGS:
                table[f"relative_{reading}_lag{m}"] = self.relative[m][reading]
                table[f"absolute_{reading}_lag{m}"] = self.absolute[m][reading]
            table[f"davis_kahan_lag{m}"] = self.davis_kahan[m]
            table |= {f"regime_lag{m}": self.regimes[m].label, f"quantile_lag{m}": self.regimes[m].quantile}
        return table

    def summary(self) -> dict[str, Any]:
        """Medians, shares of windows in each regime with their p-values, and what A foretells."""
        return {
            "mode": self.mode,
            "window": self.window,
            "stride": self.stride,
            "block": self.block,
            "null": self.null if self.mode == "strict" else None,
            "lags": [
                {
                    "lag": m,
                    "n_windows": int(np.isfinite(self.davis_kahan[m]).sum()),
                    **{f"relative_{name}": _median(a) for name, a in self.relative[m].items()},
                    **{f"absolute_{name}": _median(a) for name, a in self.absolute[m].items()},
                    "davis_kahan": _median(self.davis_kahan[m]),
                    "shares": self.regimes[m].shares,
                    "above_p": self.regimes[m].above_p,
                    "below_p": self.regimes[m].below_p,
                    "arbitrary_limits": self.regimes[m].arbitrary,
                }
                for m in self.relative
            ],
            "kernel": {"n_probes": len(self.kernel), "median": _median(self.kernel)},
            "foresight": {name: found.summary() for name, found in self.foresight.items()},
            "notes": list(self.notes),
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row a reading and distance: median, 5 and 95 % of the windows, and the regimes of the headline."""
        headline = "A_rel operator" if self.mode == "strict" else "A_abs dlam"
        rows: list[dict[str, Any]] = []
        for m in self.relative:
            series = {f"A_rel {name}": a for name, a in self.relative[m].items()}
            series |= {f"A_abs {name}": a for name, a in self.absolute[m].items()}
            series["A_DK"] = self.davis_kahan[m]
            for name, values in series.items():
                low, high = _quantiles(values)
                shares = self.regimes[m].shares if name == headline else {}
                p = {"above_p": self.regimes[m].above_p, "below_p": self.regimes[m].below_p} if shares else {}
                rows.append(
                    {"reading": name, "lag": m, "median": _median(values), "q05": low, "q95": high} | shares | p
                )
        if len(self.kernel):
            low, high = _quantiles(self.kernel)
            rows.append({"reading": "A_ker", "lag": None, "median": _median(self.kernel), "q05": low, "q95": high})
        return rows


def adiabatic(
    recording: Recording,
    window: int = 10,
    block: BlockChoice = "all",
    stride: int = 1,
    *,
    null: NullKind = "smooth_drift",
    n_draws: int = 199,
    n_boot: int = 1000,
    seed: int = 0,
    mode: Mode = "strict",
) -> Adiabaticity:
    """All readings of A between windows 1 and W rows apart, over a whole run.

    Formulas: A_abs = ||dG|| / (lr g^2) with each of four readings of dG, A_rel = ||dG|| / g^2, A_DK = ||dM||_F /
    (lambda_k - lambda_{k+1}), g = sigma_k - sigma_{k+1} at k* of the earlier window. ``strict``: k* by the guarded
    rule, and regimes are percentiles of A_rel under surrogates with the run's own norms, momentum, effective
    dimension and drift: 5 % of windows lie ``above`` without any event, and ``above_p`` says whether more do.
    ``author``: plain k*, and the paper's plateau, transition and forgetting by cuts of A_abs at 0.3 and 3, which
    are arbitrary: A_abs has the unit 1 / lr, so that its regime changes with the unit of the loss.

    At a distance of 1 the two windows share W - 1 rows and A is small by O(1 / W) whatever the run does; W is
    the distance to read.

    Args:
        recording: T updates.
        window: Rows W of a window.
        block: Block or union.
        stride: Updates in a row.
        null: Null behind the regimes, see ``theory.surrogates.fit_null``.
        n_draws: Surrogate histories.
        n_boot: Resamples behind the interval of the forecasts.
        seed: Of surrogates and resamples.
        mode: ``strict`` or ``author``.

    Returns:
        Series, regimes and forecasts. Source: arXiv:2603.28964v1-v3 (A_abs; A_ker from v1), author's code
        (``dlam``), derived (others).

    Raises:
        SettingError: If a setting is unknown, or the band too narrow for a window and one more row.
        DataError: If no such block of rows is whole.
    """
    check_mode(mode)
    if null not in get_args(NullKind):
        raise SettingError(f"null must be one of {', '.join(get_args(NullKind))}; got {null!r}. Use smooth_drift.")
    recording.cross_gram(window, 1, stride, block)  # refuses what cannot be
    band = recording.band(block, stride=stride)
    ends = np.arange(window, len(band))
    lr_sum, row_steps = row_rates(recording, stride)
    lr = _moving_sum(lr_sum, window)[1:] / _moving_sum(row_steps, window)[1:]
    notes = []
    if not np.isfinite(lr).any():
        notes.append("no learning rate was recorded: no A_abs")
    if len(np.unique(recording.lr_sum, axis=1).T) > 1:
        notes.append("learning rates differ between groups: A_abs takes their mean")
    rule: Rule = "guarded" if mode == "strict" else "plain"
    lags = [m for m in dict.fromkeys((1, window)) if window + m <= band.shape[1]]
    if window not in lags:
        notes.append(
            f"windows W apart need {stride * 2 * window - 1} lags, {recording.lags} were recorded: only lag 1, at "
            "which the windows share all rows but one"
        )
    found = {m: window_adiabatic(grams_ending_at(band, window + m, ends), window, rule=rule) for m in lags}
    if not np.isfinite(found[1].davis_kahan).any():
        raise DataError(
            f"At least {window + 1} updates in a row must be whole; seams, lost or non-finite ones cut all. "
            "Use a smaller window."
        )
    absolute = {
        m: {name: a / np.where(lr > 0.0, lr, np.nan) for name, a in x.relative.items()} for m, x in found.items()
    }
    limits = {}
    for m in lags:
        if mode == "author":
            limits[m] = by_cuts(absolute[m]["dlam"], m)
            continue
        draws = window_draws(
            stretches(recording, window, block, stride),
            lambda blocks: window_adiabatic(blocks, window, rule=rule).relative["operator"],
            size=window + m,
            window=window,
            n_places=len(band) - window - m + 1,
            kind=null,
            n_draws=n_draws,
            rng=np.random.default_rng(seed),
        )
        limits[m] = by_null(found[m].relative["operator"], m, draws)
        if draws is None:
            notes.append(f"no effective dimension is known for {window + m} rows: no regimes at lag {m}")
    kernel_steps, kernel = _kernel(recording)
    if not len(kernel):
        notes.append("no probe measured the tangent kernel: no A_ker")
    steps = recording.steps[stride - 1 :: stride][ends]
    last = lags[-1]
    told = {}
    for name in outcome_names(recording):
        told[name] = foresight(
            recording,
            name,
            found[last].relative["operator"] if mode == "strict" else absolute[last]["dlam"],
            steps=steps,
            norms=np.sqrt(band[ends, 0]),
            lr=lr,
            window=window,
            n_boot=n_boot,
            seed=seed,
        )
    if not told:
        notes.append("no metric of held-out data was logged: nothing to foretell")
    return Adiabaticity(
        steps=steps,
        position={m: x.position for m, x in found.items()},
        width={m: x.width for m, x in found.items()},
        lr=lr,
        relative={m: x.relative for m, x in found.items()},
        absolute=absolute,
        davis_kahan={m: x.davis_kahan for m, x in found.items()},
        regimes=limits,
        kernel_steps=kernel_steps,
        kernel=kernel,
        foresight=told,
        null=null,
        window=window,
        stride=stride,
        block=block_label(block),
        mode=mode,
        notes=tuple(notes),
    )


def _kernel(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """Steps and A_ker of the probes that hold a kernel; recordings without one hold nothing here."""
    steps, values = [], []
    for probe in recording.probes:
        kernel: Mapping[str, Any] | None = getattr(probe, "kernel", None)
        if isinstance(kernel, Mapping) and "adiabatic" in kernel:
            steps.append(probe.step)
            values.append(float(kernel["adiabatic"]))
    return np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64)


def _moving_sum(x: np.ndarray, window: int) -> np.ndarray:
    total = np.concatenate([[0.0], np.cumsum(x)])
    return total[window:] - total[:-window]


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _quantiles(values: np.ndarray) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [0.05, 0.95])
    return float(low), float(high)
