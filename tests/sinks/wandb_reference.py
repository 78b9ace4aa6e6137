"""Read the file that W&B writes offline: records of protobuf in LevelDB's log format."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

BLOCK, FILE_HEADER, HEADER = 32768, 7, 7
FULL, FIRST, LAST = 1, 2, 4


def finished(run: Any) -> list[Any]:
    """Finish an offline run and read its file, which W&B may complete shortly after ``finish`` returns."""
    run.finish()
    (path,) = Path(run.settings.sync_dir).glob("*.wandb")
    deadline = time.monotonic() + 20
    while True:
        found = records(path)
        if any(record.WhichOneof("record_type") == "exit" for record in found) or time.monotonic() > deadline:
            return found
        time.sleep(0.02)


def records(path: Path) -> list[Any]:
    """Protobuf records in order; the checksums are W&B's business and not looked at."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data[:4] in (b"", b":W&B")
    found, pieces, at = [], b"", FILE_HEADER
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:  # the rest of a block is padding
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if kind == 0:
            break
        pieces = (b"" if kind in (FULL, FIRST) else pieces) + data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(pieces)
            found.append(record)
    return found


def history(found: list[Any]) -> list[dict[str, Any]]:
    """Rows, with W&B's own step as ``_step``."""
    rows = []
    for record in found:
        if record.WhichOneof("record_type") == "history":
            items = {(item.key or "/".join(item.nested_key)): _value(item) for item in record.history.item}
            rows.append({**items, "_step": record.history.step.num})
    return rows


def _value(item: Any) -> Any:
    return json.loads(item.value_json) if item.value_json else item
