"""Entries of a vocabulary that reach across whitespace, such as ``not broken``, beside a cache of single words.

The tokenizer looks for such entries in the whole text. Between two words it can find one only where the left word ends
with a part of an entry and the right word begins with its next part; the text falls apart everywhere else. Words that
hang together in this way are glued to one piece, and the tokenizer itself says what the tokens of a piece are. That
is exact for entries that overlap, and for those that begin or end within a word, which hide others.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

Gap = tuple[str, str]

_WIDE_GAP = re.compile(r"\s{2,}")


@dataclass(slots=True)
class Memory:
    """What is known of words: only ever added to, or dropped as a whole.

    Args:
        tokens: int32 token ids of words and pieces, as bytes.
        heads: Words that may be followed by the rest of an entry, each with sets of the parts that would follow.
        gaps: Heads and the words behind them: whether an entry may reach across.
    """

    tokens: dict[str, bytes] = field(default_factory=lambda: {"": b""})
    heads: dict[str, list[set[str]]] = field(default_factory=dict)
    gaps: dict[Gap, bool] = field(default_factory=dict)

    def __len__(self) -> int:
        """Words, pieces and gaps that are remembered."""
        return len(self.tokens) - 1 + len(self.gaps)


class Entries:
    """Finds the pieces of a text in which an entry with spaces may stand.

    Args:
        entries: Normalized entries of printable ASCII; parts are separated by single spaces.
        normalize: The tokenizer's normalizer, for single words.
    """

    def __init__(self, entries: Iterable[str], normalize: Callable[[str], str]) -> None:
        self._normalize = normalize
        self._next: dict[str, set[str]] = defaultdict(set)
        for entry in entries:
            parts = entry.split(" ")
            for left, right in itertools.pairwise(parts):
                self._next[left].add(right)

    def learn_words(self, words: Iterable[str], memory: Memory) -> None:
        """Note which of the words are heads."""
        for word in words:
            normal = self._normalize(word)
            ends = (normal[start:] for start in range(len(normal)))
            if following := [self._next[end] for end in ends if end in self._next]:
                memory.heads[word] = following

    def learn_gaps(self, words: Sequence[str], memory: Memory) -> None:
        """Note across which gaps between heads and the words behind them an entry may reach."""
        for gap in itertools.pairwise(words):
            if gap[0] in memory.heads and gap not in memory.gaps:
                normal = self._normalize(gap[1])
                starts = [normal[:end] for end in range(1, len(normal) + 1)]
                memory.gaps[gap] = any(not parts.isdisjoint(starts) for parts in memory.heads[gap[0]])

    def pieces(self, text: str, words: list[str], memory: Memory) -> list[str]:
        """The words of a text, glued together where an entry may stand.

        Args:
            text: The text.
            words: Its words, split at whitespace; all known to ``memory``.
            memory: What has been learned.

        Raises:
            KeyError: A gap is not known yet.
        """
        heads, gaps = memory.heads, memory.gaps
        if not heads or heads.keys().isdisjoint(words):
            return words
        last = len(words) - 1
        glued = [at for at, word in enumerate(words) if word in heads and at < last and gaps[word, words[at + 1]]]
        if not glued:
            return words
        stripped = text.strip()
        if len(stripped) - sum(map(len, words)) == last:
            return list(_joined(words, glued))
        # An entry has single spaces: it never reaches across wider gaps.
        parts = _WIDE_GAP.split(stripped)
        return [piece for part in parts for piece in self.pieces(part, part.split(), memory)]


def _joined(words: list[str], glued: list[int]) -> Iterator[str]:
    done = index = 0
    while index < len(glued):
        start = glued[index]
        while index + 1 < len(glued) and glued[index + 1] == glued[index] + 1:
            index += 1
        yield from words[done:start]
        done = glued[index] + 2
        yield " ".join(words[start:done])
        index += 1
    yield from words[done:]
