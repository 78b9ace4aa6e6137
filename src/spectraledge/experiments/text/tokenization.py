"""Text to token numbers and back: bytes, a byte-pair vocabulary learnt here, or one that exists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, MissingDependencyError, SettingError, require

END_OF_TEXT = "<|endoftext|>"

# How published vocabularies call the token between two documents, the commonest first.
_END_NAMES = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "[SEP]")

# Characters encoded at a time. An encoding carries about 200 bytes a token besides its number, so that a long
# text encoded as one piece would need gigabytes.
_PIECE = 32_768
_PIECES_AT_ONCE = 64


class Tokenizer(Protocol):
    """What a corpus asks of a tokenizer.

    Attributes:
        vocab_size: Number of token numbers, the end of text among them.
        end: Number of the end of text.
    """

    vocab_size: int
    end: int

    def encode(self, text: str) -> list[int]:
        """Token numbers of a text; no end of text is added."""
        ...

    def decode(self, tokens: list[int]) -> str:
        """Text of token numbers, ends of text left out."""
        ...

    def encode_all(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Token numbers of many texts, which may be long."""
        ...


class ByteTokenizer:
    """The 256 bytes of UTF-8 and an end of text.

    Example:
        >>> tokenizer = ByteTokenizer()
        >>> tokenizer.encode("gap"), tokenizer.decode([103, 97, 112, tokenizer.end])
        ([103, 97, 112], 'gap')
    """

    vocab_size = 257
    end = 256

    def encode(self, text: str) -> list[int]:
        """Bytes of a text."""
        return list(text.encode("utf-8"))

    def decode(self, tokens: list[int]) -> str:
        """Text of bytes; what is no UTF-8 becomes the replacement character."""
        return bytes(token for token in tokens if token != self.end).decode("utf-8", errors="replace")

    def encode_all(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Bytes of many texts."""
        return [np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int32) for text in texts]


class VocabularyTokenizer:
    """A tokenizer of the ``tokenizers`` library.

    The end of text is the one its vocabulary has under a usual name; where it has none, the number after its last.

    Args:
        inner: A ``tokenizers.Tokenizer``.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        size = inner.get_vocab_size()
        known = (inner.token_to_id(name) for name in _END_NAMES)
        self.end: int = next((number for number in known if number is not None), size)
        # The largest number counts, not how many there are: vocabularies with holes exist.
        self.vocab_size: int = max(max(inner.get_vocab().values(), default=0), self.end) + 1

    def encode(self, text: str) -> list[int]:
        """Token numbers of a text."""
        return list(self._inner.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: list[int]) -> str:
        """Text of token numbers."""
        kept = [int(token) for token in tokens if token != self.end]
        return str(self._inner.decode(kept, skip_special_tokens=False))

    def encode_all(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Token numbers of many texts, each cut before a line into pieces that are encoded by themselves."""
        pieces = [(index, piece) for index, text in enumerate(texts) for piece in _pieces(text)]
        found: list[list[NDArray[np.int32]]] = [[] for _ in texts]
        for start in range(0, len(pieces), _PIECES_AT_ONCE):
            part = pieces[start : start + _PIECES_AT_ONCE]
            encodings = self._inner.encode_batch_fast([piece for _, piece in part], add_special_tokens=False)
            for (index, _), encoding in zip(part, encodings):
                found[index].append(np.asarray(encoding.ids, dtype=np.int32))
        return [np.concatenate(arrays) if arrays else np.empty(0, np.int32) for arrays in found]


def _pieces(text: str) -> list[str]:
    """Pieces of at most about ``_PIECE`` characters, each but the first beginning at a line where there is one."""
    pieces, start = [], 0
    while start < len(text):
        stop = start + _PIECE
        if stop < len(text):
            line = text.rfind("\n", start, stop) + 1
            stop = line if line > start else stop
        pieces.append(text[start:stop])
        start = stop
    return pieces


def make_tokenizer(tokenizer: str, texts: Sequence[str], vocab_size: int = 2048) -> Tokenizer:
    """The tokenizer a setting names.

    Args:
        tokenizer: "bytes"; "bpe", byte-level byte pairs learnt from ``texts``; the path of a tokenizer.json;
            or "hf:NAME", downloaded from the Hugging Face hub.
        texts: What "bpe" learns from; the others leave it alone.
        vocab_size: Size of the vocabulary of "bpe", at least 257; a small text can leave it smaller.

    Raises:
        SettingError: If there is no such tokenizer, or vocab_size is too small.
        DataError: If the file or download cannot be read.
        MissingDependencyError: If ``tokenizers`` is needed and not installed.
    """
    if tokenizer == "bytes":
        return ByteTokenizer()
    path = Path(tokenizer)
    if tokenizer != "bpe" and not tokenizer.startswith("hf:") and not path.is_file():
        raise SettingError(
            f'tokenizer must be "bytes", "bpe", a tokenizer.json that exists or "hf:NAME"; got {tokenizer!r}. '
            "Use tokenizer=bpe."
        )
    try:
        library: Any = require("tokenizers", "text")
    except MissingDependencyError as error:
        raise MissingDependencyError(f"{error} Or use tokenizer=bytes, which needs no package.") from error
    if tokenizer == "bpe":
        return _learn_byte_pairs(texts, vocab_size)
    try:
        if tokenizer.startswith("hf:"):
            return VocabularyTokenizer(library.Tokenizer.from_pretrained(tokenizer[3:]))
        return VocabularyTokenizer(library.Tokenizer.from_file(tokenizer))
    # The library raises bare Exception for a file that is no tokenizer and for a download that fails.
    except Exception as error:
        cause = " ".join(str(error).split())[:200]
        raise DataError(
            f"tokenizer must be readable; {tokenizer!r} gave: {cause}. Give the path of another tokenizer.json, "
            "or use tokenizer=bpe."
        ) from error


def _learn_byte_pairs(texts: Sequence[str], vocab_size: int) -> VocabularyTokenizer:
    if vocab_size < 257:
        raise SettingError(
            f"vocab_size must be at least 257, the 256 bytes and the end of text; got {vocab_size}. "
            "Use vocab_size=2048."
        )
    from tokenizers import Tokenizer as Inner
    from tokenizers import decoders, models, pre_tokenizers, trainers

    inner = Inner(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator((piece for text in texts for piece in _pieces(text)), trainer)
    return VocabularyTokenizer(inner)
