"""Balanced bracket sequences and the depth after each bracket, with what the training set gives away.

Source: the Dyck runs of arXiv:2603.28964 (generator, seed and split as described there; they name the task Dyck-2 in
one place, but there is one kind of bracket). The de-duplicated test set and the unseen prefixes are ours.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..settings.dyck import DyckSettings

OPEN, CLOSE, PAD = 0, 1, 2

# What cross-entropy leaves out, by torch's default.
IGNORED = -100

# Chance of an opening bracket where a closing one is allowed too.
OPEN_PROBABILITY = 0.55

# Second word of the seed of the placebo's generator: a stream that no other use of the run's seed shares.
_PLACEBO_STREAM = 1

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class DyckData:
    """Every distinct sequence once, and how often it stands in either set.

    A causal model's output at a position depends on the prefix that ends there and on nothing else, so two positions
    with the same prefix are one example. Rows and prefixes are numbered as they first appear, training set first.

    Attributes:
        tokens: ``(n, context)`` OPEN, CLOSE or PAD.
        targets: ``(n, context)`` depth after the token; IGNORED at PAD.
        prefixes: ``(n, context)`` number of the prefix that ends there; -1 at PAD.
        order: ``(n_train + n_test)`` row of each sequence, training set first.
        n_train: Sequences in the training set.
    """

    tokens: Integers
    targets: Integers
    prefixes: Integers
    order: Integers
    n_train: int

    @property
    def train_counts(self) -> Integers:
        """``(n,)`` how often each row stands in the training set."""
        return np.bincount(self.order[: self.n_train], minlength=len(self.tokens))

    @property
    def test_counts(self) -> Integers:
        """``(n,)`` how often each row stands in the test set."""
        return np.bincount(self.order[self.n_train :], minlength=len(self.tokens))

    @property
    def fresh(self) -> NDArray[np.bool_]:
        """``(n,)`` whether a row is a test sequence that is not in the training set."""
        return self.train_counts == 0

    @property
    def scored(self) -> NDArray[np.bool_]:
        """``(n, context)`` whether a position holds a bracket."""
        return self.tokens != PAD

    @property
    def unseen(self) -> NDArray[np.bool_]:
        """``(n, context)`` whether a position's prefix is the beginning of no training sequence."""
        return self.prefixes > self.prefixes[self.order[: self.n_train]].max()


def dyck_sequences(settings: DyckSettings) -> list[tuple[int, ...]]:
    """All sequences, the training set first.

    One ``random.Random(data_seed)`` makes them: the number of pairs is uniform over 1..max_pairs; where both brackets
    are possible one more number decides, and a forced bracket takes none. ``torch.randperm`` with the same seed then
    orders them, and the first ``n_train`` are the training set.

    Example:
        >>> sequences = dyck_sequences(DyckSettings())
        >>> len(sequences), len(set(sequences)), "".join("()"[token] for token in sequences[1])
        (5050, 2249, '()()(((())))')
    """
    rng, n = random.Random(settings.data_seed), settings.n_train + settings.n_test
    sequences = [_sequence(rng, settings.max_pairs) for _ in range(n)]
    order = torch.randperm(n, generator=torch.Generator().manual_seed(settings.data_seed))
    return [sequences[i] for i in order.tolist()]


def _sequence(rng: random.Random, max_pairs: int) -> tuple[int, ...]:
    left, depth, tokens = rng.randint(1, max_pairs), 0, []
    while left or depth:
        opens = rng.random() < OPEN_PROBABILITY if left and depth else bool(left)
        tokens.append(OPEN if opens else CLOSE)
        left, depth = (left - 1, depth + 1) if opens else (left, depth - 1)
    return tuple(tokens)


def dyck_data(settings: DyckSettings) -> DyckData:
    """Distinct sequences, depths and prefixes.

    With ``labels="shuffled"`` the depths of the distinct prefixes, train and test together, are permuted by a
    generator of their own. Prefixes and not positions: the same prefix with different labels could not be memorised.
    Every class keeps its frequency among distinct prefixes, and the prefixes in the training set tell nothing about
    those that are not.

    Example:
        >>> data = dyck_data(DyckSettings())
        >>> data.tokens.shape, int(data.train_counts.astype(bool).sum()), int(data.prefixes.max()) + 1
        ((2249, 24), 36, 15737)
    """
    sequences = dyck_sequences(settings)
    rows = {sequence: row for row, sequence in enumerate(dict.fromkeys(sequences))}
    shape = len(rows), settings.context
    tokens, prefixes = np.full(shape, PAD), np.full(shape, -1)
    # Nodes of the tree of prefixes by parent and last bracket; the depth of each.
    nodes: dict[tuple[int, int], int] = {}
    depths: list[int] = []
    for sequence, row in rows.items():
        tokens[row, : len(sequence)] = sequence
        node, depth = -1, 0
        for column, token in enumerate(sequence):
            depth += 1 if token == OPEN else -1
            node = nodes.setdefault((node, token), len(nodes))
            if node == len(depths):
                depths.append(depth)
            prefixes[row, column] = node
    labels = np.array(depths)
    if settings.labels == "shuffled":
        labels = np.random.default_rng([settings.seed, _PLACEBO_STREAM]).permutation(labels)
    targets = np.where(prefixes < 0, IGNORED, labels[prefixes])
    order = np.array([rows[sequence] for sequence in sequences])
    return DyckData(tokens, targets, prefixes, order, settings.n_train)
