"""Texts to token ids, with the tokens of each whitespace-delimited word remembered.

A tokenizer of the BERT family works on one word at a time: the tokens of a text are those of its words, one after the
other. `WordTokenizer` looks words up in a bounded cache and tokenizes only new ones. Texts and tokenizers for which
that would not be exact take the direct path.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from retrieval.encoders.bert import BertWords, splits_into_words, tokenize

IntArray = NDArray[np.int64]
TokenArray = NDArray[np.int32]

# Python splits at these, BERT deletes them and joins what is left and right.
_UNLIKE_SPLITS = "\x0b\x0c\x1c\x1d\x1e\x1f\x85"
_LONG_TEXT = 2**20
_TOKEN_BYTES = 4


class WordTokenizer:
    """Tokenizes texts without special tokens, truncation or padding. Safe to call from several threads.

    Args:
        tokenizer: A tokenizer with truncation and padding switched off.
        max_words: Words remembered, give or take those of one call; when more come, the cache starts again.
        max_characters: Characters of all words remembered, give or take those of one call.
    """

    def __init__(self, tokenizer: Tokenizer, max_words: int = 2**19, max_characters: int = 2**24) -> None:
        self._tokenizer = tokenizer
        self._bert = BertWords(tokenizer) if splits_into_words(tokenizer) else None
        self._max_words = max_words
        self._max_characters = max_characters
        self._lock = threading.Lock()
        # int32 token ids as bytes: joining those of the words of a text is the whole work, and C does it.
        self._known: dict[str, bytes] = {}
        self._characters = 0

    def __len__(self) -> int:
        """Words remembered."""
        return len(self._known)

    def tokenize(self, texts: Sequence[str]) -> tuple[TokenArray, IntArray]:
        """Token ids of all texts behind each other, and where each text starts.

        Args:
            texts: Texts; their new words are tokenized together, so hand over more than one at a time.

        Returns:
            int32 ids (tokens,) and int64 offsets (texts + 1,): text ``i`` has ``ids[offsets[i]:offsets[i + 1]]``.
        """
        parts = self._packed(texts)
        offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64) // _TOKEN_BYTES
        return np.frombuffer(b"".join(parts), np.int32), offsets

    def count(self, text: str) -> int:
        """Number of tokens of a text."""
        [packed] = self._packed([text])
        return len(packed) // _TOKEN_BYTES

    def _packed(self, texts: Sequence[str]) -> list[bytes]:
        try:
            # Split and looked up at once, a text at a time: keeping all words of a block costs half as much again.
            return [self._looked_up(text, self._known) for text in texts]
        except KeyError:
            words = {word for text in texts if self._is_plain(text) for word in text.split()}
            known = self._learn(words)
            return [self._looked_up(text, known) for text in texts]

    def _looked_up(self, text: str, known: dict[str, bytes]) -> bytes:
        return b"".join(map(known.__getitem__, text.split())) if self._is_plain(text) else self._direct(text)

    def _is_plain(self, text: str) -> bool:
        if self._bert is None or len(text) > _LONG_TEXT:
            return False
        return not any(character in text for character in _UNLIKE_SPLITS)

    def _direct(self, text: str) -> bytes:
        return np.array(tokenize([text], self._tokenizer)[0], np.int32).tobytes()

    def _learn(self, words: set[str]) -> dict[str, bytes]:
        """The cache, with all ``words`` in it."""
        assert self._bert is not None
        with self._lock:
            new = words.difference(self._known)
            self._characters += sum(map(len, new))
            if len(self._known) + len(new) > self._max_words or self._characters > self._max_characters:
                # Whoever still reads the old cache keeps it until done.
                self._known, new = {}, words
                self._characters = sum(map(len, words))
            ordered = sorted(new)
            self._known.update(zip(ordered, map(_pack, self._bert.tokenize(ordered)), strict=True))
            return self._known


def _pack(ids: Iterable[int]) -> bytes:
    return array("i", ids).tobytes()
