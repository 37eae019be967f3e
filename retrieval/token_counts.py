"""How many tokens texts have, answered from a table of words where a tokenizer adds up over words.

Cutting a document asks for the length of thousands of overlapping stretches of it, and counting is what costs time.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

CountMany = Callable[[Sequence[str]], NDArray[np.int64]]
"""Tokens of each of some texts, int64 (texts,)."""

_REMEMBERED_CHARACTERS = 48
_REMEMBERED_COUNTS = 300_000
_SPLIT_ALONE = (
    re.escape(string.punctuation)
    + "\u2010-\u2027\u3001-\u3003\u3008-\u3011\u3400-\u4dbf\u4e00-\u9fff\uff01\uff0c\uff1a\uff1b\uff1f"
)
_FINE = re.compile(rf"[{_SPLIT_ALONE}]|[^{_SPLIT_ALONE}]+")
_COARSE = re.compile(r"[ \t\r\n]*[^ \t\r\n]+|[ \t\r\n]+")
_ODD_SPACE = re.compile("[\x0b\x0c\x1c-\x1f\x85]")
_PROBES = (
    "Leaking pipe, not broken! (See §3.2; it's 45% “well-known”...)\n\n- unsplittable: a_b/c@d.e #tag",
    "  Two  spaces\tand\r\nlines\n\n\n  çédille 東京タワーは、高い。 नमस्ते 😀e\u0301 ",
    "pneumonoultramicroscopicsilicovolcanoconiosis??--==\"x\"'s I'm we'll",
)


class _Counts(dict[str, int]):
    """Token counts of short texts, filled on demand and emptied when full."""

    def __init__(self, count: Callable[[str], int]) -> None:
        super().__init__()
        self._count = count

    def __missing__(self, text: str) -> int:
        tokens = self._count(text)
        if len(text) <= _REMEMBERED_CHARACTERS:
            self.make_room(1)
            self[text] = tokens
        return tokens

    def make_room(self, more: int) -> None:
        """Forget everything where ``more`` would be too many."""
        if len(self) + more > _REMEMBERED_COUNTS:
            self.clear()


class TokenCounter:
    """Counts the tokens of a text as those of its words, where ``additive`` says that this is the same."""

    def __init__(self, count: Callable[[str], int]) -> None:
        self._exact = count
        self._fine = _Counts(count)
        self._coarse = _Counts(count)
        self._words = _Counts(self._count_fine)
        self.additive = False
        self.count = count

    def learn(self, texts: Sequence[str], count_many: CountMany) -> None:
        """Fill the tables for some texts, so that their words are not counted one by one."""
        if self.count != self.count_words:
            return
        # Not the difference of sets, which goes through the whole table.
        words = {word for text in texts for word in text.split() if word not in self._words}
        pieces = {piece for word in words for piece in _FINE.findall(word)}
        new = sorted(each for each in pieces if each not in self._fine and len(each) <= _REMEMBERED_CHARACTERS)
        self._fine.make_room(len(new))
        self._fine.update(zip(new, count_many(new).tolist(), strict=True))

    def count_words(self, text: str) -> int:
        """Words as `str.split` parts them."""
        # Tokenizers that drop control characters join what they separate; str.split() would not.
        if _ODD_SPACE.search(text):
            return self._exact(text)
        return sum(map(self._words.__getitem__, text.split()))

    def count_coarse(self, text: str) -> int:
        """Words with the whitespace before them."""
        return sum(map(self._coarse.__getitem__, _COARSE.findall(text)))

    def _count_fine(self, word: str) -> int:
        return sum(map(self._fine.__getitem__, _FINE.findall(word)))


def token_counter(count: Callable[[str], int]) -> TokenCounter:
    """One that adds up counts of words where a few hard texts show that this is the same, else the counter itself."""
    counter = TokenCounter(count)
    probes = [text for probe in _PROBES for text in (probe, probe.strip())]
    expected = [count(text) for text in probes]
    for fast in (counter.count_words, counter.count_coarse):
        if [fast(text) for text in probes] == expected:
            counter.additive, counter.count = True, fast
            break
    return counter
