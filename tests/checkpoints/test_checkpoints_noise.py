"""The rounding of half-precision checkpoints is measured, and what lies below it does not count as resolved."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints_series import save_walk, walk
from safetensors.torch import save_file

import spectraledge as se
from spectraledge.checkpoints.noise import rounding_variance

HALVES = [torch.float16, torch.bfloat16]


def ulp(x: torch.Tensor) -> np.ndarray:
    """Spacing of the numbers of its format at each entry, from the neighbour above."""
    size = x.abs()
    above = torch.nextafter(size.cpu(), torch.full_like(size, float("inf")))
    return (above.double() - size.double()).numpy()


@pytest.mark.parametrize("dtype", HALVES)
def test_the_variance_is_that_of_the_spacings(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    size = 10.0 ** (8 * torch.rand(2000, generator=generator) - 6)  # from below the smallest normal float16 number
    x = torch.cat([size * torch.sign(torch.randn(2000, generator=generator)), torch.tensor([0.0, 1.0, -2.0])])
    x = x.to(dtype)
    assert rounding_variance(x) == pytest.approx((ulp(x) ** 2).sum() / 12, rel=1e-12)
    assert rounding_variance(x.reshape(-1, 1).t()) == rounding_variance(x)


@pytest.mark.parametrize("dtype", HALVES)
def test_what_is_not_finite_counts_nothing(dtype: torch.dtype) -> None:
    x = torch.tensor([1.0, float("nan"), float("inf"), -float("inf")], dtype=dtype)
    assert rounding_variance(x) == rounding_variance(x[:1]) > 0


def test_other_formats_carry_none() -> None:
    assert rounding_variance(torch.ones(3)) == 0.0
    assert rounding_variance(torch.ones(0, dtype=torch.float16)) == 0.0


@pytest.mark.parametrize("dtype", HALVES)
def test_it_is_the_error_that_rounding_makes(tmp_path: Path, dtype: torch.dtype) -> None:
    """Steps of many spacings: the squared error of a rounded update is what the record says, up to chance."""
    exact = walk(6)
    save_walk(tmp_path, 6, dtype=dtype)
    r = se.analyze(tmp_path, window=2, blocks="tensor")
    assert r.error_norm2 is not None
    for name in exact[0]:
        b = r.blocks.index(name)
        deltas = [second[name].double() - first[name].double() for first, second in pairwise(exact)]
        rounded = [
            second[name].to(dtype).double() - first[name].to(dtype).double() for first, second in pairwise(exact)
        ]
        errors = np.array([float((x - y).square().sum()) for x, y in zip(deltas, rounded)])
        n = exact[0][name].numel()
        # each entry's squared error is a sum of two of coefficient of variation below 1.1; 5 updates, half of them
        # independent; five standard deviations, and the discreteness of spacings for small tensors
        tolerance = 5 * 1.1 / np.sqrt(2.5 * n) + 0.1
        assert errors.mean() / r.error_norm2[:, b].mean() == pytest.approx(1.0, abs=tolerance)


def test_each_block_has_its_own_and_all_is_their_sum(tmp_path: Path) -> None:
    save_walk(tmp_path, 4, dtype=torch.bfloat16)
    r = se.analyze(tmp_path, window=2)
    assert r.error_norm2 is not None
    states = walk(4, dtype=torch.bfloat16)
    for b, block in enumerate(r.blocks[1:], start=1):
        of_snapshots = [
            sum(rounding_variance(t) for name, t in state.items() if name.startswith(block)) for state in states
        ]
        expected = np.add(of_snapshots[1:], of_snapshots[:-1])
        np.testing.assert_allclose(r.error_norm2[:, b], expected, rtol=1e-12)
    np.testing.assert_allclose(r.error_norm2[:, 0], r.error_norm2[:, 1:].sum(axis=1), rtol=1e-12)


def test_float32_checkpoints_carry_none(tmp_path: Path) -> None:
    save_walk(tmp_path, 4)
    assert se.analyze(tmp_path, window=2).error_norm2 is None


def test_a_mode_below_the_rounding_is_not_resolved(tmp_path: Path) -> None:
    """Weights that move along one direction only, saved in bfloat16: the other modes are rounding."""
    generator = torch.Generator().manual_seed(0)
    start, direction = torch.randn(2, 3000, generator=generator)
    spectra = {}
    for dtype in (torch.float32, torch.bfloat16):
        folder = tmp_path / str(dtype)
        folder.mkdir()
        for step in range(9):
            along = 0.05 * (step + 0.3 * step**2)
            save_file({"w": (start + along * direction).to(dtype)}, folder / f"step-{step}.safetensors")
        spectra[dtype] = se.analyze(folder, window=4).spectra(window=4)
    rounded, exact = spectra[torch.bfloat16], spectra[torch.float32]
    assert exact.resolved[:, 0].all()
    assert rounded.resolved.sum(axis=1).tolist() == [1] * len(rounded.steps)
    assert (rounded.singular_values[:, 1] > 100 * exact.singular_values[:, 1]).all()  # rounding, far above float32's
    assert (rounded.singular_values[:, 1] < rounded.floor).all()
    assert (rounded.gap().position == 0).all()  # a gap ends at a mode that is there


def test_save_and_load_keep_it(tmp_path: Path) -> None:
    save_walk(tmp_path / "ckpts", 4, dtype=torch.float16)
    r = se.analyze(tmp_path / "ckpts", window=2, out=tmp_path / "out")
    assert se.load(tmp_path / "out") == r
    assert r.error_norm2 is not None
    assert (r.error_norm2 > 0).all()


def test_precision_that_changes_begins_a_segment(tmp_path: Path) -> None:
    for i, state in enumerate(walk(6)):
        half = {name: t.to(torch.bfloat16) if i >= 3 else t for name, t in state.items()}
        save_file(half, tmp_path / f"step-{i}.safetensors")
    r = se.analyze(tmp_path, window=2)
    assert r.error_norm2 is not None
    assert r.segment.tolist() == [0, 0, 1, 1]
    assert np.isnan(r.error_norm2[:2]).all()
    assert (r.error_norm2[2:] > 0).all()
    assert r.spectra(window=2).floor[0] < r.spectra(window=2).floor[-1]
