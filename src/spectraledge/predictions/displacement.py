"""Principal components of the way the parameters went, as far as the recorded lags tell, and of random walks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..dynamics.windows import grams_ending_at
from ..errors import DataError
from ..recording.select import select_blocks
from ..theory.surrogates import NullKind, NullModel, fit_null
from .context import Array, Context
from .runs import Run

_MOST_ROWS = 300
_MOST_BLOCKS = 4
WALK: NullKind = "norm_matched"
"""Steps of the observed norms and momentum in random directions: a random walk of the same length."""


@dataclass(frozen=True)
class Walks:
    """Of one run: m stretches that share no row, n rows each.

    Attributes:
        rows: n.
        coverage: Share of the run that one of them holds.
        observed: (m, n, n) Grams of the updates.
        deflated: (m, n, n) the same without the direction of the parameters at each one's end.
        walk: (m, draws, n, n) random walks; ``drift`` the same around one constant direction.
        drift: See ``walk``.
        plain: (m, draws, n, n) steps of one length, independent, in as many dimensions as there are parameters:
            the published comparison.
    """

    rows: int
    coverage: float
    observed: Array
    deflated: Array
    walk: Array
    drift: Array
    plain: Array


def walks_of(run: Run, context: Context) -> Walks:
    """Stretches as long as the lags allow, with random walks beside them.

    Displacements theta_t - theta_0 add up updates, so their products are known only where all lags between are: over
    L + 1 updates, the whole run where that is all of it.

    Raises:
        DataError: If no stretch of three updates is whole, or the run does not tell the dimension of its noise.
    """
    return context.kept(("walks", id(run)), lambda: _walks(run, context))


def directions_of(run: Run, context: Context, share: float = 0.99) -> int:
    """Principal directions that hold a share of the displacement, uncentred, over a whole run.

    Raises:
        DataError: If the lags do not span the run.
    """
    band = run.recording.band(context.block, stride=context.stride)
    if band.shape[1] < len(band):
        raise DataError(
            f"the lags must span the run; {run.name} has {band.shape[1]} of {len(band)}. Record more lags."
        )
    found = walks_of(run, context)
    lam = np.linalg.eigvalsh(positions(found.observed[-1]))[::-1]
    return int(np.searchsorted(np.cumsum(lam) / lam.sum(), share) + 1)


def positions(gram: Array, *, centred: bool = False, unit: bool = False) -> Array:
    """(..., n, n) products of displacements X_i = sum_{a <= i} delta_a; (..., n + 1, n + 1) with the start, centred.

    Args:
        gram: (..., n, n) of the updates, oldest first.
        centred: Take off the mean position, the start included.
        unit: Give every displacement length 1, as published for the backbone.
    """
    n = gram.shape[-1]
    adding = np.tril(np.ones((n, n)))
    if centred:
        adding = np.concatenate([np.zeros((1, n)), adding])
        adding = adding - adding.mean(axis=0)
    found = adding @ gram @ adding.T
    if unit:
        length = np.sqrt(np.maximum(np.diagonal(found, axis1=-2, axis2=-1), 1e-300))
        found = found / length[..., :, None] / length[..., None, :]
    return found


def first_share(products: Array) -> Array:
    """(...) share of the largest eigenvalue; 0.61 for a long random walk centred, 0.81 from its start.

    >>> gram = np.eye(400)  # independent steps
    >>> float(first_share(positions(gram, centred=True)).round(3)), float(first_share(positions(gram)).round(3))
    (0.608, 0.811)
    """
    lam = np.linalg.eigvalsh(products)
    with np.errstate(invalid="ignore", divide="ignore"):
        return lam[..., -1] / np.trace(products, axis1=-2, axis2=-1)


def halves_angle(gram: Array) -> Array:
    """(...) degrees between the first principal directions of displacement of the two halves of a stretch."""
    n = gram.shape[-1] // 2
    adding = np.tril(np.ones((n, n)))
    early, late = gram[..., :n, :n], gram[..., -n:, -n:]
    _, u = np.linalg.eigh(adding @ early @ adding.T)
    _, v = np.linalg.eigh(adding @ late @ adding.T)
    # The direction is the sum of displacements times the leading vector: coefficients on the updates.
    a, b = (np.einsum("ij,...i->...j", adding, x[..., -1]) for x in (u, v))
    across = np.einsum("...i,...ij,...j->...", a, gram[..., :n, -n:], b)
    size = np.einsum("...i,...ij,...j->...", a, early, a) * np.einsum("...i,...ij,...j->...", b, late, b)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = np.abs(across) / np.sqrt(size)
    return np.degrees(np.arccos(np.clip(cosine, 0.0, 1.0)))


def _walks(run: Run, context: Context) -> Walks:
    recording = run.recording
    band = recording.band(context.block, stride=context.stride)
    spectra = context.spectra(run)
    p_eff = spectra.p_eff[np.isfinite(spectra.p_eff)]
    size = min(band.shape[1], len(band), _MOST_ROWS)
    if size < 4 or not len(p_eff):
        raise DataError(
            f"displacements take four rows within the lags, and the effective dimension of the noise; {run.name} has "
            f"{size} and {'tells it' if len(p_eff) else 'does not tell it'}. Record more lags, or a longer run."
        )
    ends = np.arange(len(band) - 1, size - 2, -size)[::-1]
    grams = grams_ending_at(band, size, ends)
    whole = np.isfinite(grams).all(axis=(-2, -1)) & (np.diagonal(grams, axis1=-2, axis2=-1) > 0.0).all(axis=-1)
    if not whole.any():
        raise DataError(f"a stretch of {size} rows must be whole; {run.name} has none. Record without seams.")
    ends, grams = ends[whole], grams[whole]
    chosen = np.unique(np.linspace(0, len(ends) - 1, min(len(ends), _MOST_BLOCKS)).astype(int))
    ends, grams = ends[chosen], grams[chosen]
    correlation = np.zeros(size)
    n_lags = min(size, spectra.row_correlation.shape[1])
    correlation[:n_lags] = spectra.row_correlation[0, :n_lags]
    draws = min(context.draws, 99 if size <= 50 else 39)
    rng = context.rng(231)
    dimension = float(np.median(p_eff))
    kinds: tuple[NullKind, NullKind] = (WALK, "constant_drift")
    walk, drift = (
        np.stack([fit_null(kind, g, dimension, correlation).sample(draws, rng) for g in grams]) for kind in kinds
    )
    still = np.zeros((size, size))
    n_parameters = _n_parameters(run)
    one = NullModel("white", np.ones(size), n_parameters, still, np.eye(size), np.empty(0), np.empty(0))
    plain = np.stack([one.sample(draws, rng) for _ in grams])
    return Walks(size, size / len(band), grams, _deflated(run, context, grams, ends), walk, drift, plain)


def _deflated(run: Run, context: Context, grams: Array, ends: Sequence[int] | np.ndarray) -> Array:
    """Grams without the component along theta at the end of each stretch: decay alone moves along it."""
    size, stride = grams.shape[-1], context.stride
    at = (np.asarray(ends) + 1) * stride - 1
    products = run.recording.theta_band(context.block)[at, : size * stride]  # newest first
    rows = products.reshape(len(at), size, stride).sum(axis=2)[:, ::-1]
    blocks = select_blocks(context.block, run.recording.blocks, run.recording.block_info)
    norm2 = run.recording.theta_norm2[:, blocks].sum(axis=1)[at]
    known = np.isfinite(rows).all(axis=1) & (norm2 > 0.0)
    along = np.where(known[:, None], rows, 0.0)
    return grams - along[:, :, None] * along[:, None, :] / np.where(known, norm2, 1.0)[:, None, None]


def _n_parameters(run: Run) -> float:
    segments = run.recording.meta.get("segments") or [{}]
    return float(segments[-1].get("n_parameters") or 1e6)  # above 1e5 the comparison no longer depends on it
