"""Rise, plateau and collapse of R along a run, beside what noise and drift times the schedule would show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..errors import DataError
from ..recording import Recording
from ..recording.select import BlockChoice, block_label
from ..theory.gap import gap_position, gap_ratio, ratios
from ..theory.phase_rules import AuthorPhases, sed_phases, thesis_phases
from ..theory.phases import Phases, three_phases
from ..theory.stability import Mode, check_mode
from .columns import Table
from .phase_surrogates import NullPhases, PhaseSurrogates
from .timeline import row_rates
from .verdict import LEVEL, Outcome
from .windows import grams_ending_at

RowKind = Literal["raw", "lr"]
Position = Literal["k*", "k=1", "k=2"]
POSITIONS: tuple[Position, ...] = ("k*", "k=1", "k=2")

_FEWEST_EFFECTIVE = 12.0  # disjoint windows per fit of two breaks, twice its parameters


@dataclass(frozen=True, eq=False)
class PhaseReading:
    """One series of R.

    Attributes:
        rows: ``raw`` updates, or ``lr``: each divided by the learning rates that made it.
        position: Where R = sigma_k / sigma_{k+1} is taken.
        steps: (T) optimizer steps of the windows.
        ratio: (T) R.
        phases: Strict fit, on optimizer steps; None in author mode.
        author: Published rule; None in strict mode.
        nulls: ``schedule``: equal norms times the run's own learning rates; ``norms``: the run's own norms.
            Both with the run's momentum, effective dimension and constant drift. Empty where no effective
            dimension is known.
        verdict: On "rise, plateau, collapse"; None in author mode, whose rules have no error rate.
    """

    rows: RowKind
    position: Position
    steps: np.ndarray
    ratio: np.ndarray
    phases: Phases | None
    author: AuthorPhases | None
    nulls: dict[str, NullPhases]
    verdict: Outcome | None

    def summary(self) -> dict[str, Any]:
        """Plain types."""
        out: dict[str, Any] = {"rows": self.rows, "position": self.position, "n_windows": len(self.ratio)}
        if self.phases is not None:
            fit = self.phases
            out |= {
                "three_phases": fit.three_phases,
                "n_breaks": fit.n_breaks,
                "bic": fit.bic.tolist(),
                "breakpoints": fit.breakpoints.tolist(),
                "low": fit.low.tolist(),
                "high": fit.high.tolist(),
                "slopes": fit.slopes.tolist(),
                "nulls": {name: vars(null) for name, null in self.nulls.items()},
            }
        if self.author is not None:
            labels = self.author.labels
            plateau = self.author.plateau
            collapse = self.author.collapse
            out |= {
                "shares": {name: float(np.mean(labels == name)) for name in ("rise", "plateau", "collapse")},
                "plateau_steps": None if plateau is None else [int(self.steps[i]) for i in plateau],
                "collapse_step": None if collapse is None else int(self.steps[collapse]),
            }
        return out | {"verdict": self.verdict}


@dataclass(frozen=True, eq=False)
class PhaseReport:
    """All readings of one run.

    Attributes:
        readings: In the order of rows, then positions.
        window, stride, block, mode: Settings.
        notes: What is missing and why.
    """

    readings: tuple[PhaseReading, ...]
    window: int
    stride: int
    block: str
    mode: str
    notes: tuple[str, ...] = field(default=())

    def table(self) -> Table:
        """Columns by name, one entry a window of a reading: step, rows, position, ratio, fitted or label."""
        parts: dict[str, list[np.ndarray]] = {name: [] for name in ("step", "rows", "position", "ratio")}
        last: list[np.ndarray] = []
        for reading in self.readings:
            n = len(reading.ratio)
            values = (reading.steps, np.full(n, reading.rows), np.full(n, reading.position), reading.ratio)
            for column, x in zip(parts.values(), values):
                column.append(x)
            if reading.phases is not None:
                last.append(np.exp(reading.phases.fitted))
            elif reading.author is not None:
                last.append(reading.author.labels)
        table: Table = {name: np.concatenate(column) for name, column in parts.items() if column}
        if last:
            table["fitted" if self.mode == "strict" else "phase"] = np.concatenate(last)
        return table

    def summary(self) -> dict[str, Any]:
        """Every reading in plain types."""
        return {
            "mode": self.mode,
            "window": self.window,
            "stride": self.stride,
            "block": self.block,
            "readings": [reading.summary() for reading in self.readings],
            "notes": list(self.notes),
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row a reading: breaks with intervals, false-positive rates and p-values, verdict."""
        out = []
        for reading in self.readings:
            row: dict[str, Any] = {"rows": reading.rows, "position": reading.position}
            if reading.phases is not None:
                fit = reading.phases
                row |= {"three_phases": fit.three_phases, "n_breaks": fit.n_breaks}
                for i in range(2):
                    row |= {f"break_{i + 1}": float(fit.breakpoints[i])}
                    row |= {f"break_{i + 1}_low": float(fit.low[i]), f"break_{i + 1}_high": float(fit.high[i])}
                for name, null in reading.nulls.items():
                    row |= {f"{name}_rate": null.rate, f"{name}_p": null.p_value}
                row["verdict"] = reading.verdict
            else:
                row |= {name: x for name, x in reading.summary().items() if name not in ("nulls", "verdict")}
            out.append(row)
        return out


def phases(
    recording: Recording,
    window: int = 10,
    block: BlockChoice = "all",
    stride: int = 1,
    *,
    n_draws: int = 99,
    n_boot: int = 199,
    seed: int = 0,
    mode: Mode = "strict",
) -> PhaseReport:
    """Three phases of R = sigma_k / sigma_{k+1} at the guarded k*, at k = 1 and at k = 2.

    ``strict``: piecewise-linear fits of log R with 0, 1 and 2 breaks by BIC; three phases are two breaks with
    slopes up, flat, down. The same fit is made of surrogates that hold nothing but noise, a constant drift and the
    run's own learning rates (``schedule``) or norms (``norms``), and the whole is repeated on rows divided by
    their learning rates, which a pattern of the schedule does not survive. ``author``: the published rules on
    raw rows, plain k* (``thesis``: slope of a 5-point mean) and k = 2 (``sed``: 0.85 of the peak, collapse below
    1.20), which name phases in every series.

    Verdicts: ``uninformative`` where a null shows three phases in more than 20 % of its draws; ``supported``
    where the run does and at most 5 % of the draws of every null gain as much BIC; ``compatible`` where more do;
    ``contradicted`` where the run does not, over 12 disjoint windows or more; ``not identifiable`` otherwise.
    Breaks lag by up to a window: R at a step is of the W rows before it.

    Args:
        recording: T updates. The longest stretch without a hole is used.
        window: Rows W of a window.
        block: Block or union.
        stride: Updates in a row.
        n_draws: Surrogates of each null.
        n_boot: Resamples behind the intervals of the breaks.
        seed: Of both.
        mode: ``strict`` or ``author``.

    Returns:
        The readings. Source: arXiv:2603.28964v1-v3 and the author's code (author), derived (strict).

    Raises:
        SettingError: If the mode is unknown or the window cannot be.
        DataError: If no stretch holds two windows' worth of windows.
    """
    check_mode(mode)
    kinds: list[RowKind] = ["raw"]
    notes = []
    lr_sum, row_steps = row_rates(recording, stride)
    if mode == "strict":
        if np.ptp(recording.lr_sum) == 0.0 and recording.lr_sum.size:
            notes.append("the learning rate is constant: rows divided by it show the same R")
        elif np.isfinite(lr_sum).any():
            kinds.append("lr")
        else:
            notes.append("no learning rate was recorded: no schedule null, and no rows divided by it")
    readings: list[PhaseReading] = []
    for kind in kinds:
        spectra = recording.spectra(window, stride, block, "lr" if kind == "lr" else "raw")
        first, last = _longest(np.isfinite(spectra.singular_values).all(axis=1))
        n = last - first
        if n < 2 * window:
            if kind == "raw":
                raise DataError(
                    f"A stretch of {2 * window} whole windows is needed; the longest holds {n}. Use a smaller window."
                )
            notes.append("rows cannot be divided by their learning rates: one of them is 0 or unknown")
            continue
        sigma, floor, steps = (x[first:last] for x in (spectra.singular_values, spectra.floor, spectra.steps))
        if mode == "author":
            readings += _author(sigma, floor, steps)
            continue
        rows = slice(first, last + window - 1)
        p_eff = spectra.p_eff[first:last]
        model = None
        if np.isfinite(p_eff).any():
            model = PhaseSurrogates(
                gram=grams_ending_at(
                    recording.band(block, stride=stride, normalisation=spectra.normalisation),
                    n + window - 1,
                    np.array([last + window - 2]),
                )[0],
                lr=lr_sum[rows] if kind == "raw" else np.ones(n + window - 1),
                p_eff=float(np.nanmedian(p_eff)),
                momentum=float(recording._momentum()[stride - 1 :: stride][rows][0]),
                n_steps=int(np.median(row_steps[rows])),
                window=window,
                n_draws=n_draws,
                seed=seed,
            )
        else:
            notes.append(f"no effective dimension is known for {kind} rows: no null")
        for position in POSITIONS:
            ratio = _ratio(sigma, floor, position)
            if not np.isfinite(ratio).all():
                notes.append(f"R at {position} of {kind} rows is not resolved in every window: left out")
                continue
            fit = three_phases(steps, ratio, window=window, n_boot=n_boot, rng=np.random.default_rng(seed))
            assert isinstance(fit, Phases)
            nulls = (
                {}
                if model is None
                else model.nulls(None if position == "k*" else int(position[2:]), float(fit.bic[0] - fit.bic[2]))
            )
            verdict = phase_verdict(fit, nulls, n / window)
            readings.append(PhaseReading(kind, position, steps, ratio, fit, None, nulls, verdict))
    return PhaseReport(tuple(readings), window, stride, block_label(block), mode, tuple(notes))


def phase_verdict(fit: Phases, nulls: dict[str, NullPhases], n_effective: float) -> Outcome:
    """The word on "rise, plateau, collapse"; see :func:`phases`."""
    if any(not null.informative for null in nulls.values()):
        return "uninformative"
    if not fit.three_phases:
        return "contradicted" if n_effective >= _FEWEST_EFFECTIVE else "not identifiable"
    if not nulls:
        return "not identifiable"
    return "supported" if max(null.p_value for null in nulls.values()) <= LEVEL else "compatible"


def _ratio(sigma: np.ndarray, floor: np.ndarray, position: Position) -> np.ndarray:
    if position == "k*":
        return gap_ratio(sigma, gap_position(sigma, floor=floor))
    k = int(position[2:])
    if sigma.shape[1] <= k:
        return np.full(len(sigma), np.nan)
    return ratios(sigma, floor)[:, k - 1]


def _author(sigma: np.ndarray, floor: np.ndarray, steps: np.ndarray) -> list[PhaseReading]:
    out = []
    plain = gap_ratio(sigma, gap_position(sigma, rule="plain", floor=floor))
    series: list[tuple[Position, np.ndarray]] = [("k*", plain), ("k=2", _ratio(sigma, floor, "k=2"))]
    for position, ratio in series:
        known = np.isfinite(ratio)
        if known.sum() < 2:
            continue
        found = thesis_phases(ratio[known]) if position == "k*" else sed_phases(ratio[known])
        out.append(PhaseReading("raw", position, steps[known], ratio[known], None, found, {}, None))
    return out


def _longest(known: np.ndarray) -> tuple[int, int]:
    """First and one past the last index of the longest run of True; (0, 0) where there is none."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], known.astype(np.int8), [0]])))
    if not len(edges):
        return 0, 0
    starts, stops = edges[::2], edges[1::2]
    i = int(np.argmax(stops - starts))
    return int(starts[i]), int(stops[i])
