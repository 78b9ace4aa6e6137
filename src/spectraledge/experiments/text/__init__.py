"""Text for the language models: sources, tokenizers and the corpus they make."""

from .corpus import Corpus, Documents, build_corpus
from .tokenization import ByteTokenizer, Tokenizer, make_tokenizer

__all__ = ["ByteTokenizer", "Corpus", "Documents", "Tokenizer", "build_corpus", "make_tokenizer"]
