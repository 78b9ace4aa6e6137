"""The feedback between the gap and the stability of directions, asked of a recording in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import DataError
from ..recording import Recording
from ..recording.derive import check_window
from ..recording.select import BlockChoice
from ..theory.gap import gap_position
from ..theory.local_projection import LocalProjection, local_projection
from ..theory.rotation import span_sines
from .columns import Table

_FEWEST = 4  # disjoint windows for each regressor


@dataclass(frozen=True, eq=False)
class AlphaLoopTests:
    """Local projections of stability and gap on each other. N windows.

    Attributes:
        steps: (N) ends of the windows.
        alpha: (N) share ||V_k^T V_k'||^2 / k of the span of the first k modes that is still there W rows later, of
            the window ending at each step and the disjoint one before it.
        gap: (N) log sigma_k / sigma_{k+1} at the fixed position.
        position: k, the most frequent k*.
        alpha_on_gap: Response of alpha h windows later to the gap of now.
        gap_on_alpha: Response of the gap h windows later to alpha of now.
        controls: Names of the controls that vary.
        verdicts: "alpha_on_gap" and "gap_on_alpha" to "positive", "negative", "none" or "not identifiable", at
            the horizons that share no update; corrected for their number.
        notes: What is missing or was assumed.
    """

    steps: np.ndarray
    alpha: np.ndarray
    gap: np.ndarray
    position: int
    alpha_on_gap: LocalProjection
    gap_on_alpha: LocalProjection
    controls: tuple[str, ...]
    verdicts: dict[str, str]
    notes: tuple[str, ...] = field(default=())

    def table(self) -> Table:
        """Columns by name, one entry a window."""
        return {"step": self.steps, "alpha": self.alpha, "gap": self.gap}

    def rows(self) -> list[dict[str, Any]]:
        """One plain row a direction and horizon."""
        return [
            {
                "response": name,
                "horizon": int(h),
                "coefficient": float(b),
                "low": float(low),
                "high": float(high),
                "p_value": float(p),
                "n": int(n) if np.isfinite(n) else 0,
                "shares_updates": bool(h < free),
                "verdict": self.verdicts[name],
            }
            for name, fit, free in (
                ("alpha_on_gap", self.alpha_on_gap, self._free("alpha_on_gap")),
                ("gap_on_alpha", self.gap_on_alpha, self._free("gap_on_alpha")),
            )
            for h, b, low, high, p, n in zip(fit.horizons, fit.response, fit.low, fit.high, fit.p_values, fit.n)
        ]

    def summary(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "k": self.position,
            "loop": all(v == "positive" for v in self.verdicts.values()),
            "verdicts": dict(self.verdicts),
            "responses": self.rows(),
            "controls": list(self.controls),
            "notes": list(self.notes),
        }

    def _free(self, name: str) -> int:
        window = int(self.alpha_on_gap.horizons[0])
        return 2 * window if name == "alpha_on_gap" else window


def alpha_loop_tests(
    recording: Recording,
    window: int = 10,
    block: BlockChoice = "all",
    stride: int = 1,
    horizons: Sequence[int] | None = None,
    *,
    level: float = 0.95,
) -> AlphaLoopTests:
    """Does a wide gap precede stable directions, and do stable directions precede a wide gap?

    Alpha is the overlap of disjoint windows, never the Davis-Kahan form, which is computed from the gap. Even so
    alpha at horizon W compares the very window of the gap with the next one: noise turns the modes of a narrow gap
    more, so that the response at W is positive in noise around a constant drift without any feedback. Only from
    2 W on do alpha and gap share no update; the verdicts use those horizons (from W on for the gap's response,
    whose alpha looks back). The loop is claimed where both are positive.

    Args:
        recording: T updates.
        window: Rows W of a window.
        block: Block or union.
        stride: Updates in a row.
        horizons: In windows; None takes W, 2 W and 3 W. The first is W.
        level: Of the intervals; the verdicts' p-values are multiplied by the number of horizons behind them.

    Returns:
        Responses and verdicts. Source: arXiv:2603.28964v1-v3 (the loop), derived (test).

    Raises:
        SettingError: If the band is too narrow for two disjoint windows.
        DataError: If no gap is resolved.
    """
    check_window(window, stride, recording.n_updates, recording.lags, lag=window)
    steps, overlaps = recording.overlaps(window, window, block, stride)
    spectra = recording.spectra(window, stride, block)
    position = gap_position(spectra.singular_values, floor=spectra.floor)
    known = position[position > 0]
    if not len(known):
        raise DataError("At least one window must have a resolved gap; none has. Use a smaller window.")
    k = int(np.bincount(known).argmax())
    sigma = np.where(spectra.resolved, spectra.singular_values, np.nan)[window:]
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = np.log(sigma[:, k - 1] / sigma[:, k])
    # ||V_k^T V_k'||_F^2 = k - ||sin Theta_k||_F^2; spans, not vectors, since modes may swap within one.
    alpha = 1.0 - span_sines(overlaps)[:, k - 1] ** 2 / k
    controls, names = _controls(recording, spectra.norms[window:], window, stride, len(steps))
    chosen = [window, 2 * window, 3 * window] if horizons is None else list(dict.fromkeys([window, *horizons]))
    fit = {"controls": controls, "hac_lag": 2 * window, "level": level}
    on_gap = local_projection(alpha, gap, chosen, **fit)  # type: ignore[arg-type]
    on_alpha = local_projection(gap, alpha, chosen, **fit)  # type: ignore[arg-type]
    fewest = _FEWEST * (3 + controls.shape[1]) * window
    notes = []
    if len(steps) < fewest:
        notes.append(
            f"{len(steps)} windows are fewer than the {fewest} that {3 + controls.shape[1]} coefficients ask for"
        )
    return AlphaLoopTests(
        steps=steps,
        alpha=alpha,
        gap=gap,
        position=k,
        alpha_on_gap=on_gap,
        gap_on_alpha=on_alpha,
        controls=names,
        verdicts={
            "alpha_on_gap": _verdict(on_gap, 2 * window, fewest, 1.0 - level),
            "gap_on_alpha": _verdict(on_alpha, window, fewest, 1.0 - level),
        },
        notes=tuple(notes),
    )


def _controls(
    recording: Recording, norms: np.ndarray, window: int, stride: int, n: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(N, C) log of the mean step norm of each window, and of its learning rate where that varies."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {"step norm": np.log(np.sqrt(np.mean(norms**2, axis=1)))}
        if recording.lr_sum.shape[1]:
            rate = recording.lr_sum[:, 0] / np.maximum(recording.n_steps, 1)
            ends = (np.arange(n) + 2 * window) * stride - 1
            found["learning rate"] = np.log(rate[np.minimum(ends, len(rate) - 1)])
    kept = {}
    for name, values in found.items():
        known = values[np.isfinite(values)]
        if len(known) and np.ptp(known) > 1e-9 * (1.0 + np.abs(known).max()):
            kept[name] = values
    return np.stack(list(kept.values()), axis=-1) if kept else np.zeros((n, 0)), tuple(kept)


def _verdict(fit: LocalProjection, free: int, fewest: int, size: float) -> str:
    used = (fit.horizons >= free) & np.isfinite(fit.response) & (fit.n >= fewest)
    if not used.any():
        return "not identifiable"
    p = fit.p_values[used] * used.sum()
    best = int(np.argmin(p))
    if not p[best] <= size:
        return "none"
    return "positive" if fit.response[used][best] > 0.0 else "negative"
