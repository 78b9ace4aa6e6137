"""Which blocks a caller means: a name, a list, a pattern or a rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from ..errors import SettingError

BlockChoice = str | Sequence[str] | Callable[[str, Mapping[str, Any]], bool]


def select_blocks(
    choice: BlockChoice, blocks: Sequence[str], info: Mapping[str, Mapping[str, Any]] | None = None
) -> list[int]:
    """Positions in ``blocks`` of the disjoint blocks that ``choice`` stands for.

    Args:
        choice: A block's name; several names; a pattern with ``*``, ``?`` or ``[...]``; or a rule that takes
            a name and what is known of the block. Patterns and rules look at the disjoint blocks only, never
            at their sum "all".
        blocks: Names in a recording.
        info: What is known of each block, for rules.

    Raises:
        SettingError: If a name is unknown, nothing matches, or a block would be counted twice.

    >>> select_blocks("layer.0*", ["all", "layer.0.w", "layer.0.b", "layer.1.w"])
    [1, 2]
    """
    blocks = list(blocks)
    disjoint = [name for name in blocks if name != "all"] or blocks
    if isinstance(choice, str):
        if choice in blocks:
            return [blocks.index(choice)]
        if not any(mark in choice for mark in "*?["):
            raise _unknown(choice, blocks)
        chosen = [name for name in disjoint if fnmatchcase(name, choice)]
    elif callable(choice):
        chosen = [name for name in disjoint if choice(name, (info or {}).get(name, {}))]
    else:
        chosen = list(choice)
        for name in chosen:
            if name not in blocks:
                raise _unknown(name, blocks)
        if len(set(chosen)) < len(chosen) or ("all" in chosen and len(chosen) > 1):
            raise SettingError(
                f'A union must count every block once; got {chosen[:8]}. Name each once, and "all" alone.'
            )
    if not chosen:
        raise SettingError(
            f"block must choose at least one block; {choice!r} chose none of {len(disjoint)}. "
            f"There are {_listing(disjoint)}."
        )
    return [blocks.index(name) for name in chosen]


def block_label(choice: BlockChoice) -> str:
    """A short name for tables and titles.

    >>> block_label(["a", "b"])
    'a+b'
    """
    if isinstance(choice, str):
        return choice
    return getattr(choice, "__name__", "rule") if callable(choice) else "+".join(choice)


def _unknown(name: object, blocks: Sequence[str]) -> SettingError:
    near = get_close_matches(str(name), blocks, n=3, cutoff=0.4)
    hint = f"Nearest: {', '.join(near)}." if near else f"There are {_listing(blocks)}."
    return SettingError(f"block must be in the recording; got {name!r}. {hint}")


def _listing(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
