"""Updates stored in bfloat16: the error is known, bounded, and keeps what it could have made from counting."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from ring_histories import recorded, rows_of, walk
from stream_reference import small_transformer, train

from spectraledge.recording import Recording
from spectraledge.stream.blocks import make_blocks
from spectraledge.stream.kernel import load_kernel
from spectraledge.stream.store import make_ring

KERNEL = load_kernel()
BACKENDS = [
    "torch",
    pytest.param("compiled", marks=pytest.mark.skipif(KERNEL is None or not KERNEL.complete, reason="no kernel")),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_are_those_of_the_rounded_updates(backend: str, dtype: torch.dtype) -> None:
    shapes = {"a.weight": (40_001,), "b.weight": (77,)}
    snapshots = walk(shapes, 8, dtype=dtype)
    ring = make_ring(make_blocks(shapes), snapshots[0], 4, precision="bfloat16", backend=backend)
    assert ring.nbytes == 40_078 * (4 * 2 + dtype.itemsize)
    rows = rows_of(ring, snapshots)
    for b, name in enumerate(shapes):
        exact = [(y[name] - x[name]).double() for x, y in pairwise(snapshots)]
        rounded = [x.to(dtype).bfloat16().double() for x in exact]
        for t, row in enumerate(rows):
            scale = float(exact[t].square().sum())
            for lag in range(min(t, 4) + 1):
                # sums of exact products in float64, at most 4e4 terms: 1e-12 of the scale
                assert row.products[b, lag] == pytest.approx(float(rounded[t] @ rounded[t - lag]), abs=1e-12 * scale)
            assert row.error_norm2 is not None
            assert row.error_norm2[b] == pytest.approx(float((exact[t] - rounded[t]).square().sum()), rel=1e-9)
            assert row.theta_dot[b] == pytest.approx(float(snapshots[t + 1][name].double() @ exact[t]), rel=1e-9)
            assert row.unchanged[b] == int((exact[t] == 0).sum())


def test_no_scale_is_needed_from_1e_minus_30_to_1e30() -> None:
    shapes = {"small": (1000,), "large": (1000,)}
    scale = {"small": 1e-30, "large": 1e30}
    snapshots = [
        {k: v * scale[k] for k, v in s.items()} for s in walk(shapes, 4, seed=1, dtype=torch.float64, size=1.0)
    ]
    ring = make_ring(make_blocks(shapes, "tensor"), snapshots[0], 3, precision="bfloat16")
    for row in rows_of(ring, snapshots):
        assert row.error_norm2 is not None
        relative = row.error_norm2 / row.products[:, 0]
        # between 0 and 2^-8 per entry, so on average near 2^-8 / sqrt(12) and the same at both ends
        assert (relative > 1e-7).all()
        assert (relative < 2.0**-16).all()
        assert relative[0] == pytest.approx(relative[1], rel=0.2)


def test_the_measured_error_bounds_the_real_one_in_training() -> None:
    model = small_transformer()
    names = {n: tuple(p.shape) for n, p in model.named_parameters()}
    blocks = make_blocks(names)
    tensors = dict(model.named_parameters())
    full = make_ring(blocks, tensors, 9)
    half = make_ring(blocks, tensors, 9, precision="bfloat16")
    rows: tuple[list, list] = ([], [])

    def after(_: int) -> None:
        for ring, found in zip((full, half), rows, strict=True):
            found.append(ring.append(tensors))

    train(model, [torch.optim.AdamW(model.parameters(), lr=1e-3)], 24, after)
    true, found = (recorded(r, blocks.names, 9) for r in rows)
    assert true.error_norm2 is None
    assert found.error_norm2 is not None
    for block in ("all", *blocks.names):
        for stride, window in ((1, 6), (2, 4)):
            a, b = (r.spectra(window, stride, block) for r in (true, found))
            error = np.abs(a.singular_values - b.singular_values).max(axis=1)
            assert (b.error > 0).all()
            # Weyl, with room for the float64 rounding of the full spectrum, its own floor
            assert (error <= b.error + a.floor).all()
            assert (b.floor > b.error).all()
            assert (error > 1e-4 * b.error).all()  # and the bound is no empty one
        t = slice(1, None)
        column = found.blocks.index(block)
        assert (found.error_norm2[t, column] <= 2.0**-16 * true.products[t, column, 0]).all()


def planted(sigma: list[float], cosine: float = 0.0) -> Recording:
    """The recording of orthogonal updates of these norms; the last leans on the first."""
    n = 4096
    directions = np.linalg.qr(np.random.default_rng(0).standard_normal((n, len(sigma))))[0].T
    directions[-1] = np.sqrt(1 - cosine**2) * directions[-1] + cosine * directions[0]
    theta = np.cumsum(np.vstack([np.zeros(n), np.array(sigma)[:, None] * directions]), axis=0)
    snapshots = [{"w": torch.from_numpy(x)} for x in theta]
    blocks = make_blocks({"w": (n,)}, "all")
    ring = make_ring(blocks, snapshots[0], len(sigma), precision="bfloat16")
    return recorded(rows_of(ring, snapshots), blocks.names, len(sigma))


# Rounding takes off about 2^-8 / sqrt(12) = 1.1e-3 of each of two rows, in all 1.6e-3; a gap counts from twice that.
@pytest.mark.parametrize(("width", "resolved"), [(1e-3, False), (0.05, True)])
def test_a_gap_that_the_error_could_have_made_is_not_resolved(width: float, resolved: bool) -> None:
    spectra = planted([1.0, 1.0 - width]).spectra(2)
    gap = spectra.gap()
    assert 5e-4 < float(np.asarray(spectra.error)[0]) < 3e-3
    assert gap.position.tolist() == [1]
    assert gap.width[0] == pytest.approx(width, abs=1e-3)
    assert gap.resolved.tolist() == [resolved]


@pytest.mark.parametrize("normalisation", ["row", "lr"])
@pytest.mark.parametrize(("cosine", "resolved"), [(1e-3, False), (0.05, True)])
def test_errors_are_divided_as_the_rows_are(normalisation: str, cosine: float, resolved: bool) -> None:
    recording = planted([1e-6, 1e-6], cosine)  # rates are 1, so that "lr" keeps this size
    spectra = recording.spectra(2, normalisation=normalisation)
    unit = 1.0 if normalisation == "row" else 1e-6
    assert 5e-4 * unit < float(np.asarray(spectra.error)[0]) < 3e-3 * unit
    assert spectra.gap().resolved.tolist() == [resolved]


def test_a_mode_below_the_error_is_not_resolved() -> None:
    spectra = planted([1.0, 0.5, 0.1, 1e-4]).spectra(4)
    assert spectra.resolved.tolist() == [[True, True, True, False]]
    assert spectra.gap("plain").position.tolist() == [2]  # 0.5 over 0.1; what is below the floor makes no gap
