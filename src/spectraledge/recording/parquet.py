"""A recording as Parquet tables, for pandas, polars, DuckDB, Arrow or Spark."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import OutputError, require
from .replay import BAND_FIELDS, BLOCK_FIELDS

if TYPE_CHECKING:
    from .recording import Recording

FORMAT, VERSION = "spectraledge-parquet", 1
TABLES = ("rows", "blocks", "updates", "metrics", "events")
_GROUP = 2**18  # rows of a row group, about: what is in memory at once
_P2 = "parameter^2"
_UNITS = {
    "t": ("1", "number of the update"),
    "step": ("optimizer step", "step that ends the update, or of the report"),
    "n_steps": ("optimizer step", "steps that the update took"),
    "segment": ("1", "stretch of unchanged structure, index in meta.segments"),
    "block": ("", 'block of parameters; "all" is the sum of the rest'),
    "lag": ("update", "l: how many updates lie between"),
    "product": (_P2, "<delta_t, delta_{t-l}>"),
    "decay_product": (_P2, "<delta_wd_t, delta_{t-l}>, the part made by decoupled weight decay"),
    "gradient_product": ("loss", "<gradient at theta_t, delta_{t-l}>"),
    "theta_dot": (_P2, "<theta_t, delta_t>"),
    "theta_norm2": (_P2, "||theta_t||^2"),
    "decay_norm2": (_P2, "||delta_wd_t||^2"),
    "error_norm2": (_P2, "squared norm of the error that the update carries, at most"),
    "unchanged": ("entry", "entries of the update that are exactly 0"),
    "nonfinite": ("entry", "entries of the snapshot that are not finite"),
    "lr_sum": ("learning rate", "sum over the steps of the update, one entry a group"),
    "seconds": ("s", "time spent on recording"),
    "time": ("s", "wall clock since 1970"),
    "flags": ("", "remarks: lost, seam, uneven, ..."),
    "name": ("", "of the metric"),
    "value": ("", "as logged, or the detector's statistic"),
    "threshold": ("", "what the statistic had to pass"),
    "kind": ("", "what happened"),
    "detector": ("", "who reported it"),
    "detail": ("", "more for people to read"),
}


def export(recording: Recording, out: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
    """Write a recording as Parquet.

    ``rows`` holds one row an update t, block and lag l: ``t, step, n_steps, segment, block, lag, product`` and,
    where measured, ``decay_product`` and ``gradient_product``. ``blocks`` has what there is once for an update and a
    block (``theta_dot``, ``theta_norm2``, counts), ``updates`` what there is once for an update (learning rates,
    flags, times), ``metrics`` and ``events`` what was logged. What is not available is null: lags before the start
    and across a seam, blocks of other segments. Probes and singular values of weights stay in the recording.

    Units and meanings stand in every field's metadata; the schema's metadata has, under ``spectraledge``, JSON with
    format, version and the recording's ``meta``. Tables are written piece by piece, and appear under their names only
    when all are whole.

    Args:
        recording: Any.
        out: Folder for all tables, or a file ``*.parquet`` for ``rows`` alone.
        overwrite: Whether tables that are there may be replaced.

    Returns:
        The files.

    Raises:
        OutputError: If a table is there already, or the place cannot be written.
        MissingDependencyError: If pyarrow is not installed.
    """
    require("pyarrow", "export")
    out = Path(out)
    files = {"rows": out} if out.suffix == ".parquet" else {name: out / f"{name}.parquet" for name in TABLES}
    found = [file for file in files.values() if file.exists()]
    if found and not overwrite:
        raise OutputError(f"{found[0]} must not be there yet; it is. Use overwrite=True to replace it.")
    beside = {name: file.with_name(f".{file.name}-{os.getpid()}") for name, file in files.items()}
    with ExitStack() as stack:
        for temporary in beside.values():
            stack.callback(temporary.unlink, missing_ok=True)
        try:
            for name, temporary in beside.items():
                temporary.parent.mkdir(parents=True, exist_ok=True)
                _write(recording, name, temporary)
            for name, file in files.items():
                os.replace(beside[name], file)
        except OSError as error:
            raise OutputError(
                f"{out} must be writable; got {error.strerror or error}. Choose another place."
            ) from error
    return list(files.values())


def _write(recording: Recording, name: str, path: Path) -> None:
    pa: Any = require("pyarrow", "export")
    pq: Any = require("pyarrow.parquet", "export")
    schema = _schema(recording, name)
    words = [field.name for field in schema if field.type not in (pa.float64(), pa.list_(pa.float64()))]
    with (
        path.open("wb") as file,
        pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=words) as writer,
    ):
        for columns in _PIECES[name](recording):
            arrays = [_array(columns[field.name], field.type) for field in schema]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _schema(recording: Recording, name: str) -> Any:
    pa: Any = require("pyarrow", "export")
    label = pa.dictionary(pa.int32(), pa.string())
    types: dict[str, Any] = {"t": pa.int64(), "step": pa.int64(), "n_steps": pa.int64(), "segment": pa.int32()}
    if name == "rows":
        bands = [field.removesuffix("s") for field in _measured(recording, BAND_FIELDS)]
        types |= {"block": label, "lag": pa.int32(), **dict.fromkeys(bands, pa.float64())}
    elif name == "blocks":
        types |= {"block": label, **dict.fromkeys(_measured(recording, BLOCK_FIELDS), pa.float64())}
    elif name == "updates":
        types |= {"lr_sum": pa.list_(pa.float64()), "flags": pa.list_(pa.string())}
        types |= {"seconds": pa.float64(), "time": pa.float64()}
    elif name == "metrics":
        types = {"step": pa.int64(), "name": label, "value": pa.float64()}
    elif name == "events":
        types = {"step": pa.int64(), "block": label, "kind": label, "value": pa.float64()}
        types |= {"threshold": pa.float64(), "detector": label, "detail": pa.string()}
    fields = [
        pa.field(column, kind, metadata=dict(zip(("unit", "meaning"), _UNITS.get(column, ("", "")), strict=True)))
        for column, kind in types.items()
    ]
    about = {"format": FORMAT, "version": VERSION, "table": name, "lags": recording.lags}
    about |= {"blocks": recording.blocks, "meta": recording.meta}
    text = json.dumps(about, default=_jsonable, allow_nan=False)
    return pa.schema(fields, metadata={"spectraledge": text})


def _measured(recording: Recording, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if getattr(recording, name) is not None]


def _array(values: Any, kind: Any) -> Any:
    """A column; numbers that are not there (NaN) become null, infinities stay."""
    pa: Any = require("pyarrow", "export")
    if pa.types.is_dictionary(kind) and isinstance(values, tuple):
        index, names = values
        return pa.DictionaryArray.from_arrays(pa.array(index, pa.int32()), pa.array(names, pa.string()))
    if pa.types.is_dictionary(kind):
        return pa.array(values, pa.string()).dictionary_encode()
    if pa.types.is_list(kind) and isinstance(values, np.ndarray):
        flat = pa.array(values.reshape(-1), from_pandas=True)
        offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
        return pa.ListArray.from_arrays(pa.array(offsets), flat)
    return pa.array(values, kind, from_pandas=True)


def _pieces(recording: Recording, per_update: int) -> Iterator[slice]:
    size = max(1, _GROUP // max(per_update, 1))
    for first in range(0, recording.n_updates, size):
        yield slice(first, min(first + size, recording.n_updates))


def _per_update(r: Recording, part: slice, copies: int) -> dict[str, Any]:
    columns = {"t": np.arange(part.start, part.stop), "step": r.steps[part], "n_steps": r.n_steps[part]}
    columns["segment"] = r.segment[part]
    return {name: np.repeat(values, copies) for name, values in columns.items()}


def _rows(r: Recording) -> Iterator[dict[str, Any]]:
    n_blocks, n_lags = len(r.blocks), r.lags + 1
    for part in _pieces(r, n_blocks * n_lags):
        n = part.stop - part.start
        yield {
            **_per_update(r, part, n_blocks * n_lags),
            "block": (np.tile(np.repeat(np.arange(n_blocks), n_lags), n), r.blocks),
            "lag": np.tile(np.arange(n_lags), n * n_blocks),
            **{name.removesuffix("s"): getattr(r, name)[part].reshape(-1) for name in _measured(r, BAND_FIELDS)},
        }


def _blocks(r: Recording) -> Iterator[dict[str, Any]]:
    for part in _pieces(r, len(r.blocks)):
        yield {
            **_per_update(r, part, len(r.blocks)),
            "block": (np.tile(np.arange(len(r.blocks)), part.stop - part.start), r.blocks),
            **{name: getattr(r, name)[part].reshape(-1) for name in _measured(r, BLOCK_FIELDS)},
        }


def _updates(r: Recording) -> Iterator[dict[str, Any]]:
    for part in _pieces(r, 1):
        columns = {name: getattr(r, name)[part] for name in ("lr_sum", "flags", "seconds", "time")}
        yield {**_per_update(r, part, 1), **columns}


def _metrics(r: Recording) -> Iterator[dict[str, Any]]:
    for name, (steps, values) in r.metrics.items():
        yield {"step": steps, "name": (np.zeros(len(steps), dtype=np.int32), [name]), "value": values}


def _events(r: Recording) -> Iterator[dict[str, Any]]:
    if r.events:
        yield {name: [getattr(event, name) for event in r.events] for name in vars(r.events[0])}


_PIECES: dict[str, Callable[[Recording], Iterator[dict[str, Any]]]] = {
    "rows": _rows,
    "blocks": _blocks,
    "updates": _updates,
    "metrics": _metrics,
    "events": _events,
}


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return [x if math.isfinite(x) else None for x in np.asarray(value, dtype=np.float64).ravel().tolist()]
    return str(value)
