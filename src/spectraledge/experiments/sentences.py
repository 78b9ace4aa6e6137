"""Validation errors of pydantic as this package's sentences: what must hold, what was given, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

_BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "tuple": "two numbers",
}


def nearest(word: str, known: Iterable[str]) -> str:
    """A closing clause that points at the nearest known name, or lists them all.

    Example:
        >>> nearest("weigth_decay", ["weight_decay", "lr"])
        'Did you mean weight_decay?'
        >>> nearest("zzz", ["weight_decay", "lr"])
        'Choose one of lr, weight_decay.'
    """
    names = sorted(known)
    close = get_close_matches(word, names, n=1, cutoff=0.6)
    return f"Did you mean {close[0]}?" if close else f"Choose one of {', '.join(names)}."


def setting_sentences(error: ValidationError, kind: type[BaseModel], name: str) -> list[str]:
    """One sentence for each thing that is wrong with the settings of experiment ``name``."""
    return [_sentence(item, kind, name) for item in error.errors()]


def _sentence(item: Any, kind: type[BaseModel], name: str) -> str:
    field = str(item["loc"][0]) if item["loc"] else ""
    given, context, what = item["input"], item.get("ctx", {}), item["type"]
    if what == "value_error":  # raised by our own validators, a full sentence already
        return str(context["error"])
    if what == "extra_forbidden":
        return f"settings of {name} must be known to it; got {field}. {nearest(field, kind.model_fields)}"
    if what == "literal_error":
        known = _choices(kind, field)
        return f"{field} must be {' or '.join(known)}; got {given}. {nearest(str(given), known)}"
    if what in _BOUNDS:
        key, words = _BOUNDS[what]
        return f"{field} must be {words} {context[key]:g}; got {given}. {_cure(kind, field)}"
    for prefix, words in _KINDS.items():
        if what.startswith(prefix):
            return f"{field} must be {words}; got {given}. {_cure(kind, field)}"
    return f"{field} must be valid; got {given} ({item['msg'].lower()}). {_cure(kind, field)}"


def _choices(kind: type[BaseModel], field: str) -> list[str]:
    return [str(value) for value in getattr(kind.model_fields[field].annotation, "__args__", ())]


def _cure(kind: type[BaseModel], field: str) -> str:
    info = kind.model_fields[field]
    if info.is_required():
        return "Leave it out for the optimizer's own default."
    default = info.default
    return f"Leave it out for the default, {default if default is None else _plain(default)}."


def _plain(value: object) -> str:
    return ",".join(str(v) for v in value) if isinstance(value, tuple) else str(value)
