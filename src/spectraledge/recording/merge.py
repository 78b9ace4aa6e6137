"""A recording of all blocks as a recording of one: smaller, and with the same spectra of "all"."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from .probe import ProbeRecord
from .replay import BAND_FIELDS, BLOCK_FIELDS

if TYPE_CHECKING:
    from .recording import Recording


def merge_blocks(recording: Recording) -> Recording:
    """See ``Recording.merged``."""
    if not recording.blocks:
        return recording
    whole = [recording.blocks.index("all")]
    values = {name: getattr(recording, name) for name in (*BAND_FIELDS, *BLOCK_FIELDS)}
    arrays: dict[str, Any] = {name: None if x is None else x[:, whole].copy() for name, x in values.items()}
    segments = [_segment(segment) for segment in recording.meta.get("segments", [])]
    meta = {**recording.meta, "segments": segments, "block_info": {}}
    return dataclasses.replace(
        recording,
        blocks=["all"],
        **arrays,
        probes=[_probe(probe) for probe in recording.probes],
        meta=meta,
        path=None,
    )


def _segment(segment: dict[str, Any]) -> dict[str, Any]:
    return {**segment, "blocks": ["all"], "block_info": [], "scheme": "all"}


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


def _probe(probe: ProbeRecord) -> ProbeRecord:
    arrays = {name: getattr(probe, name) for name in _AXES}
    merged: dict[str, Any] = {
        name: None if values is None else np.sum(values, axis=_AXES[name], keepdims=True)
        for name, values in arrays.items()
    }
    return dataclasses.replace(probe, blocks=("all",), **merged)
