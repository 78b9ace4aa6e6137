"""Keep the recordings of a grid of modular runs by part of the network: embeddings, layers, norms, head.

    python records/precursor_record.py GRID_FOLDER records/DATE_NAME/SPLIT

Blocks of a kind are added up, so that rules that look at the whole, the embeddings, the layers or the head find
them as before. Runs that are not over are left out. Says nothing of what the runs did.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from spectraledge import load
from spectraledge.recording import Recording


def parts(recording: Recording) -> dict[str, list[str]]:
    """Blocks of each part."""
    found: dict[str, list[str]] = {}
    for block in recording.blocks[1:]:
        kind = recording.block_info[block].get("kind")
        found.setdefault({"embedding": "embeddings", "norm": "norms"}.get(kind, kind or "layers"), []).append(block)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path)
    parser.add_argument("record", type=Path)
    chosen = parser.parse_args()
    kept = 0
    for file in sorted(chosen.grid.glob("*/recording.jsonl")):
        recording = load(file)
        if not recording.closed:
            continue
        folder = chosen.record / file.parent.name
        recording.merged(parts(recording)).save(folder, overwrite=True)
        for name in ("config.json", "environment.json"):
            shutil.copy(file.parent / name, folder / name)
        kept += 1
    sys.stdout.write(f"{kept} runs kept\n")


if __name__ == "__main__":
    main()
