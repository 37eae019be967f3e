"""What the cross-encoder reads of a long passage: the stretch that the static model finds closest to the query."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from retrieval.datatypes import FloatArray
from retrieval.protocols import Encoder

# A run without white space counts as one word for every 24 characters: URLs, binary data, and the scripts that write
# without spaces would otherwise make a window of any length.
_WORD = re.compile(r"\S{1,24}")
_SENTENCE_END = re.compile(r"[.!?][\"')\]\u201d\u2019]*$|[\u3002\uff01\uff1f]$")

_ROUNDING = 1e-6

Span = tuple[int, int]


def choose_window(query_vector: FloatArray, text: str, encoder: Encoder, words: int | None) -> Span:
    """The window of a text that is closest to the query; see `choose_windows`.

    Args:
        query_vector: float32 (dim,), as the encoder makes it from the query.
        text: Text of a passage.
        encoder: Static encoder of the query vector.
        words: Words to read; ``None`` for the whole text.

    Returns:
        Start and end, characters in ``text``.

    Raises:
        ValueError: ``words`` is below 1.
    """
    return choose_windows(query_vector, [text], encoder, words)[0]


def choose_windows(query_vector: FloatArray, texts: Sequence[str], encoder: Encoder, words: int | None) -> list[Span]:
    """The window of each text that is closest to the query, with one call of the encoder for all windows.

    Windows of ``words`` words start half a window apart, moved back to the start of a sentence where one is near, and
    the last one ends where the text ends; together they cover it. The first of equally close windows is taken.

    Args:
        query_vector: float32 (dim,), as the encoder makes it from the query.
        texts: Texts of passages.
        encoder: Static encoder of the query vector.
        words: Words (separated by white space) to read; ``None`` for whole texts, which the model then cuts itself.

    Returns:
        Start and end of each, characters in the text; ``(0, len(text))`` where the text is not longer than a window.

    Raises:
        ValueError: ``words`` is below 1.
    """
    if words is not None and words < 1:
        raise ValueError(f"a window has at least 1 word, not {words}")
    whole = [(0, len(text)) for text in texts]
    if words is None:
        return whole
    windows = [windows_of(text, words) for text in texts]
    contested = [position for position, spans in enumerate(windows) if len(spans) > 1]
    if not contested:
        return whole
    vectors = encoder.encode_documents([texts[at][start:end] for at in contested for start, end in windows[at]])
    closeness = vectors @ query_vector
    chosen, first = whole, 0
    for at in contested:
        here = closeness[first : first + len(windows[at])]
        # A product of matrices rounds a row as its neighbours would have it: equal windows differ in the last digit.
        chosen[at] = windows[at][int(np.argmax(here >= here.max() - _ROUNDING))]
        first += len(windows[at])
    return chosen


def windows_of(text: str, words: int) -> list[Span]:
    """The windows among which `choose_windows` chooses, in the order of the text; the whole text where it is short.

    Args:
        text: Text of a passage.
        words: Words of a window, at least 1.
    """
    spans = [match.span() for match in _WORD.finditer(text)]
    if len(spans) <= words:
        return [(0, len(text))]
    last = len(spans) - words
    stride = max(1, words // 2)
    starts = [_sentence_start(text, spans, start, stride // 2) for start in range(0, last, stride)]
    return [(spans[start][0], spans[start + words - 1][1]) for start in dict.fromkeys((*starts, last))]


def _sentence_start(text: str, spans: Sequence[Span], start: int, reach: int) -> int:
    """The nearest word at or before ``start``, at most ``reach`` words back, that opens a sentence."""
    for word in range(start, max(0, start - reach) - 1, -1):
        if word == 0 or _SENTENCE_END.search(text, *spans[word - 1]):
            return word
        if "\n\n" in text[spans[word - 1][1] : spans[word][0]]:
            return word
    return start
