"""The sketch: its law, the same numbers however the parameters are cut, and no memory of their size."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pytest
import torch
from ring_histories import private_bytes, recorded, rows_of, walk
from stream_reference import small_transformer, train
from test_stream_store import LINUX

from spectraledge.errors import SettingError
from spectraledge.stream.blocks import Blocks, make_blocks
from spectraledge.stream.hashing import piles_of
from spectraledge.stream.kernel import load_kernel
from spectraledge.stream.layout import Layout
from spectraledge.stream.ring import UpdateRing
from spectraledge.stream.sketch import SketchRing
from spectraledge.stream.sketcher import Sketcher

KERNEL = load_kernel()
COMPILED = KERNEL is not None and KERNEL.complete
NEEDS_KERNEL = pytest.mark.skipif(not COMPILED, reason="no kernel")
BACKENDS = ["torch", pytest.param("compiled", marks=NEEDS_KERNEL)]


@NEEDS_KERNEL
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_kernel_and_torch_make_one_sketch(dtype: torch.dtype) -> None:
    # slices of fused projections, a transpose, a scalar, a size odd and above the kernel's tile
    shapes = {"l.0.attn.in_proj_weight": (24, 8), "l.0.attn.out_proj.weight": (8, 8), "l.1.w": (3001,), "s": ()}
    tensors = walk(shapes, 0, dtype=dtype)[0]
    tensors["l.0.attn.out_proj.weight"] = tensors["l.0.attn.out_proj.weight"].t().contiguous().t()
    if dtype == torch.float16:
        tensors["l.1.w"][:3] = torch.tensor([6e-8, -3e-6, 65504.0])  # subnormal, subnormal, the largest
    blocks = make_blocks(shapes, "head", heads=2)
    found = [Sketcher(blocks, tensors, 7, kernel, None, 0)(tensors) for kernel in (KERNEL, None)]
    norm2 = found[1][1][:, :1]
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=0, atol=1e-13 * float(np.sqrt(norm2.max())))
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-13)
    whole = sum(float(t.double().square().sum()) for t in tensors.values())
    assert norm2.sum() == pytest.approx(whole, rel=1e-13)


@NEEDS_KERNEL
def test_threads_do_not_change_a_bit() -> None:
    shapes = {"a.w": (3, 1_500_000), "b.w": (900,)}  # three piles and more than one task
    tensors = {k: torch.randn(s, generator=torch.Generator().manual_seed(0)) for k, s in shapes.items()}
    sketcher = Sketcher(make_blocks(shapes, "all"), tensors, 10, KERNEL, None, 0)
    before, results = torch.get_num_threads(), []
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            results.append(sketcher(tensors)[0])
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(results[0], results[1])


def test_unbiased_and_within_the_law_of_its_variance() -> None:
    n, size, seeds = 600, 64, 600
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, n))
    b = 0.3 * a + b
    vectors = {"a": torch.from_numpy(a), "b": torch.from_numpy(b)}
    blocks = make_blocks({"w": (n,)}, "all")
    draws = np.empty((seeds, 3))
    for seed in range(seeds):
        sketcher = Sketcher(blocks, {"w": vectors["a"]}, 6, KERNEL, None, seed)
        x, y = (sketcher({"w": v})[0][0] for v in vectors.values())
        draws[seed] = x @ x, x @ y, y @ y
    truth = np.array([a @ a, a @ b, b @ b])
    law = (np.array([a @ a, a @ a, b @ b]) * np.array([a @ a, b @ b, b @ b]) + truth**2) / size
    law = law - 2 / size * np.array([np.sum(a**4), np.sum(a**2 * b**2), np.sum(b**4)])  # of one nonzero a column
    # 600 seeds: a mean within 4 standard errors, a variance within 4 sqrt(2 / 600) = 23 %
    assert (np.abs(draws.mean(axis=0) - truth) < 4 * np.sqrt(law / seeds)).all()
    assert (np.abs(draws.var(axis=0) / law - 1) < 0.24).all()


BOXES = {
    "rows": lambda r: {"w": ((6 * r, 0), (6, 20)), "b": ((3 * r,), (3,))},
    "columns": lambda r: {"w": ((0, 5 * r), (24, 5)), "b": ((3 * r,), (3,))},
    "grid": lambda r: {"w": ((12 * (r // 2), 10 * (r % 2)), (12, 10)), "b": ((3 * r,), (3,))},
    "uneven": lambda r: {
        "w": ((7 * r, 0), (7 if r < 3 else 3, 20)),
        **({} if r else {"b": ((0,), (12,))}),
    },
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cut", sorted(BOXES))
@pytest.mark.parametrize("decay", [False, True])
def test_the_same_products_whatever_the_sharding(cut: str, backend: str, decay: bool) -> None:
    shapes = {"w": (24, 20), "b": (12,)}
    snapshots = walk(shapes, 8, dtype=torch.float64, size=0.1)
    whole = SketchRing(make_blocks(shapes, "tensor"), snapshots[0], 4, size=32, backend=backend, decay=decay)
    rank_layouts = [
        {n: Layout(shapes[n], offset, shape) for n, (offset, shape) in BOXES[cut](rank).items()} for rank in range(4)
    ]

    def local(rank: int, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        out = {}
        for name, layout in rank_layouts[rank].items():
            box = tuple(slice(o, o + n) for o, n in zip(layout.offset, layout.shape, strict=True))
            out[name] = tensors[name][box].contiguous()
        return out

    rings = []
    for rank in range(4):
        blocks = make_blocks({n: x.shape for n, x in rank_layouts[rank].items()}, "tensor")
        blocks = Blocks(("w", "b"), (*blocks.atoms, *((),) * (2 - len(blocks.names))))
        rings.append(
            SketchRing(
                blocks,
                local(rank, snapshots[0]),
                4,
                size=32,
                backend=backend,
                decay=decay,
                layouts=rank_layouts[rank],
            )
        )
    for before, after in pairwise(snapshots):
        if decay:
            for name in shapes:
                whole.add_decay(name, before[name], -0.01)
                for rank, ring in enumerate(rings):
                    if name in rank_layouts[rank]:
                        ring.add_decay(name, local(rank, before)[name], -0.01)
        row = whole.append(after)
        total = np.sum([ring.sums(local(rank, after)) for rank, ring in enumerate(rings)], axis=0)
        for ring in rings:  # every rank makes the row, and keeps the same state
            other = ring.row(total)
            for x, y in zip(vars(row).values(), vars(other).values(), strict=True):
                if x is not None:
                    np.testing.assert_allclose(y, x, rtol=0, atol=1e-12 * float(row.theta_norm2.max()))
    for name, tensor in whole.state_tensors().items():
        for ring in rings:
            torch.testing.assert_close(ring.state_tensors()[name], tensor, rtol=0, atol=1e-12)


def test_entries_of_every_box_are_counted_once() -> None:
    shape = (3, 4, 5)
    blocks = make_blocks({"w": shape}, "all")
    seen = np.zeros(60, dtype=int)
    for i, j in np.ndindex(3, 2):
        for k in range(5):
            layout = Layout(shape, (i, 2 * j, k), (1, 2, 1))
            atom = make_blocks({"w": layout.shape}, "all").atoms[0][0]
            for pile in piles_of(atom, layout):
                for run in range(pile.n_outer):
                    first = pile.first + run * pile.global_stride
                    seen[first : first + pile.inner] += 1
    assert (seen == 1).all()
    assert sum(p.size for p in piles_of(blocks.atoms[0][0], Layout.whole(shape))) == 60


@LINUX
@NEEDS_KERNEL
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_nothing_of_the_size_of_the_parameters_is_kept_or_made(dtype: torch.dtype) -> None:
    n = 6_000_000
    tensors = {"w": torch.zeros(n, dtype=dtype)}
    tracemalloc.start()
    before = private_bytes()
    ring = SketchRing(make_blocks({"w": (n,)}, "all"), tensors, 9, size=1024)
    for _ in range(12):
        tensors["w"].add_(0.01)
        ring.append(tensors)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ring.nbytes == 10 * 1024 * 8
    assert peak < 1_000_000  # arrays of NumPy: 10 tables of 8 kB and those of the tasks
    assert private_bytes() - before < n  # half a copy of the parameters in 16 bits would show


def test_norms_and_displacement_of_the_parameters_are_exact() -> None:
    shapes = {"a.w": (4000,), "b.w": (500,)}
    snapshots = walk(shapes, 6)
    blocks = make_blocks(shapes)
    exact, ring = UpdateRing(blocks, snapshots[0], 3), SketchRing(blocks, snapshots[0], 3, size=256)
    for a, b in zip(rows_of(exact, snapshots), rows_of(ring, snapshots), strict=True):
        np.testing.assert_allclose(b.theta_norm2, a.theta_norm2, rtol=1e-13)
        # <theta, delta> = (difference of norms + ||delta||^2) / 2: only the last term is estimated; float32 updates
        # were rounded by 2^-24 of an entry where the sketch's were not
        own = (a.products[:, 0] - b.products[:, 0]) / 2
        scale = np.sqrt(a.theta_norm2 * a.products[:, 0])
        assert (np.abs(b.theta_dot + own - a.theta_dot) < 1e-5 * scale).all()
        sd = np.sqrt(2 / 256) * a.products[:, :1]
        seen = ~np.isnan(a.products)
        assert np.array_equal(seen, ~np.isnan(b.products))
        assert (np.abs(a.products - b.products)[seen] < (5 * np.broadcast_to(sd, seen.shape))[seen]).all()
        assert np.isnan(b.unchanged).all()


def test_singular_values_in_training_lie_within_the_bound_and_the_check_says_so() -> None:
    model = small_transformer()
    tensors = dict(model.named_parameters())
    blocks = make_blocks({n: tuple(p.shape) for n, p in tensors.items()})
    exact = UpdateRing(blocks, tensors, 7)
    ring = SketchRing(blocks, tensors, 7, size=1024, check=2, check_every=3, window=6)
    rows: tuple[list, list] = ([], [])
    notes: dict[int, list[dict[str, object]]] = {}

    def after(step: int) -> None:
        for found, one in zip(rows, (exact, ring), strict=True):
            found.append(one.append(tensors))
        notes[step] = ring.take_notes()

    train(model, [torch.optim.AdamW(model.parameters(), lr=1e-3)], 25, after)
    true = recorded(rows[0], blocks.names, 7).spectra(6)
    recording = recorded(rows[1], blocks.names, 7, sketch_size=1024)
    found = recording.spectra(6)
    assert recording.sketch_size == 1024
    assert found.relative_error == pytest.approx((np.sqrt(6) + 3) / 32)
    assert (np.abs(found.singular_values / true.singular_values - 1) < found.relative_error).all()
    # windows 0 and 1 at the start, and every third; the exact ring is gone in between
    assert [step for step, said in notes.items() if said] == [6, 12, 24]
    note = notes[12][0]
    error = np.abs(found.singular_values / true.singular_values - 1)[6].max()
    assert note["value"] == pytest.approx(error, rel=1e-6)
    assert note["event_kind"] == "sketch_checked"
    assert ring.nbytes == 8 * ring.n_entries
    flat = found.gap().ratio < (1 + found.relative_error) / (1 - found.relative_error)
    assert not found.gap().resolved[flat].any()


def test_a_snapshot_that_is_not_finite_spoils_two_updates_of_its_block() -> None:
    shapes = {"a.w": (100,), "b.w": (100,)}
    snapshots = walk(shapes, 8)
    snapshots[3]["a.w"][5] = float("inf")
    snapshots[3]["a.w"][7] = float("nan")
    rows = rows_of(SketchRing(make_blocks(shapes), snapshots[0], 2, size=16), snapshots)
    assert rows[2].nonfinite.tolist() == [2, 0]
    lag0 = np.stack([row.products[:, 0] for row in rows])
    assert np.isnan(lag0[:, 0]).tolist() == [False, False, True, True, False, False, False, False]
    assert np.isfinite(lag0[:, 1]).all()


def test_refusals() -> None:
    blocks, tensors = make_blocks({"w": (4,)}, "all"), {"w": torch.ones(4)}
    ring = SketchRing(blocks, tensors, 2, size=4)
    ring.sums(tensors)
    with pytest.raises(SettingError, match="a row must be made of all sums of a sketch"):
        ring.sums(tensors)
    with pytest.raises(SettingError, match="a sketch keeps their products only"):
        ring.combine(np.ones(2))
    with pytest.raises(SettingError, match="its sharding does not say"):
        SketchRing(blocks, tensors, 2, layouts={"w": None})
