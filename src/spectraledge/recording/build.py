"""The arrays of a recording over updates: lost rows as NaN, seams cut, "all" summed."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..errors import DataError
from .line import Record, number
from .probe import probe_from_records
from .reader import Log, ReadReport
from .replay import BAND_FIELDS, BLOCK_FIELDS, REQUIRED, Row, State, as_list, replay
from .weights import build_weights


def build_fields(log: Log) -> dict[str, Any]:
    """The fields of a ``Recording`` from its log.

    Raises:
        DataError: If the rows that the log speaks of are impossibly many.
    """
    state = replay(log.records)
    report = dataclasses.replace(log.report, n_rejected=state.n_rejected)
    return _fields(state, log.header, report)


def _fields(state: State, header: Record, report: ReadReport) -> dict[str, Any]:
    rows = state.rows
    n_updates = rows[-1].t + 1 if rows else 0
    n_lost = n_updates - len(rows)
    if n_lost > 100_000 + 100 * len(rows):
        raise DataError(
            f"The rows of a recording must be nearly all there; {n_lost} of {n_updates} are missing. "
            "The file is damaged beyond use: record the run again."
        )
    segments = _used_segments(state)
    place = {id(segment): i for i, segment in enumerate(segments)}
    names = list(dict.fromkeys(name for segment in segments for name in segment["blocks"]))
    blocks = names if not names or "all" in names else ["all", *names]
    filled = [row.segment for row in rows] or segments  # lags that no row has need no room
    lags = max((segment["lags"] for segment in filled), default=0)
    _check_filled(rows, n_updates * len(blocks) * (lags + 1))
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
        "probes": [
            probe_from_records(record, state.outcomes.get(record["t"]), segment, place[id(segment)])
            for record, segment in state.probes
            if id(segment) in place
        ],
        "weights": build_weights(state.weights),
        "metrics": _metrics(state.metrics),
        "meta": _meta(header, segments),
        "report": dataclasses.replace(report, n_lost_rows=n_lost),
        "closed": state.closed,
    }
    for row in rows:
        flags = as_list(row.record.get("flags"))
        fields["flags"][row.t] = [*map(str, flags), *(["seam"] if row.seam and "seam" not in flags else [])]
    fields |= _block_arrays(rows, blocks, lags, n_updates)
    joined = _joined(rows, index, n_updates)
    for name in BAND_FIELDS:
        if fields[name] is not None:
            _cut_at_seams(fields[name], joined)
    return fields


def _check_filled(rows: list[Row], n_products: int) -> None:
    """A few rows far apart, or of many different blocks, must not ask for arrays that fill the memory."""
    n_stored = sum(row.record["products"].size for row in rows)
    if n_products > 10_000_000 + 100 * n_stored:
        raise DataError(
            f"The rows of a recording must fill most of its arrays; they hold {n_stored} of {n_products} products. "
            "The file is damaged beyond use: record the run again."
        )


def _used_segments(state: State) -> list[Record]:
    """Segments that rows belong to, and the last one, whose first row may be still to come."""
    used = {id(row.segment) for row in state.rows} | {id(segment) for segment in state.segments[-1:]}
    return [segment for segment in state.segments if id(segment) in used]


def _steps(
    rows: list[Row], index: np.ndarray, n_updates: int, segments: list[Record]
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


def _scalars(rows: list[Row], index: np.ndarray, n_updates: int, name: str) -> np.ndarray:
    values = np.full(n_updates, np.nan)
    values[index] = [number(row.record.get(name)) for row in rows]
    return values


def _lr_sums(rows: list[Row], n_updates: int) -> np.ndarray:
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
        for entry in as_list(segment.get("block_info")):
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


def _block_arrays(rows: list[Row], blocks: list[str], lags: int, n_updates: int) -> dict[str, Any]:
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


def _by_segment(rows: list[Row]) -> list[list[Row]]:
    groups: list[list[Row]] = []
    for row in rows:
        if groups and groups[-1][0].segment is row.segment:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _joined(rows: list[Row], index: np.ndarray, n_updates: int) -> np.ndarray:
    """A number for each update, equal for updates that no seam and no change of segment divides."""
    changes = [row.seam or (i > 0 and row.segment is not rows[i - 1].segment) for i, row in enumerate(rows)]
    return _forward(index, list(np.cumsum(changes)), n_updates)


def _cut_at_seams(band: np.ndarray, joined: np.ndarray) -> None:
    if not len(band):
        return  # a segment without rows may state any number of lags
    for lag in range(1, band.shape[2]):
        band[:lag, :, lag] = np.nan
        band[lag:, :, lag][joined[lag:] != joined[:-lag]] = np.nan
