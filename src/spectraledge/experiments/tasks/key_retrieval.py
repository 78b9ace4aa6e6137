"""Key retrieval: a codeword said near the start of a sequence, and asked for some tokens later.

Source: the probes of the TinyStories runs of arXiv:2603.28964, with sentences of our own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import SettingError
from ..settings.lm import LanguageSettings
from ..text import Tokenizer

# What stands before a codeword and after it, and the question that it answers.
SENTENCES = (
    ("The secret word is", ".", " So the secret word is"),
    ("The name of the ship was", ".", " Now the ship was called"),
    ("Remember this sign:", ".", " The sign was"),
    ("On the old door they wrote", ".", " They read on the door"),
    ("The key to the box is", ".", " The box opens with"),
)

CODEWORDS = 512
_FEWEST_CODEWORDS = 16
_CODEWORD_SEED = 42
_NEAR_SEED, _FAR_SEED = 142, 242

# Tokens that may stand before the key sentence.
_FIRST_OFFSETS = 8

# Words of capitals with the space that goes before them, long ones if there are enough of these; without the space
# where a vocabulary has next to none.
_SPACED = tuple(re.compile(shape) for shape in (r" [A-Z]{3,}", r" [A-Z]{2,}", r" [A-Z]+"))
_BARE = re.compile(r"[A-Z]+")

# Token numbers that fill test sequences: rare ones and the commonest bytes are left out.
_FILLERS = (100, 5000)

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class RetrievalSet:
    """Test sequences.

    Attributes:
        tokens: ``(n, length)``, int64; what follows a question is its answer and filler.
        asked: Where each question ends, ``(n,)``: the token predicted there should be the codeword.
        codewords: ``(n,)``.
    """

    tokens: Numbers
    asked: Numbers
    codewords: Numbers


class KeyRetrieval:
    """Puts keys and questions into sequences.

    Args:
        tokenizer: Whose single tokens of capitals are the codewords: 512 of them, or all where there are fewer.
        settings: Context, gaps and sizes.

    Attributes:
        codewords: Token numbers of the codewords, ascending.

    Raises:
        SettingError: If there are fewer than 16 codewords, or the context is too short for the largest gap.
    """

    def __init__(self, tokenizer: Tokenizer, settings: LanguageSettings) -> None:
        self._settings = settings
        self._end = tokenizer.end
        found, spaced = _candidates(tokenizer)
        if len(found) < _FEWEST_CODEWORDS:
            raise SettingError(
                f"key retrieval needs at least {_FEWEST_CODEWORDS} single tokens of capital letters; the tokenizer "
                f"has {len(found)}. Use another tokenizer, such as tokenizer=bytes, or probe_share=0."
            )
        rng = np.random.default_rng(_CODEWORD_SEED)
        self.codewords: Numbers = np.sort(rng.choice(found, min(CODEWORDS, len(found)), replace=False))
        space = "" if spaced else " "
        self._sentences = [
            (
                np.array(tokenizer.encode(before + space), dtype=np.int64),
                np.array(tokenizer.encode(after), dtype=np.int64),
                np.array(tokenizer.encode(question + space), dtype=np.int64),
            )
            for before, after, question in SENTENCES
        ]
        self._vocab_size = tokenizer.vocab_size
        largest = max(settings.probe_gap[1], settings.probe_far_gap[1])
        # Two codewords and the offset besides; the last token of a sequence is only predicted.
        needed = _FIRST_OFFSETS + max(sum(map(len, parts)) for parts in self._sentences) + 1 + largest
        if needed > settings.context:
            raise SettingError(
                f"context must hold key, gap and question, {needed} tokens here; got {settings.context}. "
                "Use a longer context, a smaller probe_far_gap, or probe_share=0."
            )

    def inject(
        self, tokens: Numbers, scored: NDArray[np.bool_], gap: tuple[int, int], rng: np.random.Generator
    ) -> tuple[Numbers, NDArray[np.bool_], int]:
        """One sequence with key and question put in, cut to its length.

        Args:
            tokens: ``(length,)``.
            scored: Which of them are text, ``(length,)``, and not padding.
            gap: Least and most tokens of the sequence between key and question.
            rng: Draws sentence, codeword, offset and gap.

        Returns:
            Tokens, what of them is scored, and the position of the answer.
        """
        before, after, question = self._sentences[rng.integers(len(self._sentences))]
        codeword = self.codewords[rng.integers(len(self.codewords))]
        first = int(rng.integers(_FIRST_OFFSETS + 1))
        second = first + int(rng.integers(gap[0], gap[1] + 1))
        key = np.concatenate([before, [codeword], after])
        asked = np.concatenate([question, [codeword]])
        mixed = np.concatenate([tokens[:first], key, tokens[first:second], asked, tokens[second:]])
        yes = np.ones(len(tokens), dtype=bool)
        marks = np.concatenate(
            [scored[:first], yes[: len(key)], scored[first:second], yes[: len(asked)], scored[second:]]
        )
        return mixed[: len(tokens)], marks[: len(tokens)], second + len(key) + len(question)

    def test_set(self, *, far: bool) -> RetrievalSet:
        """Test sequences of random tokens, at the gaps of training or at larger ones; always the same."""
        n, length = self._settings.probe_sequences, self._settings.context + 1
        gap = self._settings.probe_far_gap if far else self._settings.probe_gap
        rng = np.random.default_rng(_FAR_SEED if far else _NEAR_SEED)
        high = min(_FILLERS[1], self._vocab_size)
        # A small vocabulary gives up its first quarter.
        fillers = np.arange(min(_FILLERS[0], high // 4), high)
        # A codeword among them would be a second key, and the end of text would end the first one's.
        fillers = np.setdiff1d(fillers, [*self.codewords, self._end])
        tokens = rng.choice(fillers, size=(n, length))
        scored = np.ones(length, dtype=bool)
        asked = np.empty(n, dtype=np.int64)
        for row in range(n):
            tokens[row], _, answer = self.inject(tokens[row], scored, gap, rng)
            asked[row] = answer - 1
        codewords = tokens[np.arange(n), asked + 1]
        return RetrievalSet(np.ascontiguousarray(tokens[:, : int(asked.max()) + 1]), asked, codewords)


def _candidates(tokenizer: Tokenizer) -> tuple[Numbers, bool]:
    """Single tokens of capitals, ascending, and whether a space begins them."""
    words = {token: tokenizer.decode([token]) for token in range(tokenizer.vocab_size)}

    def of(shape: re.Pattern[str]) -> Numbers:
        fitting = (token for token, word in words.items() if shape.fullmatch(word))
        return np.array([token for token in fitting if tokenizer.encode(words[token]) == [token]], dtype=np.int64)

    for shape in _SPACED:
        found = of(shape)
        if len(found) >= CODEWORDS:
            return found, True
    # The last shape takes in the others.
    if len(found) >= _FEWEST_CODEWORDS:
        return found, True
    return of(_BARE), False
