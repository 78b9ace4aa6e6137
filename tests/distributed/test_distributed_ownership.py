"""Who counts what, over simulated meshes: every entry exactly once, and the known bugs of sharded sums."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spectraledge as se
from spectraledge.errors import SettingError
from spectraledge.stream.blocks import make_blocks
from spectraledge.stream.layout import Layout
from spectraledge.stream.ranks.boxes import Placement, chunk, local_layout
from spectraledge.stream.ranks.ownership import Held, divide
from spectraledge.stream.ranks.parts import local_blocks, offset_of, size_of
from spectraledge.stream.ring import UpdateRing

S, R = (lambda dim=0: Placement("shard", dim)), Placement("replicate")


def fsdp_line(n: int, dim: int, mesh: tuple[int, ...], at: tuple[int, ...], places: tuple[Placement, ...]) -> range:
    """Rows that a rank really holds: tensor parallel pieces first, which FSDP then cuts."""
    line = range(n)
    for kinds in (("shard",), ("strided",)):
        for size, i, p in zip(mesh, at, places):
            if p.kind in kinds and p.dim == dim:
                line = chunk(line, size, i)
    return line


def tables_of(
    name: str,
    shape: tuple[int, ...],
    ranks: np.ndarray,
    places: tuple[Placement, ...],
    world: int,
    value: Callable[[tuple[range, ...]], int] = lambda lines: hash(lines) & 0xFFFF,
) -> list[list[Held]]:
    tables: list[list[Held]] = [[] for _ in range(world)]
    for at in itertools.product(*map(range, ranks.shape)):
        lines = tuple(fsdp_line(n, d, ranks.shape, at, places) for d, n in enumerate(shape))
        local_shape = tuple(map(len, lines))
        tables[int(ranks[at])].append(
            Held(
                name,
                shape,
                local_shape,
                kind="dtensor",
                ranks=tuple(ranks.flatten().tolist()),
                mesh_shape=ranks.shape,
                placements=places,
                coordinate=at,
                layout=local_layout(shape, ranks.shape, at, places, local_shape),
                checksum=value(lines),
            )
        )
    return tables


def merged(*parts: list[list[Held]]) -> list[list[Held]]:
    return [[held for part in parts for held in part[rank]] for rank in range(len(parts[0]))]


def times_counted(tables: list[list[Held]], name: str) -> np.ndarray:
    """How often each entry of a parameter is counted."""
    partition = divide(tables)
    count = np.zeros(partition.shapes[name], dtype=int)
    for rank, table in enumerate(tables):
        for held in table:
            if held.name == name and rank in partition.owners[name] and held.n_local:
                assert held.layout is not None
                box = tuple(slice(o, o + n) for o, n in zip(held.layout.offset, held.layout.shape))
                count[box] += 1
    return count


@st.composite
def meshes(draw: Any) -> tuple[tuple[int, ...], np.ndarray, tuple[Placement, ...], int]:
    mesh_shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    world = math.prod(mesh_shape) * draw(st.integers(1, 2))
    ranks = np.array(draw(st.permutations(range(world))))[: math.prod(mesh_shape)].reshape(mesh_shape)
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    places = [draw(st.sampled_from([R, *(S(d) for d in range(len(shape)))])) for _ in mesh_shape]
    # FSDP over tensor parallelism: the first dimension cuts what those to its right have left
    dim = draw(st.sampled_from(range(len(shape))))
    split = math.prod(n for n, p in zip(mesh_shape[1:], places[1:]) if p == S(dim))
    if split > 1 and draw(st.booleans()):
        places[0] = Placement("strided", dim, split)
    return shape, ranks, tuple(places), world


@settings(max_examples=300, deadline=None)
@given(meshes())
def test_every_entry_is_counted_exactly_once(
    drawn: tuple[tuple[int, ...], np.ndarray, tuple[Placement, ...], int],
) -> None:
    shape, ranks, places, world = drawn
    tables = tables_of("w", shape, ranks, places, world)
    owners = divide(tables).owners["w"]
    held = {rank: table[0] for rank, table in enumerate(tables) if table}
    assert sum(held[rank].n_local for rank in owners) == math.prod(shape)
    if all(h.layout is not None for h in held.values()):
        assert (times_counted(tables, "w") == 1).all()


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 4))
def test_strided_pieces_lie_where_fsdp_puts_them(n: int, dp: int, tp: int) -> None:
    """pytorch#168134: for some uneven sizes DTensor's own formula places entries on another rank than FSDP does."""
    places = (Placement("strided", 0, tp), S(0)) if tp > 1 else (S(0), S(0))
    for at in itertools.product(range(dp), range(tp)):
        line = fsdp_line(n, 0, (dp, tp), at, places) if tp > 1 else chunk(chunk(range(n), dp, at[0]), tp, at[1])
        layout = local_layout((n,), (dp, tp), at, places, (len(line),))
        assert layout is None or len(line) == 0 or layout.offset == (line[0],)  # never a wrong place


def test_the_layouts_are_those_of_torch() -> None:
    from torch.distributed.tensor._utils import _compute_local_shape_and_global_offset
    from torch.distributed.tensor.placement_types import Replicate, Shard

    for shape, mesh in (((7, 5), (2, 3)), ((1, 4), (3, 2)), ((8, 8), (2, 2))):
        for places in itertools.product((None, 0, 1), repeat=2):
            theirs = [Replicate() if p is None else Shard(p) for p in places]
            ours = tuple(R if p is None else S(p) for p in places)
            for at in itertools.product(*map(range, mesh)):
                local_shape, offset = _compute_local_shape_and_global_offset(shape, mesh, list(at), theirs)
                layout = local_layout(shape, mesh, at, ours, local_shape)
                assert layout is not None
                assert layout.shape == tuple(local_shape)
                if layout.n_entries:
                    assert layout.offset == tuple(offset)


# the bugs of others, each by the name under which it is known


def summed(tables: list[list[Held]], values: dict[str, np.ndarray]) -> float:
    """||x||^2 as the ranks find it: squares of what each counts, added over all of them."""
    partition = divide(tables)
    total = 0.0
    for rank, table in enumerate(tables):
        for held in table:
            if rank in partition.owners[held.name] and held.n_local:
                assert held.layout is not None
                box = tuple(slice(o, o + n) for o, n in zip(held.layout.offset, held.layout.shape))
                total += float(np.square(values[held.name][box]).sum())
    return total


def plain(name: str, shape: tuple[int, ...], ranks: range, world: int, checksum: int = 1) -> list[list[Held]]:
    held = Held(name, shape, shape, layout=Layout.whole(shape), checksum=checksum)
    return [[held] if rank in ranks else [] for rank in range(world)]


GRID = np.arange(4).reshape(2, 2)
BUGS = {
    "torchtitan#766": merged(  # every rank had a norm of its own
        tables_of("w", (6, 4), np.arange(4), (S(0),), 4), plain("b", (4,), range(4), 4)
    ),
    "torchtune#2248": tables_of("w", (6, 4), np.arange(4), (S(0),), 4),  # rank 0's norm taken for the whole
    "miles_diffusion#35": tables_of("w", (8, 4), np.arange(4), (S(1),), 4),  # a partial norm, low by sqrt(shards)
    "LlamaFactory#10640": tables_of("w", (8, 4), np.arange(2), (S(0),), 2),
    "VeOmni#862": tables_of("w", (6, 4), GRID, (R, S(0)), 4),  # HSDP: added over replicas as well
    "NeMo-RL#3788": merged(  # norms and biases counted once for each tensor parallel rank
        tables_of("w", (6, 4), np.arange(2), (S(0),), 2),
        tables_of("row.bias", (6,), np.arange(2), (R,), 2),
        plain("norm", (4,), range(2), 2),
    ),
    "torchtitan#3549": tables_of("w", (256 + 1, 2), np.arange(3), (S(0),), 3),  # padding became part of the shape
    "Megatron-LM#5880": merged(  # only what is sharded may be reduced
        tables_of("w", (6, 4), GRID, (R, R), 4), tables_of("b", (6,), GRID, (S(0), R), 4)
    ),
    "pytorch#129206": tables_of("w", (8, 4), GRID, (Placement("strided", 0, 2), S(0)), 4),
    "pytorch#129229": tables_of("w", (5, 4), GRID, (Placement("strided", 0, 2), S(0)), 4),
    "DTensor under DDP": merged(*(tables_of("w", (6, 4), GRID[:, j], (S(0),), 4) for j in range(2))),
}


@pytest.mark.parametrize("bug", BUGS)
def test_sums_of_others_that_were_wrong(bug: str) -> None:
    tables, rng = BUGS[bug], np.random.default_rng(0)
    shapes = divide(tables).shapes
    values = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    expected = sum(float(np.square(x).sum()) for x in values.values())
    assert summed(tables, values) == pytest.approx(expected, rel=1e-13)  # 50 squares: 50 eps
    if bug == "torchtitan#3549":
        assert shapes["w"] == (257, 2)


@pytest.mark.parametrize("issue", ["pytorch#153354", "ktransformers#2145"])
def test_plain_and_sharded_tensors_in_one_ring(issue: str) -> None:
    """Lists of both kinds crash torch's foreach functions; the ring takes local tensors one by one."""
    blocks = make_blocks({"w": (4, 3), "b": (4,)}, "all")
    layouts = {"w": Layout((4, 3), (2, 0), (2, 3)), "b": Layout.whole((4,))}
    part = local_blocks(blocks, layouts, {"w": (2, 3), "b": (4,)})
    tensors = {"w": torch.ones(2, 3), "b": torch.ones(4)}
    ring = UpdateRing(part, tensors, 2)
    row = ring.append({name: 2 * t for name, t in tensors.items()})
    assert row.products[0, 0] == 10.0


def test_strided_uneven_pieces_are_summed_but_not_sliced() -> None:
    """pytorch#168134: sums do not ask where an entry lies; heads and states do, and are refused."""
    blocks = make_blocks({"w": (9, 2)}, "layer")
    part = local_blocks(blocks, {"w": None}, {"w": (1, 2)})
    assert part.n_parameters == 2
    heads = make_blocks({"0.q_proj.weight": (8, 2)}, "head", 4)
    with pytest.raises(SettingError, match="strided over ranks"):
        local_blocks(heads, {"0.q_proj.weight": None}, {"0.q_proj.weight": (2, 2)})


# replicas share the work; contradictions are named


def test_replicas_share_the_work() -> None:
    shapes = {f"{i}.weight": (8, 8) for i in range(8)}
    table = [Held(name, shape, shape, layout=Layout.whole(shape)) for name, shape in shapes.items()]
    owners = divide([table] * 4).owners
    assert sorted(owners.values()) == [(r,) for r in range(4) for _ in range(2)]


def test_a_parameter_of_one_rank_is_that_ranks_own() -> None:
    tables = merged(plain("stage0.w", (4, 4), range(1), 2), plain("stage1.w", (2, 4), range(1, 2), 2))
    assert divide(tables).owners == {"stage0.w": (0,), "stage1.w": (1,)}


def test_tied_ends_of_a_pipeline_are_named() -> None:
    tables = merged(
        plain("embed.weight", (9, 4), range(1), 2, 77), plain("output.weight", (9, 4), range(1, 2), 2, 77)
    )
    assert divide(tables).twins == (("embed.weight", "output.weight"),)


def test_fresh_norms_are_no_twins() -> None:
    one = [Held("a.w", (2, 2), (2, 2), constant=True, layout=Layout.whole((2, 2)))]
    two = [Held("b.w", (2, 2), (2, 2), constant=True, layout=Layout.whole((2, 2)))]
    assert divide([one, two]).twins == ()


CONTRADICTIONS = {
    "a partial sum": (tables_of("w", (4,), np.arange(2), (Placement("partial"),), 2), "placed as Partial"),
    "shapes": ([[Held("w", (4,), (4,))], [Held("w", (5,), (5,))]], r"one shape on all ranks; w has \(4,\) on rank 0"),
    "dtypes": ([[Held("w", (4,), (4,))], [Held("w", (4,), (4,), "bfloat16")]], "one dtype on all ranks"),
    "values": (
        [[Held("w", (4,), (4,), checksum=1)], [Held("w", (4,), (4,), checksum=2)]],
        "same values on all ranks; w differs between rank 0 and rank 1",
    ),
    "a rank that filters": ([tables_of("w", (4,), np.arange(2), (S(0),), 2)[0], []], "w is missing on rank 1"),
    "entries that are missing": (
        [[Held("w", (4,), (1,), kind="dtensor", ranks=(0,), mesh_shape=(1,), placements=(S(0),))]],
        "have 1 entries of 4",
    ),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_contradictions_are_refused_with_names(what: str) -> None:
    tables, message = CONTRADICTIONS[what]
    with pytest.raises(SettingError, match=message):
        divide(tables)


def test_a_rank_outside_the_mesh_owns_nothing() -> None:
    tables = tables_of("w", (5, 2), np.array([2, 0]), (S(0),), 3)
    assert divide(tables).owners["w"] == (2, 0)
    assert (times_counted(tables, "w") == 1).all()


# slices of parameters, such as heads, in what a rank holds


@settings(max_examples=200, deadline=None)
@given(meshes(), st.sampled_from(["q", "o"]))
def test_heads_are_the_same_on_any_mesh(
    drawn: tuple[tuple[int, ...], np.ndarray, tuple[Placement, ...], int], projection: str
) -> None:
    _, ranks, places, world = drawn
    shape = (8, 6) if projection == "q" else (6, 8)
    places = tuple(Placement(p.kind, p.dim % 2, p.split) for p in places)
    if any(p.kind == "strided" for p in places):
        return
    name = f"0.{projection}_proj.weight"
    values = np.arange(48.0).reshape(shape)
    blocks = make_blocks({name: shape}, "head", 4)
    ring = UpdateRing(blocks, {name: torch.zeros(shape, dtype=torch.float64)}, 2)
    expected = ring.sums({name: torch.from_numpy(values)})
    tables = tables_of(name, shape, ranks, places, world)
    partition = divide(tables)
    total = np.zeros_like(expected)
    for rank in partition.owners[name]:
        held = tables[rank][0]
        if not held.n_local:
            continue
        assert held.layout is not None
        box = tuple(slice(o, o + n) for o, n in zip(held.layout.offset, held.layout.shape))
        mine = torch.from_numpy(values[box].copy())
        part = local_blocks(blocks, {name: held.layout}, {name: held.local_shape})
        assert part.names == blocks.names
        total += UpdateRing(part, {name: torch.zeros_like(mine)}, 2).sums({name: mine})
        for atom in (a for block in part.atoms for a in block):
            offset = offset_of(atom, held.layout)
            there = tuple(slice(o, o + n) for o, n in zip(offset, size_of(atom)))
            assert np.array_equal(atom.of(mine).numpy(), values[there])
    assert np.array_equal(total, expected)  # whole numbers below 2^53: exact in any order


def test_rows_of_a_flattened_parameter_are_found_and_columns_refused() -> None:
    blocks = make_blocks({"0.q_proj.weight": (4, 3)}, "head", 2)  # two rows a head
    part = local_blocks(blocks, {"0.q_proj.weight": Layout((12,), (4,), (5,))}, {"0.q_proj.weight": (5,)})
    assert [[(a.start, a.stop) for a in block] for block in part.atoms] == [[(0, 2)], [(2, 5)]]
    columns = make_blocks({"0.o_proj.weight": (4, 4)}, "head", 2)
    with pytest.raises(SettingError, match=r"columns of 0\.o_proj\.weight cannot be told apart"):
        local_blocks(columns, {"0.o_proj.weight": Layout((16,), (4,), (5,))}, {"0.o_proj.weight": (5,)})


def test_deepspeed_is_refused() -> None:
    model = torch.nn.Linear(2, 2)
    model.weight.ds_id = 0  # as ZeRO-3 marks its parameters
    with pytest.raises(SettingError, match="DeepSpeed keeps its parameters in partitions of its own"):
        se.attach(model, torch.optim.SGD(model.parameters(), lr=0.1))
