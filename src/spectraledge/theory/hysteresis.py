"""Hysteresis of the feedback between coherence and gap: in the model, and in runs swept up and down.

With measured runs alpha must be the overlap of disjoint windows, never a function of the gap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.alpha_loop import loop_map
from spectraledge.theory.sign_flip import sign_flip_p

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Hysteresis:
    """A slow sweep of epsilon up and down again.

    Attributes:
        epsilon: (n) ascending.
        up: (n) alpha on the way up, starting coherent.
        down: (n) alpha on the way down, at the same epsilon.
        area: Integral of up - down over epsilon: zero for a system that forgets how it came there.
    """

    epsilon: Array
    up: Array
    down: Array
    area: float


def hysteresis_sweep(
    epsilon: ArrayLike,
    window: int = 10,
    *,
    background: float = 0.0,
    noise: float = 0.0,
    n_iterations: int = 200,
    rng: np.random.Generator | None = None,
) -> Hysteresis:
    """Sweep epsilon through ascending values and back, and record alpha.

    Without background the state alpha = 0 is stable at every epsilon and a collapsed gap never returns; with it,
    it returns once the unstable fixed point has come down to the background.

    Args:
        epsilon: (n) ascending, > 0.
        window: W.
        background: Coherence without the loop, see :func:`spectraledge.theory.alpha_loop.loop_map`.
        noise: Standard deviation of what is added to alpha at every iteration.
        n_iterations: Iterations at each epsilon; alpha of the last half is averaged.
        rng: Source of randomness, needed if noise > 0.

    Returns:
        The sweep. Source: derived.

    Raises:
        SettingError: If epsilon does not ascend, or noise has no rng.
    """
    eps = np.asarray(epsilon, dtype=np.float64)
    if eps.ndim != 1 or len(eps) < 2 or np.any(np.diff(eps) <= 0.0) or eps[0] <= 0.0:
        raise SettingError("epsilon must be at least two ascending positive values; got others. Sort them.")
    if noise > 0.0 and rng is None:
        raise SettingError("noise needs rng; got none. Pass np.random.default_rng(seed).")
    alpha = 1.0
    passes = []
    for series in (eps, eps[::-1]):
        reached = np.empty(len(eps))
        for i, value in enumerate(series):
            kept = []
            for step in range(n_iterations):
                alpha = float(loop_map(alpha, value, window, background=background))
                if noise > 0.0 and rng is not None:
                    alpha = float(np.clip(alpha + noise * rng.standard_normal(), 0.0, 1.0))
                if step >= n_iterations // 2:
                    kept.append(alpha)
            reached[i] = np.mean(kept)
        passes.append(reached)
    up, down = passes[0], passes[1][::-1]
    return Hysteresis(eps, up, down, float(np.trapezoid(up - down, eps)))


@dataclass(frozen=True)
class HysteresisTest:
    """Loop areas of runs that were swept up and down.

    Attributes:
        areas: (R) area of each run, divided by the range of the control: mean of up - down.
        mean: Their mean; positive if the state before the collapse was kept on the way up.
        p_value: Two-sided sign-flip test of mean 0 over runs; the loop predicts a positive mean.
        smallest_p: Smallest value that so many runs can give.
    """

    areas: Array
    mean: float
    p_value: float
    smallest_p: float


def hysteresis_test(
    alpha_up: ArrayLike,
    alpha_down: ArrayLike,
    control: ArrayLike | None = None,
    *,
    n_permutations: int = 9999,
    rng: np.random.Generator,
) -> HysteresisTest:
    """Is the path up another than the path down? Runs are the units, not windows.

    The two passes are matched by the control (learning rate, epsilon), so that a dependence on it alone gives area
    zero. A slow relaxation does not: sweep at two speeds and require that the area stays.

    Args:
        alpha_up: (R, n) or (n) overlap of disjoint windows at each value of the control, on the way up.
        alpha_down: The same on the way down, in the order of alpha_up (ascending control).
        control: (n) ascending; None for equal steps.
        n_permutations: Random sign flips where all 2^R are too many.
        rng: Source of randomness.

    Returns:
        The test; runs with a NaN are left out. Source: standard result (sign-flip test).

    Raises:
        SettingError: If shapes differ or the control does not ascend.
    """
    up, down = (np.atleast_2d(np.asarray(x, dtype=np.float64)) for x in (alpha_up, alpha_down))
    x = np.arange(up.shape[-1], dtype=np.float64) if control is None else np.asarray(control, dtype=np.float64)
    if up.shape != down.shape or up.ndim != 2 or x.shape != up.shape[1:] or len(x) < 2 or np.any(np.diff(x) <= 0.0):
        raise SettingError(
            f"alpha_up and alpha_down must be (runs, n) with n >= 2 ascending control values; got {up.shape}, "
            f"{down.shape} and {x.shape}. Reverse the pass that goes down."
        )
    areas = np.trapezoid(up - down, x, axis=-1) / (x[-1] - x[0])
    used = areas[np.isfinite(areas)]
    n = len(used)
    if n == 0:
        return HysteresisTest(areas, np.nan, np.nan, 1.0)
    p_value = sign_flip_p(used, n_draws=n_permutations, rng=rng)
    smallest = max(2.0 ** (1 - n), 1.0 / (1 + n_permutations)) if n > 12 else 2.0 ** (1 - n)
    return HysteresisTest(areas, float(used.mean()), p_value, smallest)
