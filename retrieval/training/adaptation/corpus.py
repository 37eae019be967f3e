"""Passages as token ids, cut into the pieces that become anchors: titles, headings and sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.training.table import StaticTable

IntArray = NDArray[np.int64]
TokenArray = NDArray[np.int32]

TITLE, HEADING, SENTENCE = 0, 1, 2

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[^\sa-z])|(?<=[\u3002\uff01\uff1f])|\s*\n\s*")
# A sentence that is too long for one is cut where a full stop stands, whatever follows.
_ANY_END = re.compile(r"(?<=[.!?])\s+")
_LONG_SENTENCE = 300
_PASSAGES_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class CorpusPassage:
    """What adaptation reads of one indexed passage.

    Args:
        text: The passage as shown, without title and headings.
        title: Title of its document, empty when there is none.
        headings: Headings above it, outermost first.
        document: Key of its document; passages of one document are never negatives of each other.
    """

    text: str
    title: str
    headings: tuple[str, ...]
    document: str


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedCorpus:
    """Passages as one array of token ids; a piece is a title, a heading or a sentence.

    Args:
        tokens: int32 ids of all passages behind each other.
        pieces: Where each piece starts in ``tokens``, and the end of the last (pieces + 1,).
        kinds: `TITLE`, `HEADING` or `SENTENCE` (pieces,).
        passages: Where each passage starts in ``pieces``, and the end of the last (passages + 1,).
        documents: Number of the document of each passage.
        vocabulary: Rows of the table.
    """

    tokens: TokenArray
    pieces: IntArray
    kinds: NDArray[np.int8]
    passages: IntArray
    documents: IntArray
    vocabulary: int

    def __len__(self) -> int:
        return len(self.passages) - 1

    @property
    def bounds(self) -> IntArray:
        """Where each passage starts in ``tokens``, and the end of the last (passages + 1,)."""
        return self.pieces[self.passages]

    def counts(self) -> IntArray:
        """How often each token is in the corpus (vocabulary,)."""
        return np.bincount(self.tokens, minlength=self.vocabulary)


def split_sentences(text: str) -> list[str]:
    """Sentences and lines of a text, without the white space around them; also of a text in lower case."""
    parts = [part.strip() for part in _SENTENCE_END.split(text) if part and part.strip()]
    return [
        piece
        for part in parts
        for piece in (_ANY_END.split(part) if len(part) > _LONG_SENTENCE else [part])
        if piece.strip(" .!?")
    ]


def tokenize_corpus(table: StaticTable, passages: Sequence[CorpusPassage]) -> TokenizedCorpus:
    """Tokenize passages once, piece by piece; what the text repeats of title and headings is left out.

    Args:
        table: Gives the ids.
        passages: Passages as indexed.
    """
    tokens: list[TokenArray] = []
    lengths: list[IntArray] = []
    kinds: list[int] = []
    counts: list[int] = []
    for start in range(0, len(passages), _PASSAGES_AT_ONCE):
        texts: list[str] = []
        for passage in passages[start : start + _PASSAGES_AT_ONCE]:
            pieces = _pieces(passage)
            texts.extend(text for _, text in pieces)
            kinds.extend(kind for kind, _ in pieces)
            counts.append(len(pieces))
        ids = table.tokenize(texts)
        lengths.append(np.array([len(row) for row in ids], dtype=np.int64))
        tokens.append(np.array([token for row in ids for token in row], dtype=np.int32))
    numbers: dict[str, int] = {}
    return TokenizedCorpus(
        tokens=np.concatenate(tokens) if tokens else np.empty(0, np.int32),
        pieces=np.concatenate([[0], np.cumsum(np.concatenate(lengths) if lengths else [])]).astype(np.int64),
        kinds=np.array(kinds, np.int8),
        passages=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        documents=np.array([numbers.setdefault(one.document, len(numbers)) for one in passages], dtype=np.int64),
        vocabulary=len(table.vectors),
    )


def _pieces(passage: CorpusPassage) -> list[tuple[int, str]]:
    named = [(TITLE, passage.title), *((HEADING, heading) for heading in passage.headings)]
    seen: set[str] = set()
    pieces: list[tuple[int, str]] = []
    for kind, text in named:
        if text and text not in seen and text not in passage.text[:200]:
            seen.add(text)
            pieces.append((kind, text))
    return pieces + [(SENTENCE, text) for text in split_sentences(passage.text)]
