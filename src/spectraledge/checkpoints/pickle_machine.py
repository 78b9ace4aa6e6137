"""A stack machine for the operations of pickles, with no way to import or call anything of its own accord.

It counts operations, bytes of text and sizes of numbers, so that a small file cannot fill the memory; the only calls
are of functions in the caller's table.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from .header import BadFile, short
from .pickle_types import Name, Stream, Table, Thing

MAX_OPERATIONS = 2_000_000  # some 40 000 tensors; an operation takes up to 100 bytes of memory
_MAX_TEXT = 2**24
_MAX_KEY = 2**60  # beyond it different numbers hash alike


class Machine:
    """One reading of one pickle; arguments as of ``unpickle``."""

    def __init__(
        self, stream: Stream, names: Mapping[str, Name], persistent: Callable[[Any], Any] | None, counted: int
    ) -> None:
        self.stream, self.names, self.persistent, self.counted = stream, names, persistent, counted
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The object that the pickle ends with."""
        read, operations = self.stream.read, _OPERATIONS
        counted = self.counted
        while True:
            code = read(1)
            operation = operations.get(code)
            if operation is None:
                break
            operation(self)
            counted += 1
            if counted > MAX_OPERATIONS:
                raise BadFile(f"its pickle has more than {MAX_OPERATIONS} operations, which is no checkpoint's")
        self.counted = counted
        if code == b".":
            return self.stack.pop()
        if not code:
            raise BadFile("it is corrupt: its pickle ends in the middle")
        raise BadFile(f"its pickle has operation 0x{code[0]:02x}, which torch never writes; nothing was run")

    def bytes(self, n: int) -> bytes:
        if not 0 <= n <= _MAX_TEXT:
            raise BadFile(f"its pickle has a text of {n} bytes; at most {_MAX_TEXT} are read")
        data = self.stream.read(n)
        if len(data) != n:
            raise BadFile("it is corrupt: its pickle ends in the middle")
        return data

    # At the end of the stream these give a wrong number; the operation after it then finds no byte and says so.

    def byte(self) -> int:
        return self.stream.read(1)[0]

    def natural(self, n: int) -> int:
        return int.from_bytes(self.stream.read(n), "little")

    def items(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> None:
        self.stack.pop()

    # Names and calls: all that could ever run is in the table.

    def find(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise BadFile("it is corrupt: its pickle is malformed (a name is no text)")
        found = self.names.get(f"{module}.{name}")
        if found is None:
            raise BadFile(
                f"its pickle names {short(f'{module}.{name}')}, which weights do not need; it was refused and "
                "nothing was run. Save model.state_dict(), or convert it to safetensors"
            )
        self.push(found)

    def find_line(self) -> None:
        lines = [self.stream.readline(1000) for _ in range(2)]
        if not all(line.endswith(b"\n") for line in lines):
            raise BadFile("it is corrupt: its pickle is malformed (a name without an end)")
        self.find(*(line[:-1].decode("utf-8") for line in lines))

    def find_stacked(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.find(module, name)

    def call(self) -> None:
        args, name = self.stack.pop(), self.stack.pop()
        if type(name) is not Name or name.make is None or type(args) is not tuple:
            raise BadFile("its pickle calls what is no function; it was refused and nothing was run")
        self.push(name.make(*args))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is Thing:
            target.state = state
        elif type(target) is not Table:
            raise BadFile("its pickle sets the state of what has none; it was refused and nothing was run")

    def persist(self) -> None:
        if self.persistent is None:
            raise BadFile("its pickle has a persistent id, which does not belong there; nothing was run")
        self.push(self.persistent(self.stack.pop()))

    # Containers.

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def tuple_of(self, n: int) -> None:
        if len(self.stack) < n:
            raise IndexError
        self.stack[-n:] = [tuple(self.stack[-n:])]

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise BadFile("it is corrupt: its pickle appends to what is no list")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise BadFile("it is corrupt: its pickle sets items of what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def discard_items(self) -> None:
        self.items()

    def keep(self, at: int) -> None:
        self.memo[at] = self.stack[-1]


def _key(key: Any) -> Any:
    """A dictionary's key: plain ones, whose hashing takes no time. Things are told apart by identity."""
    if key is None or type(key) in (str, bool, Thing) or (type(key) is int and abs(key) < _MAX_KEY):
        return key
    if type(key) is tuple and len(key) <= 8 and all(type(part) is not tuple for part in key):
        return tuple(map(_key, key))
    raise BadFile(f"its pickle has a {type(key).__name__} as a key, which checkpoints do not need")


def _integer(machine: Machine, n: int) -> None:
    if n > 256:
        raise BadFile(f"its pickle has a number of {n} bytes")
    machine.push(int.from_bytes(machine.bytes(n), "little", signed=True))


def _text(machine: Machine, n: int) -> None:
    machine.push(str(machine.bytes(n), "utf-8"))


def _at_most(number: int, limit: int) -> None:
    if number > limit:
        raise BadFile(f"it is corrupt: its pickle is malformed ({number} where at most {limit} can be)")


_Operation = Callable[[Machine], None]


def _constant(value: Any) -> _Operation:
    return lambda m: m.stack.append(value)


_OPERATIONS: dict[bytes, _Operation] = {
    b"\x80": lambda m: _at_most(m.byte(), 5),
    b"\x95": lambda m: _at_most(m.natural(8), 2**40),  # a frame's length; frames are hints
    b"(": Machine.mark,
    b"0": Machine.pop,
    b"1": Machine.discard_items,
    b"2": lambda m: m.push(m.stack[-1]),
    b"N": _constant(None),
    b"\x88": _constant(True),
    b"\x89": _constant(False),
    b"J": lambda m: m.push(int.from_bytes(m.bytes(4), "little", signed=True)),
    b"K": lambda m: m.stack.append(m.byte()),
    b"M": lambda m: m.push(m.natural(2)),
    b"G": lambda m: m.push(struct.unpack(">d", m.bytes(8))[0]),
    b"\x8a": lambda m: _integer(m, m.byte()),
    b"\x8b": lambda m: _integer(m, m.natural(4)),
    b"X": lambda m: _text(m, m.natural(4)),
    b"\x8c": lambda m: _text(m, m.byte()),
    b"\x8d": lambda m: _text(m, m.natural(8)),
    b"T": lambda m: m.push(m.bytes(m.natural(4)).decode("latin-1")),  # text of Python 2
    b"U": lambda m: m.push(m.bytes(m.byte()).decode("latin-1")),
    b"B": lambda m: m.push(m.bytes(m.natural(4))),
    b"C": lambda m: m.push(m.bytes(m.byte())),
    b"\x8e": lambda m: m.push(m.bytes(m.natural(8))),
    b"\x96": lambda m: m.push(m.bytes(m.natural(8))),
    b"]": lambda m: m.push([]),
    b"}": lambda m: m.push({}),
    b")": _constant(()),
    b"\x8f": lambda m: m.push([]),  # a set; its members need no hash here
    b"t": lambda m: _push_after(m, tuple),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"l": lambda m: _push_after(m, list),
    b"\x91": lambda m: _push_after(m, list),
    b"a": lambda m: m.extend([m.stack.pop()]),
    b"e": lambda m: m.extend(m.items()),
    b"\x90": lambda m: m.extend(m.items()),
    b"s": Machine.set_item,
    b"u": lambda m: m.set_items(m.items()),
    b"h": lambda m: m.stack.append(m.memo[m.byte()]),
    b"j": lambda m: m.stack.append(m.memo[m.natural(4)]),
    b"q": lambda m: m.keep(m.byte()),
    b"r": lambda m: m.keep(m.natural(4)),
    b"\x94": lambda m: m.keep(len(m.memo)),
    b"c": Machine.find_line,
    b"\x93": Machine.find_stacked,
    b"R": Machine.call,
    b"\x81": Machine.call,
    b"b": Machine.build,
    b"Q": Machine.persist,
}


def _push_after(machine: Machine, kind: Callable[[list[Any]], Any]) -> None:
    items = machine.items()  # before the push: it replaces the stack
    machine.push(kind(items))
