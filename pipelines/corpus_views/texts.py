"""The text of a document, put together from its passages."""

from __future__ import annotations

from collections.abc import Iterable


def joined(pieces: Iterable[tuple[int, str]]) -> str:
    """The text of a document from its passages and their first characters; what they share comes once."""
    text, end = [], 0
    for start, piece in pieces:
        if start > end:
            text.append("\n")
        text.append(piece[max(0, end - start) :])
        end = max(end, start + len(piece))
    return "".join(text)
