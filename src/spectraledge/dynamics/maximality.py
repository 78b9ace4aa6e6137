"""Is a collapse of the gap at k* followed by anything that collapses at other cuts are not?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import DataError, SettingError
from ..recording import Recording
from ..recording.select import BlockChoice, block_label
from ..theory.gap import gap_position, ratios
from ..theory.maximality import collapse_events, cut_learning_rates, cut_stability
from ..theory.spectrum import gram_spectrum
from .columns import Table, columns
from .cut_study import CutStudy, study_cuts
from .draws import WindowDraws, window_draws
from .probed import probed
from .stretches import NullName, stretches
from .timeline import outcome_names

_THRESHOLD = 0.05  # point of the null distribution of a cut's ratio below which its gap counts as collapsed
_UNBALANCED = 0.25  # standard deviations


@dataclass(frozen=True, eq=False)
class Maximality:
    """Every cut k = 1 .. W - 1 of N windows.

    Attributes:
        steps: (N) optimizer steps at the ends of the windows.
        k_star: (N) guarded k* of the window W rows before; 0 where there is none.
        ratio: (N, W-1) sigma_k / sigma_{k+1}.
        threshold: (N, W-1) 5 % point of the ratio under the null; NaN where there is none.
        events: (N, W-1) whether the gap at a cut collapses there.
        stability: (N, W-1) share of the top-k span in common with the window W rows before; NaN where the lags
            do not reach.
        most_stable: Share of windows in which the cut at k* is the most stable of cuts 1 .. W // 2.
        studies: One an outcome.
        rate_steps: (Q) steps of the probes with both gradients.
        learning_rate: (Q, W) l_k = <Pi_k grad L_train, Pi_k grad L_val> [loss^2 / parameter^2].
        learning_share: (Q) l_k* over <grad L_train, grad L_val>: what the dominant span does of all that a
            step along the gradient does.
        horizon: Windows after an event over which the outcome is looked at.
        null: Null of the thresholds.
        window, stride, block: Settings.
        notes: What is missing and why.
    """

    steps: np.ndarray
    k_star: np.ndarray
    ratio: np.ndarray
    threshold: np.ndarray
    events: np.ndarray
    stability: np.ndarray
    most_stable: float
    studies: tuple[CutStudy, ...]
    rate_steps: np.ndarray
    learning_rate: np.ndarray
    learning_share: np.ndarray
    horizon: int
    null: NullName
    window: int
    stride: int
    block: str
    notes: tuple[str, ...] = field(default=())

    def table(self) -> Table:
        """Columns by name, one entry a window; ``event_1`` is a collapse at cut 1."""
        table: Table = {"step": self.steps, "k_star_before": self.k_star}
        table |= columns("ratio", self.ratio) | columns("threshold", self.threshold)
        return table | columns("event", self.events) | columns("stability", self.stability)

    def summary(self) -> dict[str, Any]:
        """Events by cut, the comparisons, and the learning rate of the dominant span."""
        return {
            "window": self.window,
            "stride": self.stride,
            "block": self.block,
            "null": self.null,
            "horizon": self.horizon,
            "events": self.events.sum(axis=0).tolist(),
            "events_at_k_star": int(self.at_k_star.sum()),
            "most_stable": self.most_stable,
            "studies": self.rows(),
            "learning_share": _median(self.learning_share),
            "n_probes": len(self.rate_steps),
            "notes": list(self.notes),
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row an outcome."""
        return [study.summary() for study in self.studies]

    @property
    def at_k_star(self) -> np.ndarray:
        """(N) whether the gap that was k* a window ago collapses."""
        cut = np.maximum(self.k_star, 1) - 1
        return np.take_along_axis(self.events, cut[:, None], axis=1)[:, 0] & (self.k_star > 0)


def maximality(
    recording: Recording,
    window: int = 10,
    block: BlockChoice = "all",
    stride: int = 1,
    *,
    outcome: str | None = None,
    horizon: int | None = None,
    null: NullName = "constant_drift",
    n_draws: int = 199,
    n_permutations: int = 999,
    seed: int = 0,
) -> Maximality:
    """Event study of the gap maximality principle over all cuts of one run.

    A collapse is a ratio sigma_k / sigma_{k+1} that falls below the 5 % point which surrogates with the run's
    norms, momentum and effective dimension (and constant drift) have at the same cut and place, W windows or more
    after the last one. The outcome is the change of a held-out metric over the 2 W windows after, less that over
    the 2 W before. Collapses at the k* of W rows before are matched with collapses at other cuts of like sigma_k
    and time; the p-value renames the cuts. Where k* = 1 stands far above the rest no other cut has a like sigma_k,
    and events stay unmatched. Events are observed, not made: see ``experiments.intervene`` for those.

    Verdicts: ``not identifiable`` with fewer than 5 matched events at k*, or where no renaming could give a
    p-value of 5 %; else ``supported`` for harm with p <= 5 %, ``contradicted`` for benefit with p <= 5 %,
    ``compatible`` for harm with a larger p.

    Args:
        recording: T updates, with a held-out metric.
        window: Rows W of a window.
        block: Block or union.
        stride: Updates in a row.
        outcome: Metric; test and validation accuracy and loss, as far as logged, where None.
        horizon: In windows; 2 W where None. Choose it before looking.
        null: Null of the thresholds.
        n_draws: Surrogate histories.
        n_permutations: Renamings.
        seed: Of both.

    Returns:
        Series and comparisons. Source: arXiv:2603.28964v1-v3 (the principle), derived (the design).

    Raises:
        SettingError: If a setting cannot be.
        DataError: If no window is whole, or no outcome was logged.
    """
    if horizon is not None and horizon < window:
        raise SettingError(
            f"horizon must be at least the window {window}; got {horizon}. Shorter ones share updates with the event."
        )
    names = outcome_names(recording) if outcome is None else [outcome]
    if not names or names[0] not in recording.metrics:
        raise DataError(
            f"outcome must be a metric of held-out data that was logged; got {outcome}. Log test_loss or "
            f"test_accuracy, or name one of {', '.join(recording.metrics) or 'no metric'}."
        )
    spectra = recording.spectra(window, stride, block)
    sigma = spectra.singular_values
    if not np.isfinite(sigma).any():
        raise DataError(f"At least one window of {window} updates must be whole; none is. Use a smaller window.")
    notes = []
    n, h = len(sigma), 2 * window if horizon is None else horizon
    ratio = ratios(sigma, spectra.floor)
    draws = window_draws(
        stretches(recording, window, block, stride),
        lambda grams: ratios(gram_spectrum(grams).singular_values),
        size=window,
        window=window,
        n_places=n,
        kind=null,
        n_draws=n_draws,
        rng=np.random.default_rng(seed),
    )
    threshold = _threshold(draws, ratio.shape)
    if draws is None:
        notes.append("no effective dimension is known: no thresholds, no events")
    events = collapse_events(ratio, threshold, separation=window)
    now = gap_position(sigma, floor=spectra.floor)
    before = np.zeros(n, dtype=np.int64)
    before[window:] = now[: max(n - window, 0)]
    studies = tuple(
        study_cuts(recording, name, events, before, sigma, spectra.steps, h, n_permutations, seed) for name in names
    )
    if any(np.abs(s.found.imbalance).max() > _UNBALANCED for s in studies if s.found.n_events):
        notes.append("events and their matches differ by more than 0.25 standard deviations in level or time")
    stability = np.full((n, window - 1), np.nan)
    if stride * 2 * window <= recording.lags + 1 and n > window:
        _, overlaps = recording.overlaps(window, window, block, stride)
        stability[window:] = cut_stability(overlaps)[:, :-1]
    else:
        notes.append(f"disjoint windows need {stride * 2 * window - 1} lags: no stability of cuts")
    rate_steps, rate, share = _learning(recording, notes)
    return Maximality(
        steps=spectra.steps,
        k_star=before,
        ratio=ratio,
        threshold=threshold,
        events=events,
        stability=stability,
        most_stable=_most_stable(stability[:, : window // 2], before),
        studies=studies,
        rate_steps=rate_steps,
        learning_rate=rate,
        learning_share=share,
        horizon=h,
        null=null,
        window=window,
        stride=stride,
        block=block_label(block),
        notes=tuple(notes),
    )


def _threshold(draws: WindowDraws | None, shape: tuple[int, ...]) -> np.ndarray:
    if draws is None:
        return np.full(shape, np.nan)
    return np.quantile(draws.values, _THRESHOLD, axis=1)[draws.nearest]


def _most_stable(stability: np.ndarray, before: np.ndarray) -> float:
    """Share of windows whose k* of a window before is the cut that kept most of its span."""
    known = np.isfinite(stability).all(axis=1) & (before > 0)
    if not known.any():
        return float("nan")
    return float(np.mean(stability[known].argmax(axis=1) + 1 == before[known]))


def _learning(recording: Recording, notes: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, l_k of every cut, and its share at k* of the whole product of gradients, at the probes."""
    empty = np.empty(0, dtype=np.int64), np.empty((0, 0)), np.empty(0)
    try:
        at = probed(recording)
    except DataError:
        notes.append("no probes: no learning rate of the dominant span")
        return empty
    spectrum = at.spectrum
    scale = np.where(spectrum.resolved, spectrum.singular_values, np.nan)
    gradients = [
        np.einsum("naj,na->nj", spectrum.time_profiles, at.on_window(np.array([p.on_updates(x) for p in at.probes])))
        / scale
        for x in ("train", "val")
    ]
    rate = cut_learning_rates(*gradients)
    k = gap_position(spectrum.singular_values, floor=spectrum.floor)
    total = np.array([p.dot("train", "val") for p in at.probes])
    at_k = np.take_along_axis(rate, np.maximum(k, 1)[:, None] - 1, axis=1)[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(k > 0, at_k / total, np.nan)
    known = np.isfinite(rate).any(axis=1)
    if not known.any():
        notes.append("no probe holds gradients of training and validation loss: no learning rate")
        return empty
    return at.steps()[known], rate[known], share[known]


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")
