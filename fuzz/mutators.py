"""Changes to inputs that keep their grammar: single values of JSON, single operations of a pickle.

Bytes changed at random mostly break the grammar, so that little behind the parser is ever reached.
"""

from __future__ import annotations

import copy
import json
import pickletools
import random
import struct
from typing import Any

import atheris

VALUES: list[Any] = [
    0, 1, -1, 2, 3, 255, 2**31, 2**53, 2**62, 2**63, 10**6, 10**9, 10**30, 0.5, 1e308, -0.0, "", "nan", "inf", "all",
    "a", "x\ny", None, True, False, [], {}, [0], [[]], ["all"], {"a": 1}, {"shape": [], "f8": "AAAAAAAA8D8="},
    {"shape": [2], "f8": "AAAAAAAA8D8AAAAAAADwPw=="}, {"shape": [0], "f8": ""}, {"shape": [1, 0], "f8": ""},
]  # fmt: skip


def of_json_lines(data: bytes, max_size: int, seed: int) -> bytes:
    """One value of one line, behind a first byte that is kept; else bytes at random."""
    rng = random.Random(seed)
    lines = data[1:].split(b"\n")
    i = rng.randrange(len(lines))
    try:
        tree = json.loads(lines[i])
    except (ValueError, RecursionError):
        tree = None
    if tree is None or rng.random() < 0.2:
        return atheris.Mutate(data, max_size)
    kind = rng.randrange(8)
    if kind == 0:
        lines.insert(rng.randrange(len(lines) + 1), lines[i])
    elif kind == 1 and len(lines) > 1:
        lines.append(lines.pop(i))
    elif kind == 2 and len(lines) > 1:
        del lines[i]
    else:
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            tree = _changed(tree, rng)
        lines[i] = json.dumps(tree, separators=(",", ":")).encode()
    return (data[:1] + b"\n".join(lines))[:max_size]


def _changed(tree: Any, rng: random.Random) -> Any:
    """A tree with one value replaced, doubled or gone."""
    if not isinstance(tree, (dict, list)) or not tree or rng.random() < 0.1:
        if isinstance(tree, int) and not isinstance(tree, bool) and rng.random() < 0.5:
            return tree + rng.choice([-1, 1, 8, -8, 100, 10**6])
        return copy.deepcopy(rng.choice(VALUES))
    key = rng.choice(list(tree)) if isinstance(tree, dict) else rng.randrange(len(tree))
    kind = rng.randrange(10)
    if kind == 0:
        del tree[key]
    elif kind == 1 and isinstance(tree, list):
        tree.append(copy.deepcopy(tree[key]))
    elif kind == 2 and isinstance(tree, dict):
        tree[rng.choice(list(tree))] = copy.deepcopy(tree[key])
    else:
        tree[key] = _changed(tree[key], rng)
    return tree


def of_pickles(data: bytes, max_size: int, seed: int, words: list[str]) -> bytes:
    """Operations of a pickle behind a first byte that is kept: gone, doubled, moved, or new; else bytes at random."""
    rng = random.Random(seed)
    parts = _operations(data[1:]) if rng.random() < 0.85 else []
    if len(parts) < 3:
        return atheris.Mutate(data, max_size)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        i, j = rng.randrange(len(parts)), rng.randrange(len(parts))
        kind = rng.randrange(6)
        if kind == 0 and len(parts) > 3:
            del parts[i]
        elif kind == 1:
            parts.insert(j, parts[i])
        elif kind == 2:
            parts[i], parts[j] = parts[j], parts[i]
        elif kind == 3:
            parts.insert(i, _operation(rng, words))
        else:
            parts[i] = _operation(rng, words)
    return (data[:1] + b"".join(parts))[:max_size]


def _operations(data: bytes) -> list[bytes]:
    starts = []
    try:
        starts = [position for _, _, position in pickletools.genops(data)]
    except Exception:  # whatever it says of a pickle that is none
        if not starts:
            return []
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


def _operation(rng: random.Random, words: list[str]) -> bytes:
    word = rng.choice(words)
    module, _, name = word.rpartition(".")
    number = rng.choice([0, 1, -1, 2, 3, 12, 48, 2**31, 2**40, 2**62, 2**63, 2**100])
    size = (number.bit_length() + 8) // 8
    return rng.choice([
        f"c{module}\n{name}\n".encode(),
        b"X" + struct.pack("<I", len(word)) + word.encode(),
        b"X\x01\0\0\0" + rng.choice([b"0", b"1", b"w"]),
        b"\x8a" + bytes([size]) + number.to_bytes(size, "little", signed=True),
        b"K" + bytes([rng.randrange(8)]),
        b"h" + bytes([rng.randrange(16)]),
        b"q" + bytes([rng.randrange(16)]),
        *(bytes([code]) for code in b"N()]}tRbusae012Q\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x93\x94"),
    ])  # fmt: skip
