"""The ring against brute force: both backends, both precisions, every layout of a parameter."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_reference import relative_error

from spectraledge.errors import SettingError
from spectraledge.stream.blocks import make_blocks
from spectraledge.stream.kernel import load_kernel
from spectraledge.stream.ring import UpdateRing

BACKENDS = ["torch", pytest.param("compiled", marks=pytest.mark.skipif(load_kernel() is None, reason="no kernel"))]


def history(tensors: dict[str, torch.Tensor], n: int, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    out = [{k: v.clone() for k, v in tensors.items()}]
    for _ in range(n):
        out.append(
            {
                k: v + (0.01 * torch.randn(v.shape, generator=generator, dtype=torch.float64)).to(v.dtype)
                for k, v in out[-1].items()
            }
        )
    return out


def updates_of(snapshots: list[dict[str, torch.Tensor]], names: list[str], dtype: torch.dtype) -> np.ndarray:
    return np.stack(
        [
            torch.cat([(b[n].to(dtype) - a[n].to(dtype)).reshape(-1) for n in names]).double().numpy()
            for a, b in pairwise(snapshots)
        ]
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-9)])
def test_products_equal_brute_force_at_every_prefix(backend: str, dtype: torch.dtype, tolerance: float) -> None:
    # 70,001 entries cross the chunk size of both backends; small tensors share a chunk
    shapes = {"a.0.weight": (70, 1000), "a.0.bias": (1,), "a.1.weight": (33, 7), "b.weight": (5,), "a.1.bias": (33,)}
    start = {k: torch.randn(s, generator=torch.Generator().manual_seed(3), dtype=dtype) for k, s in shapes.items()}
    snapshots = history(start, 14)
    blocks = make_blocks(shapes)
    ring = UpdateRing(blocks, snapshots[0], 5, backend=backend)
    rows = [ring.append(s) for s in snapshots[1:]]
    for b, atoms in enumerate(blocks.atoms):
        updates = updates_of(snapshots, [a.name for a in atoms], dtype)
        assert relative_error(np.stack([r.products[b] for r in rows]), updates) < tolerance
        for t, row in enumerate(rows):
            theta = torch.cat([snapshots[t + 1][a.name].reshape(-1) for a in atoms]).double().numpy()
            scale = np.linalg.norm(theta) * np.linalg.norm(updates[t])
            assert abs(row.theta_dot[b] - theta @ updates[t]) < 1e-12 * scale
            assert row.theta_norm2[b] == pytest.approx(theta @ theta, rel=1e-12)
            assert row.unchanged[b] == np.sum(updates[t] == 0)


@pytest.mark.skipif(load_kernel() is None, reason="no kernel")
def test_kernel_does_not_depend_on_the_number_of_threads() -> None:
    shapes = {f"l.{i}.weight": (1 + 40_000 * (i % 3),) for i in range(6)}
    start = {k: torch.randn(s, generator=torch.Generator().manual_seed(1)) for k, s in shapes.items()}
    snapshots = history(start, 6)
    results = []
    before = torch.get_num_threads()
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            ring = UpdateRing(make_blocks(shapes), snapshots[0], 3, backend="compiled")
            results.append(np.stack([ring.append(s).products for s in snapshots[1:]]))
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(results[0], results[1], equal_nan=True)
    assert np.array_equal(results[0], results[2], equal_nan=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_slices_transposes_half_precision_and_mixed_dtypes(backend: str) -> None:
    shapes = {"layers.0.attn.in_proj_weight": (24, 8), "layers.0.attn.out_proj.weight": (8, 8), "layers.0.x": (6, 4)}
    generator = torch.Generator().manual_seed(0)
    start = {k: torch.randn(s, generator=generator) for k, s in shapes.items()}
    start["layers.0.attn.out_proj.weight"] = start["layers.0.attn.out_proj.weight"].bfloat16()
    start["layers.0.x"] = start["layers.0.x"].double()
    snapshots = [
        {k: (v.t().contiguous().t() if k.endswith("x") else v) for k, v in s.items()} for s in history(start, 6)
    ]
    whole = UpdateRing(make_blocks(shapes, "all"), snapshots[0], 4, backend=backend)
    heads = UpdateRing(make_blocks(shapes, "head", heads=2), snapshots[0], 4, backend=backend)
    assert heads.blocks.names == ("layers.0.head0", "layers.0.head1", "layers.0")
    assert heads.blocks.n_parameters == whole.blocks.n_parameters == 24 * 8 + 64 + 24
    for snapshot in snapshots[1:]:
        a, b = whole.append(snapshot), heads.append(snapshot)
        np.testing.assert_allclose(b.products.sum(axis=0), a.products[0], rtol=1e-13)
    # head 1 owns rows 4:8 of each of W_Q, W_K, W_V and columns 4:8 of W_O
    p, q = snapshots[-1], snapshots[-2]
    d = {k: (p[k].float() - q[k].float()).double() for k in list(shapes)[:2]}
    own = sum((d["layers.0.attn.in_proj_weight"][i * 8 + 4 : i * 8 + 8] ** 2).sum() for i in range(3))
    own = own + (d["layers.0.attn.out_proj.weight"][:, 4:8] ** 2).sum()
    assert b.products[1, 0] == pytest.approx(float(own), rel=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_entries_that_lie_apart_in_memory(backend: str) -> None:
    shapes = {"layers.0.attn.out_proj.weight": (6, 4), "v": (5,)}  # heads of one column; every second entry
    snapshots = history({k: torch.ones(s) for k, s in shapes.items()}, 3)
    apart = [{**s, "v": torch.stack([s["v"], -s["v"]], dim=1).reshape(-1)[::2]} for s in snapshots]
    blocks = make_blocks(shapes, "head", heads=4)
    ring = UpdateRing(blocks, apart[0], 2, backend=backend)
    for before, snapshot in pairwise(apart):
        row = ring.append(snapshot)
        change = {k: (snapshot[k] - before[k]).double().square() for k in shapes}
        columns = change["layers.0.attn.out_proj.weight"].sum(dim=0).tolist()
        np.testing.assert_allclose(row.products[:, 0], [*columns, float(change["v"].sum())], rtol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_decay_part(backend: str) -> None:
    shapes = {"a.weight": (300, 40), "b.weight": (50,)}
    start = {k: torch.randn(s, generator=torch.Generator().manual_seed(5)).double() for k, s in shapes.items()}
    snapshots = history(start, 8)
    ring = UpdateRing(make_blocks(shapes, "tensor"), snapshots[0], 3, decay=True, backend=backend)
    for t, snapshot in enumerate(snapshots[1:]):
        for name in shapes:  # two optimizer steps in the interval
            ring.add_decay(name, snapshots[t][name], -0.01)
            ring.add_decay(name, snapshots[t][name], -0.02)
        row = ring.append(snapshot)
        assert row.decay_products is not None
        assert row.decay_norm2 is not None
        for b, name in enumerate(shapes):
            decay = -0.03 * snapshots[t][name]
            for lag in range(min(t, 3) + 1):
                delta = snapshots[t + 1 - lag][name] - snapshots[t - lag][name]
                assert row.decay_products[b, lag] == pytest.approx(float((decay * delta).sum()), rel=1e-11)
            assert row.decay_norm2[b] == pytest.approx(float((decay**2).sum()), rel=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nonfinite_values_poison_their_block_alone_and_pass(backend: str) -> None:
    shapes = {"a.weight": (100,), "b.weight": (100,)}
    snapshots = history({k: torch.ones(s) for k, s in shapes.items()}, 10)
    snapshots[4]["a.weight"] = snapshots[4]["a.weight"].clone()
    snapshots[4]["a.weight"][3] = float("nan")
    snapshots[4]["a.weight"][7] = float("inf")
    ring = UpdateRing(make_blocks(shapes), snapshots[0], 3, backend=backend)
    rows = [ring.append(s) for s in snapshots[1:]]
    a, b = np.stack([r.products[0] for r in rows]), np.stack([r.products[1] for r in rows])
    assert rows[3].nonfinite.tolist() == [2, 0]
    assert np.isfinite(b[3:]).all()
    for t in range(10):
        for lag in range(4):
            touched = t - lag < 0 or {t, t - lag} & {3, 4}
            assert np.isnan(a[t, lag]) == bool(touched), (t, lag)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    lags=st.integers(1, 6),
    seed=st.integers(0, 2**16),
)
def test_any_partition_sums_to_all(sizes: list[int], lags: int, seed: int) -> None:
    shapes = {f"l.{i}.w": (n,) for i, n in enumerate(sizes)}
    start = {k: torch.randn(s, generator=torch.Generator().manual_seed(seed)) for k, s in shapes.items()}
    snapshots = history(start, lags + 3, seed)
    one = UpdateRing(make_blocks(shapes, "all"), snapshots[0], lags)
    many = UpdateRing(make_blocks(shapes, "tensor"), snapshots[0], lags)
    for snapshot in snapshots[1:]:
        a, b = one.append(snapshot).products[0], many.append(snapshot).products.sum(axis=0)
        # relative to ||delta_t|| ||delta_{t-l}||, both of which are in the lag-0 column's size
        scale = np.nanmax(np.abs(a))
        np.testing.assert_allclose(a, b, atol=1e-13 * scale, rtol=0)


def test_state_round_trip_is_exact() -> None:
    shapes = {"a.weight": (64,)}
    snapshots = history({"a.weight": torch.ones(64)}, 9)
    ring = UpdateRing(make_blocks(shapes), snapshots[0], 4)
    for s in snapshots[1:6]:
        ring.append(s)
    other = UpdateRing(make_blocks(shapes), snapshots[0], 4)
    other.load_state_tensors({k: v.clone() for k, v in ring.state_tensors().items()}, ring.n_appended)
    for s in snapshots[6:]:
        assert np.array_equal(ring.append(s).products, other.append(s).products)
    with pytest.raises(SettingError, match="the saved ring must have this ring's layout"):
        UpdateRing(make_blocks(shapes), snapshots[0], 3).load_state_tensors(ring.state_tensors(), 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lags": 0}, "lags must be at least 1; got 0"),
        ({"lags": 3, "store": "disk"}, 'store must be "device", "host" or "file"'),
        ({"lags": 3, "backend": "cuda"}, "backend must be"),
    ],
)
def test_refusals(options: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        UpdateRing(make_blocks({"a": (2,)}), {"a": torch.ones(2)}, **options)  # type: ignore[arg-type]
