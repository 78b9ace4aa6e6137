"""A recording of many blocks as one of few: smaller, and with the same spectra of what was added up."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SettingError
from .probe import ProbeRecord
from .replay import BAND_FIELDS, BLOCK_FIELDS

if TYPE_CHECKING:
    from .recording import Recording


def merge_blocks(recording: Recording, into: Mapping[str, Sequence[str]] | None) -> Recording:
    """See ``Recording.merged``."""
    if into is None:
        if not recording.blocks:
            return recording
        unions: dict[str, tuple[str, ...]] = {}
        # "all" stays what it is: adding rounded sums up again would change its last bits.
        arrays = {name: values[:, [recording.blocks.index("all")]] for name, values in _arrays(recording).items()}
    else:
        unions = {name: tuple(members) for name, members in into.items()}
        _check(unions, recording.blocks[1:], recording.block_info)
        arrays = {name: _unite(recording, values, unions) for name, values in _arrays(recording).items()}
    info = {name: _info(name, members, recording.block_info) for name, members in unions.items()}
    segments = [_segment(segment, unions, info) for segment in recording.meta.get("segments", [])]
    return dataclasses.replace(
        recording,
        blocks=["all", *unions],
        **arrays,  # type: ignore[arg-type]
        probes=[_probe(probe, unions) for probe in recording.probes],
        meta={**recording.meta, "segments": segments, "block_info": info},
        path=None,
    )


def _arrays(recording: Recording) -> dict[str, np.ndarray]:
    found = {name: getattr(recording, name) for name in (*BAND_FIELDS, *BLOCK_FIELDS)}
    return {name: values for name, values in found.items() if values is not None}


def _check(unions: Mapping[str, Sequence[str]], blocks: list[str], info: dict[str, dict[str, Any]]) -> None:
    members = [member for union in unions.values() for member in union]
    if sorted(members) != sorted(blocks) or "all" in unions or not all(unions.values()):
        raise SettingError(
            f"unions must hold every block exactly once and not be called 'all'; got {dict(unions)} of "
            f"{', '.join(blocks) or 'no single blocks'}. Name a union for each block."
        )
    for name, union in unions.items():
        groups = {info.get(member, {}).get("group") for member in union}
        if len(groups) > 1:
            raise SettingError(
                f"blocks of a union must be of one parameter group, whose learning rate is theirs; {name!r} has "
                f"{sorted(map(str, groups))}. Keep groups apart."
            )


def _unite(recording: Recording, values: np.ndarray, unions: Mapping[str, Sequence[str]]) -> np.ndarray:
    """(T, 1 + unions, ...) sums over the blocks that each row's segment has, and these added up as "all"."""
    out = np.full((len(values), 1 + len(unions), *values.shape[2:]), np.nan)
    for i, segment in enumerate(recording.meta.get("segments", [])):
        rows = recording.segment == i
        there = _there(unions, segment.get("blocks") or ())
        if not there:  # recorded as one
            out[rows, 0] = values[rows, recording.blocks.index("all")]
            continue
        for name, members in there.items():
            columns = [recording.blocks.index(member) for member in members]
            out[rows, 1 + list(unions).index(name)] = values[np.ix_(rows, columns)].sum(axis=1)
        parts = [1 + list(unions).index(name) for name in there]
        out[rows, 0] = out[np.ix_(rows, parts)].sum(axis=1)
    return out


def _there(unions: Mapping[str, Sequence[str]], blocks: Sequence[str]) -> dict[str, list[str]]:
    found = {name: [member for member in members if member in blocks] for name, members in unions.items()}
    return {name: members for name, members in found.items() if members}


def _info(name: str, members: Sequence[str], info: dict[str, dict[str, Any]]) -> dict[str, Any]:
    known = [info.get(member, {}) for member in members]
    kinds = {entry.get("kind") for entry in known}
    sizes = [entry.get("n_parameters") for entry in known]
    return {
        "name": name,
        "n_parameters": sum(sizes) if all(isinstance(size, int) for size in sizes) else None,
        "layer": known[0].get("layer") if len(members) == 1 else None,
        "kind": kinds.pop() if len(kinds) == 1 else None,
        "tensors": [tensor for entry in known for tensor in entry.get("tensors") or ()],
        "group": known[0].get("group"),
    }


def _segment(
    segment: dict[str, Any], unions: Mapping[str, Sequence[str]], info: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    there = list(_there(unions, segment.get("blocks") or ()))
    if not there:
        return {**segment, "blocks": ["all"], "block_info": [], "scheme": "all"}
    return {**segment, "blocks": there, "block_info": [info[name] for name in there], "scheme": "unions"}


# Where the axis of blocks stands in each array of a probe.
_AXES = {
    "gradient_products": 1,
    "gradient_gram": 2,
    "hessian_products": 1,
    "preconditioned_products": 1,
    "replicate_products": 1,
    "replicate_gram": 0,
    "next_products": 1,
    "next_gradient_products": 1,
}


def _probe(probe: ProbeRecord, unions: Mapping[str, Sequence[str]]) -> ProbeRecord:
    there = _there(unions, probe.blocks) or {"all": list(probe.blocks)}
    columns = [[probe.blocks.index(member) for member in members] for members in there.values()]
    arrays: dict[str, Any] = {}
    for name, axis in _AXES.items():
        values = getattr(probe, name)
        if values is not None:
            values = np.stack([np.take(values, members, axis).sum(axis) for members in columns], axis)
        arrays[name] = values
    return dataclasses.replace(probe, blocks=tuple(there), **arrays)
