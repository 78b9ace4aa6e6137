"""SCAN's commands and what they mean: 20,910 commands from a grammar of four rules.

Source: Lake and Baroni 2018 (arXiv:1711.00350), grammar and interpretation; every line of the official simple split
agrees.
"""

from __future__ import annotations

from collections.abc import Iterator

COMMAND_WORDS = (
    *("walk", "look", "run", "jump", "turn"),
    *("left", "right", "opposite", "around"),
    *("twice", "thrice", "and", "after"),
)
ACTION_WORDS = ("I_WALK", "I_LOOK", "I_RUN", "I_JUMP", "I_TURN_LEFT", "I_TURN_RIGHT")

# Of the longest command and the longest action sequence, in words.
LONGEST_COMMAND = 9
LONGEST_ACTIONS = 48

Words = tuple[str, ...]

_ACTS: dict[str, Words] = {word: (f"I_{word.upper()}",) for word in ("walk", "look", "run", "jump")}


def scan_meanings() -> dict[str, str]:
    """Action sequence of every command, both as words with one space between.

    ``u d`` turns before it acts, ``u opposite d`` turns twice, ``u around d`` does ``u d`` four times; "turn" acts
    by turning alone. "twice" and "thrice" repeat; ``x and y`` does x, then y; ``x after y`` does y, then x.

    Returns:
        102 single phrases, and two joins of each pair of them: 20,910 commands, in no meaningful order.

    Example:
        >>> meanings = scan_meanings()
        >>> len(meanings)
        20910
        >>> meanings["walk after turn opposite left twice"]
        'I_TURN_LEFT I_TURN_LEFT I_TURN_LEFT I_TURN_LEFT I_WALK'
    """
    phrases = dict(_phrases())
    meanings = dict(phrases)
    for x, first in phrases.items():
        for y, second in phrases.items():
            meanings[f"{x} and {y}"] = first + second
            meanings[f"{x} after {y}"] = second + first
    return {command: " ".join(actions) for command, actions in meanings.items()}


def _phrases() -> Iterator[tuple[str, Words]]:
    """Verb phrases once, twice and thrice."""
    for phrase, actions in _verb_phrases():
        yield phrase, actions
        yield f"{phrase} twice", actions * 2
        yield f"{phrase} thrice", actions * 3


def _verb_phrases() -> Iterator[tuple[str, Words]]:
    yield from _ACTS.items()
    nothing: Words = ()
    for verb, act in {**_ACTS, "turn": nothing}.items():
        for side in ("left", "right"):
            turn = (f"I_TURN_{side.upper()}",)
            yield f"{verb} {side}", turn + act
            yield f"{verb} opposite {side}", turn * 2 + act
            yield f"{verb} around {side}", (turn + act) * 4
