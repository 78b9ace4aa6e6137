"""From the records of a log to arrays over updates: rewinds taken back, lost rows marked, seams respected."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import DataError
from .event import Event
from .line import Record, number
from .reader import Log, ReadReport

BAND_FIELDS = ("products", "decay_products", "gradient_products")  # (B, L+1) in a row
BLOCK_FIELDS = ("theta_dot", "theta_norm2", "decay_norm2", "unchanged", "nonfinite")  # (B,) in a row
REQUIRED = ("products", "theta_dot", "theta_norm2")


@dataclass
class _Row:
    t: int
    step: int
    n_steps: int
    segment: Record
    seam: bool
    record: Record


@dataclass
class _State:
    """What is left of the records read so far."""

    rows: list[_Row] = field(default_factory=list)
    metrics: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    segments: list[Record] = field(default_factory=list)
    by_number: dict[int, Record] = field(default_factory=dict)
    rewinds: int = 0
    seam: bool = False
    closed: bool = False
    n_rejected: int = 0


def build_fields(log: Log) -> dict[str, Any]:
    """The fields of a ``Recording`` from its log.

    Raises:
        DataError: If the rows that the log speaks of are impossibly many.
    """
    state = _State()
    for record in log.records:
        _take(state, record)
    report = dataclasses.replace(log.report, n_rejected=state.n_rejected)
    return _fields(state, log.header, report)


def _take(state: _State, record: Record) -> None:
    kind = record["kind"]
    if kind == "close":
        state.closed = True
        return
    if kind == "segment":
        if not _sound_segment(record):
            state.n_rejected += 1
        elif state.by_number.get(record["segment"]) != record:  # else a restatement
            state.segments.append(record)
            state.by_number[record["segment"]] = record
        return
    if type(record.get("step")) is not int:
        state.n_rejected += kind in ("row", "rewind", "metrics", "event")
        return
    state.closed = False
    if kind == "row":
        _take_row(state, record)
    elif kind == "metrics" and isinstance(record.get("values"), dict):
        state.metrics.append((record["step"], record["values"]))
    elif kind == "event":
        state.events.append(Event.from_record(record))
    elif kind == "rewind":
        state.rewinds += 1
        state.seam |= not record.get("ring", False)
        _rewind(state, record["step"])


def _take_row(state: _State, record: Record) -> None:
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
    seam = state.seam or "seam" in (record.get("flags") or [])
    state.rows.append(_Row(record["t"], record["step"], record["n_steps"], segment, seam, record))
    state.seam = False


def _rewind(state: _State, step: int) -> None:
    while state.rows and state.rows[-1].step > step:
        state.rows.pop()
    _drop_logged(state, step)
    state.segments = [segment for segment in state.segments if segment["step"] <= step]
    state.by_number = {n: segment for n, segment in state.by_number.items() if segment["step"] <= step}


def _drop_logged(state: _State, step: int) -> None:
    state.metrics = [entry for entry in state.metrics if entry[0] <= step]
    state.events = [event for event in state.events if event.step <= step]


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
        and all(type(record.get(name)) is int for name in ("segment", "step", "lags"))
        and record["lags"] >= 0
        and _sound_momentum(record.get("momentum"))
    )


def _sound_row(record: Record, segment: Record) -> bool:
    n_blocks, width = len(segment["blocks"]), segment["lags"] + 1
    if not all(type(record.get(name)) is int and record[name] >= 0 for name in ("t", "n_steps")):
        return False
    if record["step"] < segment["step"]:
        return False
    shapes = dict.fromkeys(BAND_FIELDS, (n_blocks, width)) | dict.fromkeys(BLOCK_FIELDS, (n_blocks,))
    return all(_shape(record.get(name)) == shapes[name] for name in REQUIRED) and all(
        _shape(record.get(name)) in (None, shape) for name, shape in shapes.items()
    )


def _shape(value: Any) -> Any:
    return value.shape if isinstance(value, np.ndarray) else value


def _fields(state: _State, header: Record, report: ReadReport) -> dict[str, Any]:
    rows = state.rows
    n_updates = rows[-1].t + 1 if rows else 0
    n_lost = n_updates - len(rows)
    if n_lost > 1_000_000 + 100 * len(rows):
        raise DataError(
            f"The rows of a recording must be nearly all there; {n_lost} of {n_updates} are missing. "
            "The file is damaged beyond use: record the run again."
        )
    segments = _used_segments(state)
    place = {id(segment): i for i, segment in enumerate(segments)}
    names = list(dict.fromkeys(name for segment in segments for name in segment["blocks"]))
    blocks = names if not names or "all" in names else ["all", *names]
    lags = max((segment["lags"] for segment in segments), default=0)
    index = np.array([row.t for row in rows], dtype=np.int64)
    steps, n_steps = _steps(rows, index, n_updates, segments)
    fields: dict[str, Any] = {
        "steps": steps,
        "n_steps": n_steps,
        "blocks": blocks,
        "lr_sum": _lr_sums(rows, n_updates),
        "segment": _forward(index, [place[id(row.segment)] for row in rows], n_updates),
        "flags": [["lost"] for _ in range(n_updates)],
        "seconds": _scalars(rows, index, n_updates, "seconds"),
        "time": _scalars(rows, index, n_updates, "time"),
        "events": state.events,
        "metrics": _metrics(state.metrics),
        "meta": _meta(header, segments),
        "report": dataclasses.replace(report, n_lost_rows=n_lost),
        "closed": state.closed,
    }
    for row in rows:
        flags = row.record.get("flags") or []
        fields["flags"][row.t] = [*map(str, flags), *(["seam"] if row.seam and "seam" not in flags else [])]
    fields |= _block_arrays(rows, blocks, lags, n_updates)
    joined = _joined(rows, index, n_updates)
    for name in BAND_FIELDS:
        if fields[name] is not None:
            _cut_at_seams(fields[name], joined)
    return fields


def _used_segments(state: _State) -> list[Record]:
    """Segments that rows belong to, and the last one, whose first row may be still to come."""
    used = {id(row.segment) for row in state.rows} | {id(segment) for segment in state.segments[-1:]}
    return [segment for segment in state.segments if id(segment) in used]


def _steps(
    rows: list[_Row], index: np.ndarray, n_updates: int, segments: list[Record]
) -> tuple[np.ndarray, np.ndarray]:
    """Steps of all updates, lost ones included.

    The row behind a hole says how many steps its own update took, so the step of the last lost row is exact;
    those of a longer hole before it are interpolated.
    """
    steps = np.array([row.step for row in rows], dtype=np.int64)
    n_steps = np.array([row.n_steps for row in rows], dtype=np.int64)
    if n_updates == len(rows):
        return steps, n_steps
    start = min((segment["step"] for segment in segments), default=0)
    known_t, known_step = np.append(-1, index), np.append(start, steps)
    behind_hole = np.flatnonzero(np.diff(known_t) > 1)
    known_t = np.append(known_t, index[behind_hole] - 1)
    known_step = np.append(known_step, steps[behind_hole] - n_steps[behind_hole])
    order = np.argsort(known_t, kind="stable")
    all_steps = np.rint(np.interp(np.arange(n_updates), known_t[order], known_step[order])).astype(np.int64)
    all_n_steps = np.diff(np.append(start, all_steps))
    all_n_steps[index] = n_steps
    return all_steps, all_n_steps


def _forward(index: np.ndarray, values: list[int], n_updates: int) -> np.ndarray:
    """Values at the known updates, carried forward over lost ones."""
    if not values:
        return np.zeros(n_updates, dtype=np.int64)
    position = np.maximum(np.searchsorted(index, np.arange(n_updates), side="right") - 1, 0)
    return np.array(values, dtype=np.int64)[position]


def _scalars(rows: list[_Row], index: np.ndarray, n_updates: int, name: str) -> np.ndarray:
    values = np.full(n_updates, np.nan)
    values[index] = [number(row.record.get(name)) for row in rows]
    return values


def _lr_sums(rows: list[_Row], n_updates: int) -> np.ndarray:
    sums = [_array_or_empty(row.record.get("lr_sum")) for row in rows]
    values = np.full((n_updates, max((len(s) for s in sums), default=0)), np.nan)
    for row, lr_sum in zip(rows, sums, strict=True):
        values[row.t, : len(lr_sum)] = lr_sum
    return values


def _array_or_empty(value: Any) -> Any:
    return value if isinstance(value, np.ndarray) and value.ndim == 1 else np.empty(0)


def _metrics(entries: list[tuple[int, dict[str, Any]]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    series: dict[str, dict[int, float]] = {}
    for step, values in entries:
        for name, value in values.items():
            series.setdefault(name, {})[step] = number(value)  # a repeated step keeps the last value
    result = {}
    for name, points in series.items():
        steps = np.array(sorted(points), dtype=np.int64)
        result[name] = (steps, np.array([points[int(step)] for step in steps], dtype=np.float64))
    return result


def _meta(header: Record, segments: list[Record]) -> dict[str, Any]:
    info: dict[str, dict[str, Any]] = {}
    for segment in segments:
        for entry in segment.get("block_info") or []:
            if isinstance(entry, dict) and isinstance(entry.get("name"), str):
                info[entry["name"]] = entry
    free = header.get("meta")
    return {
        **(free if isinstance(free, dict) else {}),
        "created": header.get("created"),
        "package_version": header.get("package_version"),
        "segments": [
            {**{name: value for name, value in segment.items() if name != "kind"}, "segment": i}
            for i, segment in enumerate(segments)
        ],
        "block_info": info,
    }


def _block_arrays(rows: list[_Row], blocks: list[str], lags: int, n_updates: int) -> dict[str, Any]:
    """The arrays over blocks; a segment's rows fill its own blocks, and "all" is the sum of these."""
    column = {name: b for b, name in enumerate(blocks)}
    arrays: dict[str, Any] = {}
    for name in (*BAND_FIELDS, *BLOCK_FIELDS):
        shape = (n_updates, len(blocks), lags + 1) if name in BAND_FIELDS else (n_updates, len(blocks))
        present = [row for row in rows if row.record.get(name) is not None]
        optional = name not in (*REQUIRED, "unchanged", "nonfinite")
        arrays[name] = None if optional and not present else np.full(shape, np.nan)
        for group in _by_segment(present):
            segment = group[0].segment
            t = np.array([row.t for row in group])
            columns = np.array([column[block] for block in segment["blocks"]])
            stacked = np.stack([row.record[name] for row in group])
            target = arrays[name][..., : segment["lags"] + 1] if name in BAND_FIELDS else arrays[name]
            target[np.ix_(t, columns)] = stacked
            if segment["blocks"] != ["all"]:
                target[t, column["all"]] = stacked.sum(axis=1)
    return arrays


def _by_segment(rows: list[_Row]) -> list[list[_Row]]:
    groups: list[list[_Row]] = []
    for row in rows:
        if groups and groups[-1][0].segment is row.segment:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _joined(rows: list[_Row], index: np.ndarray, n_updates: int) -> np.ndarray:
    """A number for each update, equal for updates that no seam and no change of segment divides."""
    changes = [row.seam or (i > 0 and row.segment is not rows[i - 1].segment) for i, row in enumerate(rows)]
    return _forward(index, list(np.cumsum(changes)), n_updates)


def _cut_at_seams(band: np.ndarray, joined: np.ndarray) -> None:
    for lag in range(1, band.shape[2]):
        band[:lag, :, lag] = np.nan
        band[lag:, :, lag][joined[lag:] != joined[:-lag]] = np.nan
