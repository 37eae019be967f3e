"""Documents into passages: sections, paragraphs, sentences, words, as many as fit the token budget.

Sections come from `retrieval.headings`, everything below them from semantic-text-splitter, token counts from
`retrieval.token_counts`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from semantic_text_splitter import MarkdownSplitter

from retrieval.config import ChunkingConfig
from retrieval.datatypes import Document, Passage
from retrieval.headings import MAX_HEADING_CHARACTERS, find_headings
from retrieval.protocols import Encoder
from retrieval.token_counts import CountMany, token_counter

CHARACTERS_PER_TOKEN = 32
"""A passage has at most this many characters per token of its budget, so that one endless word cannot fill it alone."""

_MOST_SHARED = 0.75
"""Of the characters of a passage with the one before; in tokens it is at most half."""
_VERSION = 2


class Chunker:
    """Cuts documents into passages of at most ``max_tokens`` tokens.

    A document that fits is one passage. A longer one starts a new passage at every heading (a heading with nothing but
    a deeper heading below stays with that one) and cuts sections at the largest unit that fits: blocks, lines,
    sentences, words, and characters only for a word that is longer than a passage. Neighbours inside a section share
    up to ``overlap_tokens``. Passages do not begin or end with whitespace and leave nothing but whitespace out.

    Args:
        config: Token budget and overlap.
        count_tokens: Tokens of a text, the same for the same text.
        count_many: The same for many texts at once, where that is faster; ``None`` counts one by one.
    """

    def __init__(
        self, config: ChunkingConfig, count_tokens: Callable[[str], int], count_many: CountMany | None = None
    ) -> None:
        self.config = config
        self._max_characters = config.max_tokens * CHARACTERS_PER_TOKEN
        self._window = 4 * self._max_characters
        self._endless = re.compile(rf"(?<!\S)\S{{{self._max_characters + 1},}}")
        self._counter = token_counter(count_tokens)
        self._count = self._counter.count
        self._count_many = count_many

    @classmethod
    def of_encoder(cls, config: ChunkingConfig, encoder: Encoder) -> Self:
        """A chunker that counts the tokens of an encoder, many texts at once where the encoder can."""
        return cls(config, encoder.count_tokens, getattr(encoder, "count_tokens_many", None))

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Settings that decide where documents are cut, as JSON values."""
        return {
            "version": _VERSION,
            "max_tokens": self.config.max_tokens,
            "overlap_tokens": self.config.overlap_tokens,
            "characters_per_token": CHARACTERS_PER_TOKEN,
        }

    def split(self, document: Document) -> list[Passage]:
        """Cut one document; an empty one, or one of whitespace, gives ``[]``.

        Args:
            document: The document.

        Returns:
            Passages in order, ``text == document.text[start:end]``.
        """
        return self._split(document, fits=self._fits(document.text, 0, len(document.text)))

    def split_many(self, documents: Sequence[Document]) -> list[list[Passage]]:
        """What `split` gives for each of some documents, in less time."""
        if self._count_many is None or not self._counter.additive:
            return [self.split(document) for document in documents]
        short = [document.text for document in documents if len(document.text) <= self._max_characters]
        tokens = iter(self._count_many(short).tolist())
        fitting = [
            len(document.text) <= self._max_characters and next(tokens) <= self.config.max_tokens
            for document in documents
        ]
        self._counter.learn(
            [document.text for document, fits in zip(documents, fitting, strict=True) if not fits], self._count_many
        )
        return [self._split(document, fits=fits) for document, fits in zip(documents, fitting, strict=True)]

    def _split(self, document: Document, *, fits: bool) -> list[Passage]:
        text = document.text
        if fits:
            start, end = _trimmed(text, 0, len(text))
            cuts = [(start, end, _leading_headings(text))] if start < end else []
        else:
            cuts = [
                (start, end, section.headings)
                for section in _sections(text)
                for start, end in _without_repeats(self._cut(text, section))
            ]
        return [
            Passage(document.id, index, text[start:end], start, end, document.title, headings)
            for index, (start, end, headings) in enumerate(cuts)
        ]

    def _fits(self, text: str, start: int, end: int) -> bool:
        if end - start > self._max_characters:
            return False
        piece = text[start:end]
        # No tokenizer makes more tokens than ASCII characters, once it is known to add up over words.
        if self._counter.additive and end - start <= self.config.max_tokens and piece.isascii():
            return True
        return self._count(piece.strip()) <= self.config.max_tokens

    def _cut(self, text: str, section: _Section) -> Iterator[tuple[int, int]]:
        """Yield the passages of one section."""
        start, end = _trimmed(text, section.start, section.end)
        if start < end and self._fits(text, start, end):
            yield start, end
            return
        if start < section.body < end:
            first, start = self._heading_with_text(text, start, section.body, end)
            yield from first
        for word in self._endless.finditer(text, start, end):
            yield from self._cut_windows(text, start, word.start())
            yield from self._cut_word(text, word.start(), word.end())
            start = word.end()
        yield from self._cut_windows(text, start, end)

    def _heading_with_text(self, text: str, start: int, body: int, end: int) -> tuple[list[tuple[int, int]], int]:
        """A first passage of the headings and the text below, which the splitter would part, and where to go on."""
        room = self.config.max_tokens - self._count(text[start:body]) - 1
        if room * 2 <= self.config.max_tokens:
            return [], start
        stop = min(end, body + self._window)
        endless = self._endless.search(text, body, stop)
        if endless is not None:
            _, stop = _trimmed(text, body, endless.start())
        if stop <= body:
            return [], start
        pieces = self._cut_window(text, body, stop, room)[:2]
        if not pieces or not self._fits(text, start, pieces[0][1]):
            return [], start
        # The second piece begins with what it shares with the first.
        return [(start, pieces[0][1])], pieces[1][0] if len(pieces) > 1 else pieces[0][1]

    def _cut_windows(self, text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Cut with the splitter, window by window, so that the time grows with the text and not with its square."""
        while start < end:
            stop = min(end, start + self._window)
            pieces = self._cut_window(text, start, stop, self.config.max_tokens)
            # The last piece of a window may have been cut short by it, so the next window begins with that piece again.
            again = stop < end and len(pieces) > 1 and pieces[-1][0] > start
            yield from pieces[:-1] if again else pieces
            start = pieces[-1][0] if again else stop

    def _cut_window(self, text: str, start: int, stop: int, budget: int) -> list[tuple[int, int]]:
        window = text[start:stop]
        # What is several times longer than a full passage at the density of this window need not be counted.
        typical = budget * len(window) // max(1, self._count(window))
        longest = min(self._max_characters, 3 * typical + 64)

        def size(piece: str) -> int:
            return self._count(piece) if len(piece) <= longest else budget + len(piece)

        splitter = MarkdownSplitter.from_callback(
            size, budget, overlap=min(self.config.overlap_tokens, budget // 2), trim=True
        )
        pieces = (
            _trimmed(text, start + offset, start + offset + len(piece))
            for offset, piece in splitter.chunk_indices(window)
        )
        return [(first, last) for first, last in pieces if first < last]

    def _cut_word(self, text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Cut a word longer than any passage into stretches that fit, shrinking a guess until it does."""
        length = self._max_characters
        while start < end:
            length = min(end - start, self._max_characters, length + length // 4 + 16)
            while length > 1 and (tokens := self._count(text[start : start + length])) > self.config.max_tokens:
                length = max(1, min(length - 1, length * self.config.max_tokens * 19 // (tokens * 20)))
            yield start, start + length
            start += length


@dataclass(frozen=True, slots=True)
class _Section:
    start: int
    end: int
    headings: tuple[str, ...]
    body: int = 0


def _leading_headings(text: str) -> tuple[str, ...]:
    """The headings that a text begins with."""
    lines = [line.strip() for line in text.lstrip()[: 3 * MAX_HEADING_CHARACTERS].split("\n", 2)[:2]]
    if lines[0].startswith("#") or any(len(line) > 1 and line == line[0] * len(line) for line in lines):
        return _sections(text)[0].headings
    return ()


def _sections(text: str) -> list[_Section]:
    """Stretches from heading to heading with the path of headings above each; they cover the text."""
    sections: list[_Section] = []
    path: list[tuple[int, str]] = []
    start, body = 0, 0
    for heading in find_headings(text):
        deeper = bool(path) and heading.level > path[-1][0]
        if text[body : heading.start].strip() or (body > start and not deeper):
            sections.append(_Section(start, heading.start, tuple(title for _, title in path), body))
            start = heading.start
        while path and path[-1][0] >= heading.level:
            path.pop()
        path.append((heading.level, heading.title))
        body = heading.end
    sections.append(_Section(start, len(text), tuple(title for _, title in path), body))
    return sections


def _without_repeats(cuts: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Leave out what brings next to nothing, as long as that leaves no gap.

    Characters of no token, such as joiners, may be shared without limit, and a longer piece of a word may have fewer
    tokens than a shorter one; a passage could begin one character behind the one before, or lie in it.
    """
    covered, held = -1, None
    for start, end in cuts:
        if held is not None and start > covered:
            yield held
            covered = held[1]
        held = None
        if end <= covered:
            continue
        if covered - start > (end - start) * _MOST_SHARED:
            held = start, end
        else:
            yield start, end
            covered = end
    if held is not None:
        yield held


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    if start < end <= len(text) and not text[start].isspace() and not text[end - 1].isspace():
        return start, end
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), max(start, end - len(piece) + len(piece.rstrip()))
