"""Play the records of a log: what a rewind takes back is dropped, what does not join is marked.

The result is the state of the run as its last record left it; ``build`` makes arrays of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .compare import same
from .event import Event
from .line import Record
from .probe import sound_outcome, sound_probe
from .weights import sound_weights

BAND_FIELDS = ("products", "decay_products", "gradient_products")  # (B, L+1) in a row
# (B,) in a row
BLOCK_FIELDS = ("theta_dot", "theta_norm2", "decay_norm2", "error_norm2", "unchanged", "nonfinite")
REQUIRED = ("products", "theta_dot", "theta_norm2")


@dataclass
class Row:
    """One update that is left."""

    t: int
    step: int
    n_steps: int
    segment: Record
    seam: bool
    record: Record


@dataclass
class State:
    """What is left of the records read so far."""

    rows: list[Row] = field(default_factory=list)
    metrics: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    probes: list[tuple[Record, Record]] = field(default_factory=list)  # (record, its segment), in order of t
    outcomes: dict[int, Record] = field(default_factory=dict)  # by the t of their probe
    weights: list[Record] = field(default_factory=list)
    segments: list[Record] = field(default_factory=list)
    by_number: dict[int, Record] = field(default_factory=dict)
    rewinds: int = 0
    seam: bool = False
    closed: bool = False
    n_rejected: int = 0


def replay(records: Iterable[Record]) -> State:
    """Take the records one by one, as they were written."""
    state = State()
    for record in records:
        _take(state, record)
    return state


def _take(state: State, record: Record) -> None:
    kind = record["kind"]
    if kind == "close":
        state.closed = True
        return
    if kind == "segment":
        if not _sound_segment(record):
            state.n_rejected += 1
        elif not same(state.by_number.get(record["segment"]), record):  # else a restatement
            state.segments.append(record)
            state.by_number[record["segment"]] = record
        return
    if not _is_count(record.get("step")):
        state.n_rejected += kind in ("row", "rewind", "metrics", "event", "probe", "outcome", "weights")
        return
    state.closed = False
    if kind == "row":
        _take_row(state, record)
    elif kind == "metrics" and isinstance(record.get("values"), dict):
        state.metrics.append((record["step"], record["values"]))
    elif kind == "event":
        state.events.append(Event.from_record(record))
    elif kind == "probe":
        _take_probe(state, record)
    elif kind == "outcome":
        _take_outcome(state, record)
    elif kind == "weights":
        _take_weights(state, record)
    elif kind == "rewind":
        state.rewinds += 1
        state.seam |= not record.get("ring", False)
        _rewind(state, record["step"])


def _take_row(state: State, record: Record) -> None:
    number_in_file = record.get("segment")
    segment = state.by_number.get(number_in_file) if type(number_in_file) is int else None
    if segment is None or not _sound_row(record, segment):
        state.n_rejected += 1
        return
    rewinds = record.get("rewinds")
    if type(rewinds) is int and rewinds > state.rewinds:
        # A rewind record was lost: how far back it went is unknown, so nothing joins this row to older ones.
        state.rewinds, state.seam = rewinds, True
    if state.rows and record["t"] <= state.rows[-1].t:
        while state.rows and state.rows[-1].t >= record["t"]:
            state.rows.pop()
        _drop_logged(state, state.rows[-1].step if state.rows else -1)
    # the first row joins to nothing anyway: a run restarted before it is no different from one that was not
    seam = bool(state.rows) and (state.seam or "seam" in as_list(record.get("flags")))
    state.rows.append(Row(record["t"], record["step"], record["n_steps"], segment, seam, record))
    state.seam = False


def _take_probe(state: State, record: Record) -> None:
    segment = state.by_number.get(record["segment"]) if type(record.get("segment")) is int else None
    if segment is None or not sound_probe(record, segment):
        state.n_rejected += 1
        return
    state.probes = [found for found in state.probes if found[0]["t"] < record["t"]]
    state.outcomes.pop(record["t"], None)
    state.probes.append((record, segment))


def _take_outcome(state: State, record: Record) -> None:
    of = [probe for probe, _ in state.probes if probe["t"] == record.get("t")]
    if of and sound_outcome(record, of[0]):
        state.outcomes[of[0]["t"]] = record
    else:
        state.n_rejected += 1


def _take_weights(state: State, record: Record) -> None:
    if sound_weights(record):
        state.weights = [found for found in state.weights if found["step"] < record["step"]]
        state.weights.append(record)
    else:
        state.n_rejected += 1


def _rewind(state: State, step: int) -> None:
    while state.rows and state.rows[-1].step > step:
        state.rows.pop()
    _drop_logged(state, step)
    state.segments = [segment for segment in state.segments if segment["step"] <= step]
    state.by_number = {n: segment for n, segment in state.by_number.items() if segment["step"] <= step}


def _drop_logged(state: State, step: int) -> None:
    state.metrics = [entry for entry in state.metrics if entry[0] <= step]
    state.events = [event for event in state.events if event.step <= step]
    state.probes = [found for found in state.probes if found[0]["step"] <= step]
    state.weights = [found for found in state.weights if found["step"] <= step]
    left = {probe["t"] for probe, _ in state.probes}
    state.outcomes = {t: found for t, found in state.outcomes.items() if t in left and found["step"] <= step}


def _sound_momentum(value: Any) -> bool:
    """Whether a segment's ``momentum`` is a coefficient, or null for none."""
    return value is None or (isinstance(value, int | float) and 0 <= value < 1)


def _sound_segment(record: Record) -> bool:
    blocks = record.get("blocks")
    return (
        isinstance(blocks, list)
        and bool(blocks)
        and all(isinstance(name, str) for name in blocks)
        and len(set(blocks)) == len(blocks)
        and ("all" not in blocks or len(blocks) == 1)
        and all(_is_count(record.get(name)) for name in ("segment", "step", "lags"))
        and record["lags"] >= 0
        and _sound_momentum(record.get("momentum"))
    )


def _sound_row(record: Record, segment: Record) -> bool:
    n_blocks, width = len(segment["blocks"]), segment["lags"] + 1
    if not all(_is_count(record.get(name)) and record[name] >= 0 for name in ("t", "n_steps")):
        return False
    if record["step"] < segment["step"]:
        return False
    shapes = dict.fromkeys(BAND_FIELDS, (n_blocks, width)) | dict.fromkeys(BLOCK_FIELDS, (n_blocks,))
    return all(_shape(record.get(name)) == shapes[name] for name in REQUIRED) and all(
        _shape(record.get(name)) in (None, shape) for name, shape in shapes.items()
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**62  # so that int64 holds it, and differences of it


def as_list(value: Any) -> list[Any]:
    """``value`` if it is a list, else nothing: intact records of another writer may hold anything."""
    return value if isinstance(value, list) else []


def _shape(value: Any) -> Any:
    return value.shape if isinstance(value, np.ndarray) else value
