"""What a pickle can put on the machine's stack beside numbers, text and containers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Stream(Protocol):
    """What the machine reads from."""

    def read(self, n: int, /) -> bytes:
        """Up to n bytes."""

    def readline(self, n: int, /) -> bytes:
        """Up to the end of the line, or n bytes."""


class Name:
    """A global name of the table, on the machine's stack.

    Args:
        text: ``module.name``.
        make: Called in place of what the name stands for; None where it is never to be called.
    """

    __slots__ = ("make", "text")

    def __init__(self, text: str, make: Callable[..., Any] | None = None) -> None:
        self.text, self.make = text, make


class Thing:
    """An object that the pickle describes and nobody makes: a name, arguments, a state."""

    __slots__ = ("args", "name", "state")

    def __init__(self, name: str, args: tuple[Any, ...]) -> None:
        self.name, self.args, self.state = name, args, None


class Table(dict[Any, Any]):
    """A dictionary that was saved as an OrderedDict or the like; attributes set on it are dropped."""


def thing(text: str) -> Name:
    """A name whose calls are noted down as a `Thing`."""
    return Name(text, lambda *args: Thing(text, args))
