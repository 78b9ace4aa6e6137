"""Which commands a SCAN run is trained and tested on, and their token ids.

Source: the SCAN runs of arXiv:2603.28964 (subsets, padding and targets as described there). The official split cannot
be derived; where no files are given a seeded one of the same sizes stands in for it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import DataError
from ..models.scan import EOS, PAD, SOS
from ..settings.scan import N_LINES, ScanSettings
from .scan_grammar import ACTION_WORDS, COMMAND_WORDS, LONGEST_ACTIONS, LONGEST_COMMAND, scan_meanings

# What cross-entropy leaves out, by torch's default.
IGNORED = -100

# Second word of the seed of the generators of the placebo and of our own split: streams that no other use of these
# seeds shares.
_PLACEBO_STREAM = 1
_SPLIT_STREAM = 4

# Two more than the longest, as in the published runs: the network may read the padding.
COMMAND_COLUMNS = LONGEST_COMMAND + 2
ACTION_COLUMNS = LONGEST_ACTIONS + 2

_OFFICIAL = "Use tasks_train_simple.txt and tasks_test_simple.txt of SCAN's simple split."

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class ScanLines:
    """Some commands with their actions, int64.

    Attributes:
        commands: ``(n, 11)`` words, then PAD.
        inputs: ``(n, 50)`` SOS and the actions, then PAD.
        targets: ``(n, 50)`` the actions and EOS, then IGNORED.
        lengths: ``(n,)`` actions and EOS together.
    """

    commands: Integers
    inputs: Integers
    targets: Integers
    lengths: Integers


def scan_data(settings: ScanSettings) -> tuple[ScanLines, ScanLines]:
    """Training and test lines.

    Example:
        >>> train, test = scan_data(ScanSettings())
        >>> train.commands.shape, test.commands.shape
        ((2048, 11), (500, 11))
    """
    meanings = scan_meanings()
    train, test = scan_split(settings, meanings)
    if settings.labels == "shuffled":
        meanings = shuffled_meanings(meanings, settings.seed)
    return _lines(train, meanings), _lines(test, meanings)


def shuffled_meanings(meanings: Mapping[str, str], seed: int) -> dict[str, str]:
    """The placebo: action sequences permuted among all commands, train and test together.

    By a generator of its own. Every sequence stays as frequent as it was, and what a command says tells nothing about
    what is to be done; so that beyond the frequencies only the training set can be learned, by heart.
    """
    commands = sorted(meanings)
    order = np.random.default_rng([seed, _PLACEBO_STREAM]).permutation(len(commands))
    return {command: meanings[commands[i]] for command, i in zip(commands, order.tolist())}


def scan_split(settings: ScanSettings, meanings: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Commands trained on and commands tested on.

    Of the 16,728 training lines the first ``n_train`` are taken after Python's ``random.Random(data_seed)`` has
    shuffled them, of the 4,182 test lines the first ``n_test`` of ``torch.randperm`` with the same seed. The lines
    are those of the files, or all commands in alphabetical order permuted by a generator of their own and cut there.

    Args:
        settings: Files, sizes and seed.
        meanings: Of all commands.

    Raises:
        DataError: If a file cannot be read, holds anything but commands and what they mean, or too few of them; or
            if a command stands in both files.
    """
    if settings.train_file is None or settings.test_file is None:
        commands = sorted(meanings)
        mixed = np.random.default_rng([settings.data_seed, _SPLIT_STREAM]).permutation(len(commands))
        everything = [commands[i] for i in mixed.tolist()]
        train, test = everything[: N_LINES["train"]], everything[N_LINES["train"] :]
    else:
        train, test = (read_scan_file(path, meanings) for path in (settings.train_file, settings.test_file))
        both = set(train) & set(test)
        if both:
            raise DataError(
                f"no command may stand in train_file and in test_file; got {len(both)} in both, {min(both)!r} one of "
                f"them. {_OFFICIAL}"
            )
    for name, wanted, found in (("n_train", settings.n_train, train), ("n_test", settings.n_test, test)):
        if wanted > len(found):
            raise DataError(f"{name} must be at most the {len(found)} lines of its file; got {wanted}. Use fewer.")
    order = list(range(len(train)))
    random.Random(settings.data_seed).shuffle(order)
    tested = torch.randperm(len(test), generator=torch.Generator().manual_seed(settings.data_seed))
    return [train[i] for i in order[: settings.n_train]], [test[i] for i in tested[: settings.n_test].tolist()]


def read_scan_file(path: str, meanings: Mapping[str, str]) -> list[str]:
    """Commands of a file of lines ``IN: command OUT: actions``; blank lines are passed over.

    Raises:
        DataError: If it cannot be read or a line is anything else, wrong actions included.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DataError(f"a SCAN file must be readable text; got {path} ({reason}). {_OFFICIAL}") from None
    commands = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        start, out, actions = line.strip().partition(" OUT: ")
        command = start.removeprefix("IN: ")
        if not out or command == start:
            raise DataError(
                f'line {number} of {path} must read "IN: command OUT: actions"; got {line[:80]!r}. {_OFFICIAL}'
            )
        if meanings.get(command) != actions:
            raise DataError(
                f"line {number} of {path} must hold a command of SCAN's grammar and the actions it stands for; got "
                f"{line[:80]!r}. {_OFFICIAL}"
            )
        commands.append(command)
    return commands


def _lines(commands: Sequence[str], meanings: Mapping[str, str]) -> ScanLines:
    words = {word: EOS + 1 + i for i, word in enumerate(COMMAND_WORDS)}
    acts = {word: EOS + 1 + i for i, word in enumerate(ACTION_WORDS)}
    sources = [[words[word] for word in command.split()] for command in commands]
    actions = [[acts[word] for word in meanings[command].split()] for command in commands]
    return ScanLines(
        _padded(sources, COMMAND_COLUMNS, PAD),
        _padded(([SOS, *sequence] for sequence in actions), ACTION_COLUMNS, PAD),
        _padded(([*sequence, EOS] for sequence in actions), ACTION_COLUMNS, IGNORED),
        np.array([len(sequence) + 1 for sequence in actions]),
    )


def _padded(rows: Iterable[Sequence[int]], columns: int, fill: int) -> Integers:
    return np.array([[*row, *[fill] * (columns - len(row))] for row in rows], dtype=np.int64)
