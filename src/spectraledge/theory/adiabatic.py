"""Adiabatic parameter A: how fast directions turn, against how fast they relax. Four readings, one dimension each.

The paper's A divides by the learning rate and so carries the unit of the loss: its size, and with it any fixed
cut-off, means nothing across runs. The other three are pure numbers. None says by itself when it is large: that takes
a null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectraledge.errors import SettingError
from spectraledge.theory.gap import Rule, eigen_width, gap_position, width
from spectraledge.theory.perturbation import Reading, gram_change
from spectraledge.theory.spectrum import as_grams, gram_spectrum
from spectraledge.theory.stability import Mode, check_mode
from spectraledge.theory.surrogates import NullKind, fit_null

Array = NDArray[np.float64]

_CHUNK = 2_000_000  # entries of surrogate Grams held at once


@dataclass(frozen=True)
class Adiabatic:
    """The adiabatic parameters that follow from update Grams alone.

    Attributes:
        relative: By reading of dG: ||dG|| / g^2, (...) without unit.
        absolute: By reading of dG: ||dG|| / (lr g^2), (...) [1 / lr, a loss over a squared parameter]; empty where
            no learning rate was given.
        davis_kahan: (...) ||dM||_F / (lambda_k - lambda_{k+1}), without unit. The span of the first k directions
            turns by ||sin Theta||_F <= sqrt(2) times this.
        position: (...) k* of the first window.
        width: (...) g = sigma_k - sigma_{k+1} of the first window [parameter].
    """

    relative: dict[Reading, Array]
    absolute: dict[Reading, Array]
    davis_kahan: Array
    position: NDArray[np.int64]
    width: Array


def adiabatic(
    block: ArrayLike,
    window: int,
    *,
    lr: ArrayLike | None = None,
    position: ArrayLike | None = None,
    rule: Rule = "guarded",
) -> Adiabatic:
    """All Gram readings of A between a window and the one m updates later.

    Use m = 1 and m = W: at m = 1 the windows share W - 1 rows and A is smaller by O(1/W) whatever happens.

    Args:
        block: (..., W + m, W + m) inner products of the updates that either window holds, oldest first [parameter^2];
            m = 1..W (``theory.perturbation``; of a recording ``window_grams(band, W + m)``).
        window: W.
        lr: (...) learning rate per optimizer step, for the absolute readings.
        position: (...) imposes the gap position; by default k* of the first window by ``rule``.
        rule: Rule of k*.

    Returns:
        The parameters; NaN where nothing is resolved or an entry is not finite, infinite where the gap is 0.
        Source: arXiv:2603.28964v1-v3 (absolute; norm and reading are not stated, the author's code takes ``dlam``),
        derived (others).

    Raises:
        SettingError: If the block has the wrong size, or lr is not positive.

    Energies 9 and 4 in the first window; the oldest update (9) leaves for one of 16. All orthogonal.

    >>> found = adiabatic(np.diag([9.0, 4.0, 16.0]), 2, lr=0.1)
    >>> round(float(found.relative["dlam"]), 6), round(float(found.absolute["dlam"]), 6)
    (7.0, 70.0)
    """
    gram = as_grams(block)[..., :window, :window]
    finite = np.isfinite(as_grams(block)).all(axis=(-2, -1))
    spectrum = gram_spectrum(gram)
    sigma = spectrum.singular_values
    k = np.asarray(gap_position(sigma, rule=rule, floor=spectrum.floor) if position is None else position)
    k = np.broadcast_to(k, sigma.shape[:-1])
    changes = {reading: gram_change(block, window, reading=reading) for reading in get_args(Reading)}
    g = np.where(finite, width(sigma, k), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = {reading: change / g**2 for reading, change in changes.items()}
        davis_kahan = changes["operator"] / np.where(finite, eigen_width(sigma, k), np.nan)
    absolute = {} if lr is None else {reading: a / _positive(lr) for reading, a in relative.items()}
    return Adiabatic(relative, absolute, davis_kahan, k, g)


def adiabatic_parameter(
    block: ArrayLike,
    window: int,
    *,
    mode: Mode = "strict",
    lr: ArrayLike | None = None,
    reading: Reading | None = None,
    position: ArrayLike | None = None,
    rule: Rule = "guarded",
) -> Array:
    """One A between two windows.

    ``strict``: A_rel = ||dG|| / g^2 with dG the change of M = X^T X (``operator``), a pure number. ``author``: A_abs
    = ||dG|| / (lr g^2) as printed, with dG the change of eigenvalues (``dlam``), as in the author's code: its value
    scales with 1 / lr, so with the unit of the loss, and ``dlam`` is the smallest of the four readings.

    Args:
        block: As in :func:`adiabatic`.
        window: W.
        mode: ``strict`` or ``author``.
        lr: (...) learning rate; needed for ``author``.
        reading: Another reading of dG.
        position: As in :func:`adiabatic`.
        rule: As in :func:`adiabatic`.

    Returns:
        (...). Source: arXiv:2603.28964v1-v3 (author), derived (strict).

    Raises:
        SettingError: For another mode or reading, or ``author`` without a learning rate.
    """
    check_mode(mode)
    chosen: Reading = reading or ("operator" if mode == "strict" else "dlam")
    if chosen not in get_args(Reading):
        raise SettingError(f"reading must be one of {', '.join(get_args(Reading))}; got {reading!r}.")
    if mode == "author" and lr is None:
        raise SettingError("mode='author' divides by the learning rate; got lr=None. Pass lr, or use mode='strict'.")
    found = adiabatic(block, window, lr=lr, position=position, rule=rule)
    return (found.relative if mode == "strict" else found.absolute)[chosen]


def kernel_adiabatic(change: ArrayLike, kernel_width: ArrayLike, lr: ArrayLike, n_steps: ArrayLike = 1.0) -> Array:
    """A_ker = ||dK||_F / (lr s g_K^2): rotation rate of a kernel's leading span over its relaxation rate.

    A pure number only for the loss-weighted kernel K_l = B^(1/2) J P^-1 J^T B^(1/2), whose eigenvalues times lr are
    rates per step. Then it changes neither with the unit of the loss nor when the data are repeated, and lr cancels
    under gradient flow. With K = J J^T, which is what the paper writes, it has units of loss / output^2 and falls as
    the number of inputs grows.

    Args:
        change: (..., N, N) K(t + s) - K(t); or the rate of ``kernel.kernel_rate`` with n_steps = 1.
        kernel_width: (...) g_K = kappa_k - kappa_{k+1}, from ``kernel_gap`` at the first snapshot.
        lr: (...) learning rate; lr / (1 - beta) for torch's SGD with momentum.
        n_steps: (...) s, optimizer steps between the snapshots.

    Returns:
        (...). Source: arXiv:2603.28964v1 (||K'|| / (lr g^2)), derived (K_l, the norm, g).

    Raises:
        SettingError: If lr or n_steps is not positive.

    >>> float(kernel_adiabatic([[0.0, 0.3], [0.3, 0.0]], 2.0, lr=0.1).round(4))
    1.0607
    """
    norm = np.linalg.norm(as_grams(change), axis=(-2, -1))
    steps = _positive(n_steps, "n_steps")
    with np.errstate(divide="ignore", invalid="ignore"):
        return norm / (_positive(lr) * steps * np.square(np.asarray(kernel_width, dtype=np.float64)))


def adiabatic_null(
    gram: ArrayLike,
    window: int,
    p_eff: float,
    *,
    rng: np.random.Generator,
    stride: int = 1,
    kind: NullKind = "smooth_drift",
    row_correlation: ArrayLike | None = None,
    lr: float | None = None,
    rule: Rule = "guarded",
    n_draws: int = 499,
) -> Adiabatic:
    """Draws of A under drift plus noise: the norms, drift and momentum of a record, and no structure.

    Fit it to a record several times longer than a window. A null fitted to one block alone has that block's own
    coherence, so the block always lies near its centre: 0.2 % of windows then come out ``above`` instead of 5 %.

    Args:
        gram: (N, N) inner products of a record of N >= W + stride updates [parameter^2].
        window: W.
        p_eff: Effective dimension of the noise.
        rng: Source of randomness.
        stride: Updates m between the two windows that A compares, 1..W.
        kind: Null, see ``fit_null``.
        row_correlation: Correlation that momentum leaves between updates, see ``fit_null``.
        lr: Learning rate, for the absolute readings.
        rule: Rule of k*, which every draw applies to itself.
        n_draws: Number of draws.

    Returns:
        Parameters of shape (N - W - stride + 1, n_draws), window by window, as :func:`gram_blocks` orders them, for
        ``regimes``. Source: derived.

    Raises:
        SettingError: If p_eff is not positive, or the record is too short or has no finite positive diagonal.
    """
    model = fit_null(kind, gram, p_eff, row_correlation)
    parts = []
    at_once = max(1, _CHUNK // len(model.norms) ** 2)
    for start in range(0, n_draws, at_once):
        draws = model.sample(min(at_once, n_draws - start), rng)
        parts.append(adiabatic(gram_blocks(draws, window, stride), window, lr=lr, rule=rule))
    names: tuple[Reading, ...] = get_args(Reading)
    return Adiabatic(
        relative={name: _windows_first([part.relative[name] for part in parts]) for name in names},
        absolute={name: _windows_first([part.absolute[name] for part in parts]) for name in names} if lr else {},
        davis_kahan=_windows_first([part.davis_kahan for part in parts]),
        position=_windows_first([part.position for part in parts]),
        width=_windows_first([part.width for part in parts]),
    )


def gram_blocks(gram: ArrayLike, window: int, stride: int = 1) -> Array:
    """Every block of W + m successive updates of a record: (..., N, N) to (..., N - W - m + 1, W + m, W + m).

    Args:
        gram: Inner products of N updates, oldest first.
        window: W.
        stride: m.

    Raises:
        SettingError: If the record is shorter than one block.

    >>> gram_blocks(np.diag([1.0, 2.0, 3.0, 4.0]), 2).shape
    (2, 3, 3)
    """
    gram = as_grams(gram)
    size = window + stride
    n = gram.shape[-1] - size + 1
    if n < 1:
        raise SettingError(
            f"a record must hold at least W + m updates, here {size}; got {gram.shape[-1]}. Use a longer record."
        )
    index = np.arange(n)[:, None] + np.arange(size)
    return np.asarray(gram[..., index[:, :, None], index[:, None, :]])


def _windows_first(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.moveaxis(np.concatenate(parts), 0, -1)


def _positive(value: ArrayLike, name: str = "lr") -> Array:
    number = np.asarray(value, dtype=np.float64)
    if np.any(number <= 0.0):
        raise SettingError(f"{name} must be positive; got {number.min():g}. Leave out windows that took no step.")
    return number
