"""Texts to token ids, with the tokens of each whitespace-delimited word remembered.

A tokenizer of the BERT family works on one word at a time: the tokens of a text are those of its words, one after the
other. `WordTokenizer` looks words up in a bounded cache and tokenizes only new ones. Words that an entry with spaces
may reach across are looked up together. Texts and tokenizers for which that would not be exact take the direct path.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from retrieval.encoders.bert import BertWords, spaced_entries, splits_into_words, tokenize
from retrieval.encoders.cache import CacheStatistics
from retrieval.encoders.entries import Entries, Memory

IntArray = NDArray[np.int64]
TokenArray = NDArray[np.int32]

_LONG_TEXT = 2**20
_TOKEN_BYTES = 4
_ENTRY_BYTES = 49 + 33 + 104  # a string, a bytes object and their place in a dictionary


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
        self._entries = spaced_entries(tokenizer) if self._bert is not None else None
        self._max_words = max_words
        self._max_characters = max_characters
        self._lock = threading.Lock()
        # int32 token ids as bytes: joining those of the words of a text is the whole work, and C does it.
        self._memory = Memory()
        self._characters = 0
        self._hits = self._misses = self._restarts = 0

    @property
    def bert(self) -> BertWords | None:
        """Makes the tokens of single words, ``None`` where texts do not fall apart into words."""
        return self._bert

    @property
    def entries(self) -> Entries | None:
        """Entries with spaces, ``None`` when there are none."""
        return self._entries

    @property
    def statistics(self) -> CacheStatistics:
        """What the cache has done so far."""
        size = self._characters + len(self._memory) * (_ENTRY_BYTES + 2 * _TOKEN_BYTES)
        return CacheStatistics(self._hits, self._misses, len(self._memory), size, self._restarts)

    def __len__(self) -> int:
        """Words remembered, and what is remembered of those around them."""
        return len(self._memory)

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

    def ids(self, text: str) -> TokenArray:
        """Token ids of one text, int32 (tokens,)."""
        [packed] = self._packed([text])
        return np.frombuffer(packed, np.int32)

    def count(self, text: str) -> int:
        """Number of tokens of a text."""
        [packed] = self._packed([text])
        return len(packed) // _TOKEN_BYTES

    def counts(self, texts: Sequence[str]) -> IntArray:
        """Number of tokens of each text, int64 (texts,)."""
        return np.fromiter(map(len, self._packed(texts)), np.int64, len(texts)) // _TOKEN_BYTES

    def learn(self, texts: Sequence[str]) -> None:
        """Remember the words of these texts, tokenized in one go."""
        if plain := [text for text in texts if self._is_plain(text)]:
            self._learn(plain)

    def _packed(self, texts: Sequence[str]) -> list[bytes]:
        memory = self._memory
        try:
            # Split and looked up at once, a text at a time: keeping all words of a block costs half as much again.
            return [self._looked_up(text, memory) for text in texts]
        except KeyError:
            memory = self._learn([text for text in texts if self._is_plain(text)])
            return [self._looked_up(text, memory) for text in texts]

    def _looked_up(self, text: str, memory: Memory) -> bytes:
        if not self._is_plain(text):
            return self._direct(text)
        words = text.split()
        packed = b"".join(map(memory.tokens.__getitem__, words))
        self._hits += len(words)
        if self._entries is None:
            return packed
        # Only now that all words are known to be learned: another thread may be learning them.
        pieces = self._entries.pieces(text, words, memory)
        return packed if pieces is words else b"".join(map(memory.tokens.__getitem__, pieces))

    def _is_plain(self, text: str) -> bool:
        if self._bert is None or len(text) > _LONG_TEXT:
            return False
        # Python splits at these, BERT deletes them and joins what is left and right. Written out, because a loop over
        # them takes six times as long, which a short text would notice.
        return not (
            "\x0b" in text
            or "\x0c" in text
            or "\x1c" in text
            or "\x1d" in text
            or "\x1e" in text
            or "\x1f" in text
            or "\x85" in text
        )

    def _direct(self, text: str) -> bytes:
        return np.array(tokenize([text], self._tokenizer)[0], np.int32).tobytes()

    def _learn(self, texts: Sequence[str]) -> Memory:
        """The memory, with everything in it that these texts need."""
        assert self._bert is not None
        words = {word for text in texts for word in text.split()}
        with self._lock:
            new = words.difference(self._memory.tokens)
            self._characters += sum(map(len, new))
            self._misses += len(new)
            if len(self._memory) + len(new) > self._max_words or self._characters > self._max_characters:
                # Whoever still reads the old memory keeps it until done.
                self._memory, new = Memory(), words
                self._restarts += 1
                self._characters = sum(map(len, words))
            memory = self._memory
            if self._entries is not None:
                # Before the tokens: whoever finds all words of a text there may rely on the rest.
                self._entries.learn_words(new, memory)
            ordered = sorted(new)
            memory.tokens.update(zip(ordered, map(_pack, self._bert.tokenize(ordered)), strict=True))
            if self._entries is not None:
                self._learn_pieces(texts, memory)
            return memory

    def _learn_pieces(self, texts: Sequence[str], memory: Memory) -> None:
        assert self._entries is not None
        pieces: set[str] = set()
        for text in texts:
            words = text.split()
            self._entries.learn_gaps(words, memory)
            pieces.update(self._entries.pieces(text, words, memory))
        ordered = sorted(pieces.difference(memory.tokens))
        memory.tokens.update(zip(ordered, map(_pack, tokenize(ordered, self._tokenizer)), strict=True))
        self._characters += sum(map(len, ordered))


def _pack(ids: Iterable[int]) -> bytes:
    return array("i", ids).tobytes()
