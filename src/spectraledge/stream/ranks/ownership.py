"""Every entry of the parameter vector is counted on exactly one rank: which one.

A pure function of what the ranks say they hold; all of them say it once, at attaching, and all reach the same answer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ...errors import SettingError
from ..layout import Layout
from .boxes import Placement


@dataclass(frozen=True)
class Held:
    """What one rank holds of one parameter.

    Attributes:
        name: Canonical parameter name.
        shape: Of the whole parameter, complex ones as pairs of real numbers.
        local_shape: Of what this rank holds; no padding.
        dtype: Of the parameter, such as ``"float32"``.
        kind: ``"plain"``, ``"dtensor"`` or ``"flat"`` (a run of entries of an FSDP1 flat parameter).
        ranks: Global ranks of its mesh, last dimension fastest; empty for plain tensors.
        mesh_shape: Sizes of the mesh's dimensions.
        placements: One for each dimension of the mesh.
        coordinate: Of this rank in the mesh; None outside of it.
        layout: Where the entries lie; None where they make up no box.
        checksum: Of a sample of the entries, the same for the same values.
        constant: Whether all entries of the sample are equal, as those of a fresh norm's gain are.
        group: Parameter group that trains it, counted over the rank's optimizers; None if there is none.
    """

    name: str
    shape: tuple[int, ...]
    local_shape: tuple[int, ...]
    dtype: str = "float32"
    kind: str = "plain"
    ranks: tuple[int, ...] = ()
    mesh_shape: tuple[int, ...] = ()
    placements: tuple[Placement, ...] = ()
    coordinate: tuple[int, ...] | None = ()
    layout: Layout | None = None
    checksum: int = 0
    constant: bool = False
    group: int | None = None

    @property
    def n_local(self) -> int:
        """Entries that this rank holds."""
        return math.prod(self.local_shape)


@dataclass(frozen=True)
class Partition:
    """Who counts what; the same on every rank.

    Attributes:
        shapes: Whole parameters by name, in model order, those of lower ranks first.
        owners: Ranks that count a parameter, each the entries it holds.
        dtypes: Dtypes of parameters that occur.
        twins: Pairs of names on different ranks that hold equal values, such as tied embeddings at both ends of a
            pipeline; they are counted as two parameters.
        groups: Parameter group by name, where all ranks that hold a parameter agree.
    """

    shapes: dict[str, tuple[int, ...]]
    owners: dict[str, tuple[int, ...]]
    dtypes: tuple[str, ...] = ()
    twins: tuple[tuple[str, str], ...] = ()
    groups: dict[str, int | None] = field(default_factory=dict)


def divide(tables: Sequence[Sequence[Held]]) -> Partition:
    """Choose for every parameter the ranks that count it.

    Ranks that together hold a parameter once make a replica. Of several replicas, one counts: the one whose busiest
    rank has the fewest entries so far, the lowest in doubt, parameters taken from the largest down. So the ring of a
    data-parallel run is spread over its ranks.

    Args:
        tables: What each rank holds, by rank.

    Raises:
        SettingError: If ranks contradict each other, a parameter is a partial sum, or replicas differ in value.

    Example:
        >>> table = [Held("weight", (4, 2), (4, 2)), Held("bias", (4,), (4,))]
        >>> divide([table, table]).owners
        {'weight': (0,), 'bias': (1,)}
    """
    by_name: dict[str, dict[int, Held]] = {}
    for rank, table in enumerate(tables):
        for held in table:
            by_name.setdefault(held.name, {})[rank] = held
    shapes = {}
    for name, holders in by_name.items():
        _check(name, holders)
        shapes[name] = next(iter(holders.values())).shape
    load = [0] * len(tables)
    owners: dict[str, tuple[int, ...]] = {}
    for name in sorted(by_name, key=lambda name: -math.prod(shapes[name])):  # stable: equal sizes in model order
        holders = by_name[name]
        replicas = list(_replicas(name, holders))
        _check_replicas(name, holders, replicas)
        owners[name] = min(replicas, key=lambda ranks: max(load[r] + holders[r].n_local for r in ranks))
        for rank in owners[name]:
            load[rank] += holders[rank].n_local
    return Partition(
        shapes,
        {name: owners[name] for name in shapes},
        tuple(sorted({held.dtype for table in tables for held in table})),
        _twins(by_name, owners),
        {name: _agreed([held.group for held in holders.values()]) for name, holders in by_name.items()},
    )


def _check(name: str, holders: Mapping[int, Held]) -> None:
    (first_rank, first), *others = holders.items()
    for rank, held in others:
        for what in ("shape", "dtype", "kind"):
            a, b = getattr(first, what), getattr(held, what)
            if a != b:
                raise SettingError(
                    f"a parameter must have one {what} on all ranks; {name} has {a} on rank {first_rank} and {b} on "
                    f"rank {rank}. Give parameters that differ names of their own, or shard them as DTensors."
                )
    if any(p.kind == "partial" for p in first.placements):
        raise SettingError(
            f"parameters must hold values, not terms of a sum; {name} is placed as Partial. "
            "Redistribute it to Shard or Replicate before attaching."
        )


def _replicas(name: str, holders: Mapping[int, Held]) -> Iterator[tuple[int, ...]]:
    """Sets of ranks each of which holds the parameter once, by lowest rank."""
    if next(iter(holders.values())).kind == "plain":
        yield from ((rank,) for rank in sorted(holders))
        return
    meshes = {held.ranks: held for held in holders.values()}
    for ranks, held in sorted(meshes.items()):
        missing = [rank for rank in ranks if rank not in holders]
        if missing:
            raise SettingError(
                f"every rank of a mesh must attach with the same parameters; {name} is missing on rank {missing[0]}. "
                "Call attach on all ranks, with the same params=."
            )
        of_coordinate: dict[tuple[int, ...], list[int]] = {}
        for rank, coordinate in zip(ranks, itertools.product(*map(range, held.mesh_shape)), strict=True):
            replica = tuple(
                i for i, placement in zip(coordinate, held.placements, strict=True) if placement.kind == "replicate"
            )
            of_coordinate.setdefault(replica, []).append(rank)
        yield from map(tuple, of_coordinate.values())


def _check_replicas(name: str, holders: Mapping[int, Held], replicas: Sequence[tuple[int, ...]]) -> None:
    total = math.prod(holders[replicas[0][0]].shape)
    for ranks in replicas:
        n = sum(holders[r].n_local for r in ranks)
        if n != total:
            raise SettingError(
                f"the pieces of a parameter must make it up once; those of {name} on ranks "
                f"{', '.join(map(str, ranks))} have {n} entries of {total}. Report how this model is sharded."
            )
    values = [tuple(holders[r].checksum for r in ranks) for ranks in replicas]
    for ranks, value in zip(replicas, values, strict=True):
        if value != values[0]:
            raise SettingError(
                f"a parameter of one name must hold the same values on all ranks; {name} differs between rank "
                f"{replicas[0][0]} and rank {ranks[0]}. Wrap the model (DDP, FSDP) before attaching; give experts "
                "and stages names of their own."
            )


def _twins(
    by_name: Mapping[str, Mapping[int, Held]], owners: Mapping[str, tuple[int, ...]]
) -> tuple[tuple[str, str], ...]:
    seen: dict[object, str] = {}
    pairs = []
    for name, holders in by_name.items():
        ranks = owners[name]
        first = holders[ranks[0]]
        if len(first.shape) < 2 or all(holders[r].constant for r in ranks):
            continue
        key = (first.shape, first.dtype, tuple(holders[r].checksum for r in ranks))
        other = seen.setdefault(key, name)
        if other != name and not set(holders) & set(by_name[other]):
            pairs.append((other, name))
    return tuple(pairs)


def _agreed(values: Sequence[int | None]) -> int | None:
    return values[0] if len(set(values)) == 1 else None
