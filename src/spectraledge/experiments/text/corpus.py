"""Tokens of a text, cut into what is trained on and what is held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, SettingError
from .sources import read_texts
from .tokenization import Tokenizer, make_tokenizer

# Second word of the seed of the placebo's generator: a stream that no other use of a run's seed shares.
_PLACEBO_STREAM = 1


@dataclass(frozen=True)
class Documents:
    """Documents laid end to end; document i is ``tokens[offsets[i]:offsets[i + 1]]``.

    Attributes:
        tokens: Token numbers, ``(n,)``, int32. No end of text stands between documents.
        offsets: Where documents begin, and where the last one ends, ``(d + 1,)``, int64.
    """

    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


@dataclass(frozen=True)
class Corpus:
    """A tokenised text.

    Attributes:
        train: What is trained on.
        val: What is held out.
        vocab_size: Number of token numbers, the end of text among them.
        end: Number of the end of text.
        tokenizer: Text to numbers and back.
    """

    train: Documents
    val: Documents
    vocab_size: int
    end: int
    tokenizer: Tokenizer


def build_corpus(
    text: str,
    *,
    tokenizer: str | Tokenizer = "bpe",
    vocab_size: int = 2048,
    val_fraction: float = 0.1,
    max_documents: tuple[int, int] | None = None,
    shuffled: bool = False,
    seed: int = 0,
) -> Corpus:
    """Read, cut and tokenise a text.

    A file is one stream, whose first part is trained on and whose last ``val_fraction`` is held out. A row of a
    data set is one document; its own validation rows are held out where it has them, else its last rows.

    Args:
        text: Files, folders or globs with commas between them, or "hf:NAME[:SPLIT]": see ``read_texts``.
        tokenizer: What ``make_tokenizer`` takes, or the tokenizer of another corpus. "bpe" learns from the
            training part alone.
        vocab_size: Size of the vocabulary that "bpe" learns.
        val_fraction: Share of each file, or of the rows of a data set without validation rows, that is held out.
        max_documents: At most so many documents, the first ones, in train and val.
        shuffled: The placebo: all tokens, train and val together, permuted uniformly. Documents keep their
            lengths and tokens their frequencies, and the order that could be learnt and carried over is gone.
        seed: Seed of that permutation.

    Raises:
        SettingError: If text is empty or a setting cannot be.
        DataError: If the text cannot be read, or leaves nothing to train on or to hold out.
        MissingDependencyError: If ``tokenizers`` or ``datasets`` is needed and not installed.
    """
    if not 0 < val_fraction < 1:
        raise SettingError(f"val_fraction must lie between 0 and 1; got {val_fraction}. Use val_fraction=0.1.")
    if max_documents is not None and min(max_documents) < 1:
        raise SettingError(
            f"max_documents must be at least 1 for train and val; got {max_documents}. Leave it out to read all."
        )
    texts = read_texts(text, val_fraction, max_documents)
    chosen = make_tokenizer(tokenizer, texts.train, vocab_size) if isinstance(tokenizer, str) else tokenizer
    train, val = _documents(chosen, texts.train), _documents(chosen, texts.val)
    if not len(train.tokens) or not len(val.tokens):
        raise DataError(
            f"text must leave tokens to train on and to hold out; {text!r} leaves {len(train.tokens)} and "
            f"{len(val.tokens)}. Give a longer text."
        )
    if shuffled:
        train, val = _permuted(train, val, seed)
    return Corpus(train, val, chosen.vocab_size, chosen.end, chosen)


def _documents(tokenizer: Tokenizer, texts: Sequence[str]) -> Documents:
    arrays = tokenizer.encode_all(texts)
    offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
    np.cumsum([len(array) for array in arrays], out=offsets[1:])
    return Documents(np.concatenate(arrays) if arrays else np.empty(0, np.int32), offsets)


def _permuted(train: Documents, val: Documents, seed: int) -> tuple[Documents, Documents]:
    together = np.concatenate([train.tokens, val.tokens])
    np.random.default_rng([seed, _PLACEBO_STREAM]).shuffle(together)
    n = len(train.tokens)
    return Documents(together[:n], train.offsets), Documents(together[n:], val.offsets)
