"""Where the text of a run comes from: files of the user's, or a data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Any

from ...errors import DataError, SettingError, require

# Rows shorter than this are headings and debris rather than documents.
_SHORTEST_ROW = 40


@dataclass(frozen=True)
class Texts:
    """Documents as strings, to train on and held out."""

    train: list[str] = field(default_factory=list)
    val: list[str] = field(default_factory=list)


def read_texts(text: str, val_fraction: float = 0.1, max_documents: tuple[int, int] | None = None) -> Texts:
    """Documents of the sources that a setting names.

    Args:
        text: Sources with commas between them. A file is UTF-8; a folder stands for every .txt below it, in
            the order of their names; a glob such as ``notes/*.md`` for the files it matches.
            "hf:NAME[@CONFIG][:SPLIT]" is a data set of the Hugging Face hub, or a folder of one, with a column
            "text"; rows under 40 characters are left out.
        val_fraction: Share held out of each file and of each data set without validation rows.
        max_documents: At most so many documents to train on and held out, the first ones.

    Raises:
        SettingError: If text names nothing.
        DataError: If a source is missing, empty or not UTF-8, or a data set lacks the column or split.
        MissingDependencyError: If a data set is named and ``datasets`` is not installed.
    """
    # A path may hold a comma.
    whole = text.strip()
    parts = [whole] if whole and Path(whole).exists() else text.split(",")
    sources = [part.strip() for part in parts if part.strip()]
    if not sources:
        raise SettingError(
            f"text must name what to train on; got {text!r}. Give a text file with --set text=FILE, several with "
            "commas between them, or a folder."
        )
    found = Texts()
    for source in sources:
        if source.startswith("hf:"):
            part = _rows(source, val_fraction, max_documents)
        else:
            part = _streams(source, val_fraction)
        found.train.extend(part.train)
        found.val.extend(part.val)
    if max_documents is None:
        return found
    return Texts(found.train[: max_documents[0]], found.val[: max_documents[1]])


def _streams(source: str, val_fraction: float) -> Texts:
    """Each file of a source as one document of either kind, the end of the file held out."""
    found = Texts()
    for path in _files(source):
        try:
            content = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"text must be UTF-8; {path} is not, from byte {error.start} on. Convert it, for instance with "
                "iconv -t UTF-8."
            ) from error
        except OSError as error:
            raise DataError(
                f"text must be readable; {path} gave: {error.strerror}. Check its permissions."
            ) from error
        cut = len(content) - int(len(content) * val_fraction)
        found.train.append(content[:cut])
        found.val.append(content[cut:])
    if not any(part.strip() for part in found.train):
        raise DataError(f"text must hold text; {source!r} is empty. Give another file.")
    return found


def _files(source: str) -> list[Path]:
    path = Path(source).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        files = sorted(entry for entry in path.rglob("*.txt") if entry.is_file())
        if not files:
            raise DataError(
                f"text must name a folder with .txt files; {source!r} holds none. For other names give a glob, "
                f"such as text='{path / '*.md'}'."
            )
        return files
    files = sorted(Path(name) for name in glob(str(path), recursive=True) if Path(name).is_file())
    if not files:
        raise DataError(f"text must name a file, folder or glob that exists; {source!r} does not. Check the path.")
    return files


def _rows(source: str, val_fraction: float, max_documents: tuple[int, int] | None) -> Texts:
    """Rows of a data set, one document each."""
    name, split = _name_and_split(source[3:])
    loaded = _load(name, split, source)
    if split:
        train, held_out = loaded, None
    else:
        if "train" not in loaded:
            raise DataError(
                f"text must name a data set with a split called train; {source!r} has {_listed(loaded)}. "
                f"Name one: text={source}:SPLIT."
            )
        train, held_out = loaded["train"], loaded.get("validation")
    if held_out is not None:
        limits = max_documents or (None, None)
        return Texts(_documents(train, source, limits[0]), _documents(held_out, source, limits[1]))
    rows = _documents(train, source, sum(max_documents) if max_documents else None)
    # With more rows than are asked for, the held-out ones follow the training ones; else the last are held out.
    if max_documents and len(rows) == sum(max_documents):
        cut = max_documents[0]
    else:
        cut = len(rows) - max(1, int(len(rows) * val_fraction))
    return Texts(rows[:cut], rows[cut:])


def _name_and_split(rest: str) -> tuple[str, str]:
    """A slice of a split holds a colon of its own: ``NAME:train[:1000]``."""
    name, _, split = rest.partition(":")
    return name, split


def _load(name: str, split: str, source: str) -> Any:
    datasets: Any = require("datasets", "text")
    folder = Path(name).expanduser()
    try:
        if any((folder / mark).is_file() for mark in ("dataset_dict.json", "state.json")):
            saved = datasets.load_from_disk(str(folder))
            if isinstance(saved, datasets.Dataset):
                return saved if split else {"train": saved}
            if split and split not in saved:
                raise DataError(
                    f"text must name a split that the data set has; {source!r} has {_listed(saved)}. Use one of them."
                )
            return saved[split] if split else saved
        name, _, config = name.partition("@")
        return datasets.load_dataset(name, config or None, split=split or None)
    except DataError:
        raise
    # Downloads, file formats and splits each fail with errors of their own kind.
    except Exception as error:
        cause = " ".join(str(error).split())[:200]
        raise DataError(
            f"text must name a data set that can be loaded; {source!r} gave: {cause}. Give a folder that holds "
            "one, text=hf:FOLDER, or a text file, text=FILE."
        ) from error


def _documents(rows: Any, source: str, limit: int | None) -> list[str]:
    if "text" not in rows.column_names:
        columns = ", ".join(rows.column_names)
        raise DataError(
            f'text must name a data set with a column "text"; {source!r} has {columns}. Rename the column, or '
            "write it to a text file and give text=FILE."
        )
    found: list[str] = []
    for batch in rows.iter(batch_size=1000):
        found.extend(row for row in batch["text"] if row and len(row) >= _SHORTEST_ROW)
        if limit is not None and len(found) >= limit:
            return found[:limit]
    if not found:
        raise DataError(
            f"text must hold documents of at least {_SHORTEST_ROW} characters; {source!r} has none. Give another."
        )
    return found


def _listed(splits: Any) -> str:
    return ", ".join(splits)
