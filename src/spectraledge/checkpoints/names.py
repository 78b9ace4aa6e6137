"""The training step that a checkpoint's name tells. Pure functions of names; nothing is opened."""

from __future__ import annotations

import re

from ..errors import SettingError

SUFFIX = ".safetensors"
SUFFIXES = (SUFFIX, ".pt", ".pth", ".bin", ".ckpt")
_LARGEST = 2**53  # exact in every JSON reader; longer runs of digits are hashes, not steps

# First match wins, so that the epoch in "epoch=3-step=1200" and the tokens in "step-001000-2BT" are not taken.
_PATTERNS = tuple(
    re.compile(pattern, re.ASCII | re.IGNORECASE)
    for pattern in (
        r"(?:^|[^a-z])(?:global[-_]?)?steps?[-_=]?(\d+)",
        r"(?:^|[^a-z])(?:checkpoint|ckpt|iter|iteration)[-_=]?(\d+)",
        r"^(\d+)$",
        r"[-_.=](\d+)$",
    )
)
# One part of a checkpoint that was cut into several files: its numbers count parts.
_SHARD = re.compile(r"-\d{4,}-of-\d{4,}$", re.ASCII)


def stem(name: str) -> str:
    """The name without the ending of a file of weights."""
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


def is_shard(name: str) -> bool:
    """Whether a file is one part of a sharded checkpoint, as in ``model-00001-of-00003.safetensors``."""
    return _SHARD.search(stem(name)) is not None


def says_step(name: str) -> bool:
    """Whether a name speaks of a step or checkpoint, and does not merely end in a number.

    Example:
        >>> says_step("checkpoint-100"), says_step("logs-2")
        (True, False)
    """
    return any(pattern.search(stem(name)) for pattern in _PATTERNS[:-1])


def step_of(name: str, step_regex: str | None = None) -> int | None:
    """The step in the name of a checkpoint file or folder; None where there is none.

    Args:
        name: The last part of a path.
        step_regex: Searched in ``name`` instead of the built-in forms; its group ``step``, else its first group,
            else the whole match, is the number.

    Raises:
        SettingError: If ``step_regex`` is no regular expression, or matches something that is no whole number.

    Example:
        >>> [step_of(name) for name in ("step-100.safetensors", "step-001000-2BT", "epoch=3-step=1200", "final")]
        [100, 1000, 1200, None]
        >>> step_of("run7-1e3-00250", step_regex=r"-(\\d+)$")
        250
    """
    if step_regex is not None:
        return _by_regex(name, step_regex)
    for pattern in _PATTERNS:
        found = pattern.search(stem(name))
        if found:
            number = int(found[1]) if len(found[1]) <= 16 else _LARGEST + 1
            return number if number <= _LARGEST else None
    return None


def _by_regex(name: str, step_regex: str) -> int | None:
    try:
        found = re.search(step_regex, name)
    except re.error as error:
        raise SettingError(
            f"step_regex must be a regular expression; got {step_regex!r}: {error}. "
            r"Write for example step_regex='step-(\d+)'."
        ) from error
    if found is None:
        return None
    text = found["step"] if "step" in found.groupdict() else found[1] if found.re.groups else found[0]
    if text is None or not re.fullmatch(r"\d{1,16}", text, re.ASCII) or int(text) > _LARGEST:
        raise SettingError(
            f"step_regex must pick a whole number out of a name; {step_regex!r} picks {text!r} out of {name!r}. "
            r"Put the digits into a group: step_regex='step-(\d+)'."
        )
    return int(text)
