"""Contributions, totals and measured loss changes side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError

Array = NDArray[np.float64]


def second_order_term(curvature: ArrayLike, *, gradient_at: Literal["start", "end"] = "start") -> Array:
    """Second-order term of a loss change: ``+ delta^T H delta / 2``, or minus it for a gradient at the end.

    Out of sample the gradient is taken where the update starts: ``L(theta + delta) - L(theta) = <g, delta> +
    delta^T H delta / 2``. In sample it is taken where the update ends, and the sign turns.

    Args:
        curvature: (...) delta^T H delta [loss].
        gradient_at: ``start`` or ``end`` of the update.

    Returns:
        (...) [loss]. Source: standard result.

    Raises:
        SettingError: For another ``gradient_at``.
    """
    if gradient_at not in ("start", "end"):
        raise SettingError(f"gradient_at must be start or end; got {gradient_at!r}. In sample it is end.")
    return (0.5 if gradient_at == "start" else -0.5) * np.asarray(curvature, dtype=np.float64)


def coverage(contributions: ArrayLike, total: ArrayLike) -> Array:
    """Share of ``<g, delta>`` that the resolved modes hold: ``sum_j c_j / total``.

    A ratio of signed numbers: it may leave [0, 1], and is unstable where the total passes through zero. For
    many windows at once use :attr:`LossDecomposition.pooled_coverage`.

    Args:
        contributions: (..., k) [loss]; NaN marks unresolved modes, which are left out.
        total: (...) <g, delta> [loss].

    Returns:
        (...); NaN where no mode is resolved or the total is 0. Source: derived.

    >>> float(coverage([0.5, 0.25, np.nan], 1.0))
    0.75
    """
    y = np.asarray(total, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(y != 0.0, _captured(contributions) / y, np.nan)


@dataclass(frozen=True)
class LossDecomposition:
    """Loss changes of N updates, split over the modes of their windows.

    Attributes:
        contributions: (N, k) c_j of the modes kept [loss], NaN where unresolved.
        first_order: (N,) <g, delta>, all directions [loss].
        second_order: (N,) signed second-order term [loss], NaN where not measured.
        measured: (N,) change of the loss [loss], NaN where not measured.
        remainder: (N,) first_order minus the sum of contributions: modes left out and directions outside the
            window [loss].
        coverage: (N,) sum of contributions over first_order.
    """

    contributions: Array
    first_order: Array
    second_order: Array
    measured: Array
    remainder: Array
    coverage: Array

    @property
    def captured(self) -> Array:
        """(N,) sum of the contributions of resolved modes [loss]; NaN where none is."""
        return _captured(self.contributions)

    @property
    def higher_order(self) -> Array:
        """(N,) measured minus first and second order [loss]: what the Taylor expansion leaves out."""
        return self.measured - self.first_order - self.second_order

    @property
    def pooled_coverage(self) -> float:
        """Least-squares share of first_order in captured over all N, ``<captured, total> / <total, total>``."""
        x, y = self.captured, self.first_order
        known = np.isfinite(x) & np.isfinite(y)
        energy = float(np.square(y[known]).sum())
        return float(x[known] @ y[known]) / energy if energy > 0.0 else float("nan")


def loss_decomposition(
    contributions: ArrayLike,
    first_order: ArrayLike,
    *,
    curvature: ArrayLike | None = None,
    gradient_at: Literal["start", "end"] = "start",
    measured: ArrayLike | None = None,
    k: int | None = None,
) -> LossDecomposition:
    """Put contributions, totals and measured changes side by side.

    Args:
        contributions: (N, W) [loss], from any function above.
        first_order: (N,) <g, delta> [loss].
        curvature: (N,) delta^T H delta [loss], None where it was not measured.
        gradient_at: Where g was taken, see :func:`second_order_term`.
        measured: (N,) measured change of the loss on a large fixed set, None where not measured.
        k: Keep the k strongest modes only; all by default.

    Returns:
        The decomposition. Source: derived.

    Raises:
        SettingError: If k is not in 1..W or the lengths differ.
    """
    c, first = np.asarray(contributions, dtype=np.float64), np.asarray(first_order, dtype=np.float64)
    if c.ndim != 2 or first.shape != c.shape[:1]:
        raise SettingError(
            f"contributions must be (N, W) with N totals; got shapes {c.shape} and {first.shape}. "
            "Pass one row for each update."
        )
    if k is not None:
        if not 1 <= k <= c.shape[-1]:
            raise SettingError(f"k must lie in 1..{c.shape[-1]}, the number of modes; got {k}. Use k*.")
        c = c[:, :k]
    unknown = np.full(len(c), np.nan)
    extra = {"curvature": curvature, "measured": measured}
    series = {name: unknown if x is None else np.asarray(x, dtype=np.float64) for name, x in extra.items()}
    for name, x in series.items():
        if x.shape != first.shape:
            raise SettingError(f"{name} must hold {len(c)} values; got shape {x.shape}. Pass one for each update.")
    return LossDecomposition(
        contributions=c,
        first_order=first,
        second_order=second_order_term(series["curvature"], gradient_at=gradient_at),
        measured=series["measured"],
        remainder=first - _captured(c),
        coverage=coverage(c, first),
    )


def _captured(contributions: ArrayLike) -> Array:
    c = np.asarray(contributions, dtype=np.float64)
    known = np.isfinite(c)
    return np.where(known.any(axis=-1), np.where(known, c, 0.0).sum(axis=-1), np.nan)
