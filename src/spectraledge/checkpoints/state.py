"""Which of the tables in a checkpoint is the model's state dict.

Training code saves the model beside its optimizer, scheduler and counters, under names of its own. The usual names
are looked for; where several tables could be meant, nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .header import BadFile, short
from .leaves import Leaf

KNOWN = ("state_dict", "model_state_dict", "model", "model_state", "module", "net", "network", "weights", "params")
_NOT_A_MODEL = re.compile(
    r"optim|^opt$|sched|scaler|rng|random|loader|callback|loop|hyper|hparam|config|^args$|history|metric|log",
    re.IGNORECASE,
)
MAX_DEPTH = 16
MAX_VISITED = 1_000_000
MAX_NAME = 2000


def find_state(tree: Any, state_key: str | None = None) -> dict[str, Leaf]:
    """The model's tensors by name.

    A table of tensors at the top is the state dict itself. Otherwise it is the one table that has a usual name
    (``state_dict``, ``model_state_dict``, ``model``, ...), or the only one that is no optimizer's. Tables inside it
    join their names by dots.

    Args:
        tree: From a reader.
        state_key: Name of the table, levels joined by dots; "" takes everything; None searches.

    Raises:
        BadFile: If there is none, or several could be meant.

    Example:
        >>> w = Leaf("float32", (2,))
        >>> list(find_state({"step": 3, "model": {"layer.weight": w}, "optimizer": {"state": {0: w}}}))
        ['layer.weight']
    """
    if not isinstance(tree, Mapping):
        kind = "one tensor" if isinstance(tree, Leaf) else f"a {type(tree).__name__}"
        raise BadFile(f"it holds {kind} and no state dict: save model.state_dict()")
    found = _flat(_search(tree, 0) if state_key is None else _at(tree, state_key))
    if not found:
        raise BadFile("it holds no tensors")
    return found


def _search(tree: Mapping[Any, Any], depth: int) -> Mapping[Any, Any]:
    known = [key for key in KNOWN if _has_tensors(tree.get(key))]
    if len(known) > 1:
        raise _ambiguous(known)
    if known:
        inner = tree[known[0]]
        # {"model": {"state_dict": ...}}; but a model may have a part of its own that is called "model"
        deeper = [key for key in KNOWN if _has_tensors(inner.get(key))]
        alone = not any(isinstance(value, Leaf) for value in inner.values())
        return _search(inner, depth + 1) if deeper and alone and depth < 2 else inner
    if any(isinstance(value, Leaf) and value.floating for value in tree.values()):
        return tree
    others = [key for key, value in tree.items() if isinstance(key, str) and _has_tensors(value)]
    models = [key for key in others if not _NOT_A_MODEL.search(key)]
    if len(models) > 1:
        raise _ambiguous(models)
    if models:
        return tree[models[0]]
    if others:
        raise BadFile(f"it holds no state dict of a model, only {', '.join(map(short, others[:4]))}")
    return tree


def _ambiguous(keys: list[str]) -> BadFile:
    return BadFile(
        f"its state dict may be any of {', '.join(map(short, keys[:6]))}: name one, as in "
        f"find_series(folder, state_key={short(keys[0])})"
    )


def _at(tree: Mapping[Any, Any], state_key: str) -> Mapping[Any, Any]:
    if not state_key:
        return tree
    found: Any = tree.get(state_key)
    parts = state_key.split(".")
    for n in range(1, len(parts)):
        if found is None and isinstance(tree.get(".".join(parts[:n])), Mapping):
            found = _at(tree[".".join(parts[:n])], ".".join(parts[n:]))
    if not isinstance(found, Mapping):
        names = [key for key, value in tree.items() if isinstance(value, Mapping) and _has_tensors(value)]
        raise BadFile(
            f"it has no table {short(state_key)}; those with tensors are {', '.join(map(short, names[:6]))}"
        )
    return found


def _has_tensors(value: Any) -> bool:
    """Whether a table holds a tensor, at any depth that is looked at."""
    if not isinstance(value, Mapping):
        return False
    return next(_walk(value, count=[0]), None) is not None


def _flat(table: Mapping[Any, Any]) -> dict[str, Leaf]:
    found: dict[str, Leaf] = {}
    for name, leaf in _walk(table, count=[0]):
        if name in found:
            raise BadFile(f"it names {short(name)} twice")
        found[name] = leaf
    return found


def _walk(table: Any, count: list[int], prefix: str = "", depth: int = 0) -> Any:
    items = table.items() if isinstance(table, Mapping) else enumerate(table)
    for key, value in items:
        count[0] += 1
        if count[0] > MAX_VISITED:
            raise BadFile(f"it holds more than {MAX_VISITED} values, or tables that hold themselves")
        if not isinstance(key, (str, int)) or not isinstance(value, (Leaf, Mapping, list, tuple)):
            continue
        name = f"{prefix}{key}"
        if len(name) > MAX_NAME:
            raise BadFile(f"it has a tensor's name of {len(name)} characters; at most {MAX_NAME} are read")
        if isinstance(value, Leaf):
            yield name, value
        else:
            if depth >= MAX_DEPTH:
                raise BadFile(f"it holds tables nested deeper than {MAX_DEPTH}, or that hold themselves")
            yield from _walk(value, count, f"{name}.", depth + 1)
