"""What ``spectraledge export`` writes and shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import require
from ..recording import load
from ..recording.parquet import export


def export_content(run: Path, out: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Write a run's recording as Parquet and say what was written.

    Args:
        run: Run folder or recording.
        out: Folder for all tables, or a file ``*.parquet`` for the products alone.
        overwrite: Whether tables that are there may be replaced.

    Returns:
        ``run``, and ``files``: ``path``, ``rows`` and ``bytes`` of each.

    Raises:
        DataError: If there is no recording.
        OutputError: If a table is there already, or the place cannot be written.
        MissingDependencyError: If pyarrow is not installed.
    """
    files = export(load(run), out, overwrite=overwrite)
    parquet: Any = require("pyarrow.parquet", "export")
    return {
        "run": str(run),
        "files": [
            {"path": str(file), "rows": parquet.read_metadata(file).num_rows, "bytes": file.stat().st_size}
            for file in files
        ],
    }
