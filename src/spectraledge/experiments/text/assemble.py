"""Documents of unpacked packages, and the one text they make."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .html_text import html_to_text
from .packages import Form, Package

# Characters. A text's last part is held out, so that a dictionary must be mixed with the rest: in pieces.
_LONGEST_PIECE = 16_384
_SHORTEST_PIECE = 200


def documents_of(package: Package, root: Path) -> list[str]:
    """Text of the files of an unpacked package, in the order of their paths, empty ones left out.

    Args:
        package: Which files, and how they are read.
        root: Where the package is unpacked.
    """
    paths = {path for pattern in package.patterns for path in root.glob(pattern)}
    found = []
    for path in sorted(paths):
        inside = path.relative_to(root).as_posix()
        if path.is_symlink() or not path.is_file() or any(part in inside for part in package.without):
            continue
        if text := as_text(_read(path), package.form).strip():
            found.append(text)
    return found


def as_text(content: str, form: Form) -> str:
    """Readable text of one file.

    Args:
        content: The file as it is.
        form: "plain"; "html"; "fortune", entries between lines that hold only "%"; "wordnet", a data file,
            of which words and their glosses are kept; or "webster", a dictionary without its source marks.

    Example:
        >>> as_text("a gap", "plain")
        'a gap'
        >>> as_text("One.\\n%\\nTwo.\\n", "fortune")
        'One.\\n\\nTwo.\\n'
    """
    if form == "html":
        return html_to_text(content)
    if form == "fortune":
        # A letter, a backspace and an underscore once printed as an underlined letter.
        return re.sub(r"^%\n", "\n", re.sub("_\b|\b_?", "", content), flags=re.MULTILINE)
    if form == "wordnet":
        return "\n\n".join(_glosses(content))
    if form == "webster":
        # After nearly each paragraph stands where it was copied from.
        return re.sub(r"\s*\[[^\[\]\n]*(?:Webster|PJC|WordNet|Century Dict)[^\[\]\n]*\]", "", content)
    return content


def _glosses(content: str) -> Iterable[str]:
    """``word, word: gloss`` of each synset; lines that begin with a space are the licence."""
    for line in content.splitlines():
        fields, bar, gloss = line.partition(" | ")
        if line.startswith(" ") or not bar:
            continue
        parts = fields.split(" ")
        # offset, file, part of speech, number of words in hexadecimal, then word and sense by turns
        words = parts[4 : 4 + 2 * int(parts[3], 16) : 2]
        yield f"{', '.join(words).replace('_', ' ')}: {gloss.strip()}"


def _read(path: Path) -> str:
    content = path.read_bytes()
    # A .dz file of dictd is gzip with an index in its header.
    if path.suffix in {".gz", ".dz"}:
        content = gzip.decompress(content)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def pieces_of(document: str, longest: int = _LONGEST_PIECE) -> list[str]:
    """A document cut at blank lines into pieces of about ``longest`` characters; a paragraph is never cut.

    Example:
        >>> pieces_of("aaa\\n\\nbbb\\n\\nccc", longest=8)
        ['aaa\\n\\nbbb', 'ccc']
    """
    if len(document) <= longest:
        return [document]
    pieces: list[str] = []
    current: list[str] = []
    length = 0
    for paragraph in re.split(r"\n\s*\n", document):
        if current and length + len(paragraph) > longest:
            pieces.append("\n\n".join(current))
            current, length = [], 0
        current.append(paragraph)
        length += len(paragraph) + 2
    return [*pieces, "\n\n".join(current)]


def mix(documents: dict[str, list[str]], seed: int = 0) -> tuple[str, dict[str, int]]:
    """One text of all documents in a random order, each piece once, with a blank line between them.

    The order makes the end of the text, which a corpus holds out, a sample of the whole.

    Args:
        documents: Documents of each package.
        seed: Seed of the order.

    Returns:
        The text, and how many of its UTF-8 bytes come from each package, separators left out.
    """
    seen: set[bytes] = set()
    kept: list[str] = []
    sizes = dict.fromkeys(documents, 0)
    for name, whole in documents.items():
        for piece in (piece.strip() for document in whole for piece in pieces_of(document)):
            mark = hashlib.blake2b(piece.encode(), digest_size=16).digest()
            if len(piece) >= _SHORTEST_PIECE and mark not in seen:
                seen.add(mark)
                kept.append(piece)
                sizes[name] += len(piece.encode())
    order = np.random.default_rng(seed).permutation(len(kept))
    return "\n\n".join(kept[index] for index in order) + "\n", sizes
