"""Which predictor of the spectrum wins out of sample: the flow equations, or simple baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DataError, SettingError
from ..recording import Recording
from ..recording.derive import check_window
from ..recording.select import BlockChoice, block_label
from ..theory.forecast import compare_predictors, forward_chain
from ..theory.gap import gap_position
from ..theory.predictors import Predictor
from ..theory.spectrum import gram_spectrum
from ..theory.window_series import Quantity, WindowSeries, future, quantity, window_series
from .flow_inputs import FlowInputs, flow_inputs
from .flow_predictors import baselines, gap_flows, signal_flows
from .flow_scores import FlowComparison, FlowScore, winner
from .windows import grams_ending_at

MODES = 3

_MOST = (
    10.0  # times sigma_1: a negative curvature at one probe predicts growth without end and would be all the score
)


def compare_flows(
    recording: Recording,
    window: int = 10,
    block: BlockChoice = "all",
    stride: int = 1,
    horizon: int | Sequence[int] | None = None,
    *,
    n_boot: int = 500,
    seed: int = 0,
) -> FlowComparison:
    """Predict the spectrum of every window from what came before, in every way there is, and score it.

    Baselines (persistence, AR(1) of each sigma_j, drift, rank-two perturbation with expected rows) and oracles
    that are handed the updates that came (``rank2_realised``, ``exact_rank2``, whose error is rounding) run on
    all windows. Where probes exist the flows join, on the probed windows only and next to the same baselines:
    ``signal_*`` and ``gap_*`` in the forms ``strict`` (injection N_j of the interval before), ``damping``
    (the strict flow without injection), ``printed`` and ``consistent`` (published reduced form). They differ in
    the drive: the published one takes the gradient as injected anew all the time, see
    :func:`spectraledge.theory.signal_flow.signal_terms`. The strict injection stands on d_j^2 = W (eta s G_j)^2, a
    gradient that is the same in all rows of the window. Time courses of modes are orthogonal, so that this can hold
    for one mode of a window at most, the leading one; ``damping`` does without it and is exact for gradient descent
    along any modes, since M = X^T X then changes by -eta (H M + M H). Predictions of the flows are held below
    10 sigma_1 of now.

    The first third of the record is history. The winner is the predictor of least error, no oracle, among
    those whose 95 % intervals lie below 1 against both persistence and AR(1). It is chosen among several, which
    the intervals do not correct for: a winner of few blocks, or for one quantity alone, is weak evidence.

    Args:
        recording: T updates.
        window: Rows W of a window; flows need that of the probes.
        block: Block or union; flows need "all".
        stride: Updates in a row; flows need 1.
        horizon: Snapshots ahead, one or several; None takes 1 and W.
        n_boot: Resamples of blocks of max(2 W, W + H) windows.
        seed: Of the resamples.

    Returns:
        The scores and winners. Source: derived (protocol); flows arXiv:2603.28964v1-v3 (published), derived (strict).

    Raises:
        SettingError: If the band is too narrow for the window, or a horizon below 1.
        DataError: If there are fewer than six windows.
    """
    check_window(window, stride, recording.n_updates, recording.lags)
    horizons = [1, window] if horizon is None else [horizon] if isinstance(horizon, int) else list(horizon)
    if not horizons or min(horizons) < 1:
        raise SettingError(f"horizon must be at least 1 snapshot; got {horizon}. Use 1, and W for disjoint windows.")
    series, position = record_windows(recording, window, block, stride)
    n = len(series)
    if n < 6:
        raise DataError(f"A run must have at least 6 windows to be predicted; it has {n}. Record more often.")
    notes: list[str] = []
    if series.blocks is None:
        notes.append(f"no exact oracle: it needs {stride * (window + 1) - 1} lags")
    inputs = _usable_inputs(recording, window, block_label(block), stride, notes)
    plain = baselines(blocks=series.blocks is not None)
    signal, gap = (signal_flows(inputs, n), gap_flows(inputs, position)) if inputs is not None else ([], [])
    ends = np.arange(n) * stride + window * stride - 1

    scores: list[FlowScore] = []
    winners: dict[tuple[str, int, str], str] = {}
    for h in dict.fromkeys(horizons):
        if n - h < 2:
            notes.append(f"horizon {h} leaves no window to compare")
            continue
        values = forward_chain([*plain, *signal, *gap], series, h, start=max(1, n // 3))
        _bound(values, series.singular_values, [p.name for p in [*signal, *gap]], h, notes)
        truth = future(series.singular_values, h)
        truth[across_seams(recording, ends, h * stride)] = np.nan
        for name, kind, mode in _quantities(window):
            actual = quantity(truth, kind, mode=mode, position=position)
            seen = {key: quantity(v, kind, mode=mode, position=position) for key, v in values.items()}
            flows = [*signal, *(gap if kind == "g" else [])]
            for label, group in (("all", plain), ("probed", [*plain, *flows])):
                if label == "probed" and not flows:
                    continue
                spacing = inputs.spacing if label == "probed" and inputs is not None else 1
                size = -(-max(2 * window, window + h) // spacing)
                found = _compare(actual, seen, group, size, label, n_boot, seed)
                if not found:
                    notes.append(f"{name} at horizon {h}, {label} windows: fewer than two blocks of {size}")
                    continue
                scores += [FlowScore(name, h, label, *rest) for rest in found]
                winners[name, h, label] = winner(scores[-len(found) :])
    return FlowComparison(
        scores=tuple(scores),
        winners=winners,
        window=window,
        stride=stride,
        block=block_label(block),
        n_windows=n,
        n_probed=0 if inputs is None else len(inputs),
        notes=tuple(dict.fromkeys(notes)),
    )


def record_windows(
    recording: Recording, window: int, block: BlockChoice = "all", stride: int = 1
) -> tuple[WindowSeries, np.ndarray]:
    """All windows of a run as predictors take them, and the guarded k* (N) of each, 0 for none."""
    band = recording.band(block, stride=stride)
    ends = np.arange(window - 1, len(band))
    grams = grams_ending_at(band, window, ends)
    wide = band.shape[1] > window
    blocks = grams_ending_at(band, window + 1, ends[1:]) if wide else None
    series = window_series(grams, blocks)
    floor = gram_spectrum(grams, update_eps=recording.update_eps).floor
    return series, gap_position(series.singular_values, floor=floor)


def _quantities(window: int) -> list[tuple[str, Quantity, int]]:
    modes = range(1, min(MODES, window) + 1)
    found: list[tuple[str, Quantity, int]] = [("g", "g", 1)]
    found += [(f"d_{j}", "d", j) for j in modes]
    return [*found, *((f"lambda_{j}", "lambda", j) for j in modes)]


def _usable_inputs(recording: Recording, window: int, block: str, stride: int, notes: list[str]) -> FlowInputs | None:
    try:
        inputs = flow_inputs(recording)
    except DataError:
        notes.append("no probes: the flow equations are not compared")
        return None
    if (inputs.window, block, stride) != (window, "all", 1):
        notes.append(
            f"probes were made in windows of {inputs.window} single updates of all parameters: no flows here"
        )
        return None
    if not np.isfinite(inputs.curvature).any():
        notes.append("no probe measured curvature along a mode: the flow equations are not compared")
        return None
    notes += inputs.notes
    return inputs


def _bound(
    values: dict[str, np.ndarray], sigma: np.ndarray, names: Sequence[str], horizon: int, notes: list[str]
) -> None:
    """Hold the flows' predictions below ``_MOST`` times the largest sigma of now."""
    most = _MOST * sigma[:, :1]
    beyond = np.zeros(len(sigma), dtype=bool)
    for name in names:
        with np.errstate(invalid="ignore"):
            beyond |= (values[name] > most).any(axis=1)
        values[name] = np.minimum(values[name], most)
    if beyond.any():
        notes.append(
            f"horizon {horizon}: flows predict more than {_MOST:g} sigma_1 at {int(beyond.sum())} probes (negative "
            "curvature taken as lasting); held there"
        )


def across_seams(recording: Recording, ends: np.ndarray, ahead: int) -> np.ndarray:
    """(N) whether the run was taken up anew between the end of a window and that of its target."""
    seams = recording.seams
    return np.searchsorted(seams, ends + ahead, side="right") > np.searchsorted(seams, ends, side="right")


def _compare(
    actual: np.ndarray,
    seen: Mapping[str, np.ndarray],
    group: Sequence[Predictor],
    size: int,
    label: str,
    n_boot: int,
    seed: int,
) -> list[tuple[Any, ...]]:
    """Fields of a score from the predictor on, one entry a predictor; none where two blocks do not fit."""
    known = np.isfinite(actual) & np.all([np.isfinite(seen[p.name]) for p in group if not _is_flow(p)], axis=0)
    kept = [p for p in group if int((known & np.isfinite(seen[p.name])).sum()) >= 2 * size]
    if len(kept) < 2 or (label == "probed" and not any(_is_flow(p) for p in kept)):
        return []
    used = {p.name: seen[p.name] for p in kept}
    common = known & np.all([np.isfinite(x) for x in used.values()], axis=0)
    if int(common.sum()) < 2 * size:
        return []
    by_reference = [
        compare_predictors(actual, used, reference=name, block=size, n_boot=n_boot, rng=np.random.default_rng(seed))
        for name in ("persistence", "ar1")
    ]
    rows = []
    for p in kept:
        one, other = (scores[p.name] for scores in by_reference)
        ratios = [(s.mse_ratio, s.low, s.high) for s in (one, other)]
        rows.append((p.name, p.oracle, one.n, one.n_blocks, *ratios, one.skill))
    return rows


def _is_flow(predictor: Predictor) -> bool:
    return predictor.name.startswith(("signal_", "gap_"))
