"""Plain text, markdown and reStructuredText: one file is one document."""

from __future__ import annotations

import re
from collections.abc import Iterator

from retrieval.datatypes import Document
from retrieval.documents.content import read_text
from retrieval.documents.source import Source
from retrieval.headings import find_headings, front_matter_end

_TITLE_KEY = re.compile(r"^title:[ \t]*(['\"]?)(?P<title>[^\r\n]+?)\1[ \t]*\r?$", re.MULTILINE)


def read_plain(source: Source) -> Iterator[Document]:
    """Yield the file; markup files take their title from the front matter or the first heading."""
    text = read_text(source)
    title = "" if source.extension == ".txt" else title_of(text)
    if (document := source.whole_document(text, title)) is not None:
        yield document


def title_of(text: str) -> str:
    """Title of marked-up text: of its front matter, else its first heading, else empty."""
    match = _TITLE_KEY.search(text, 0, front_matter_end(text))
    if match:
        return match["title"]
    headings = find_headings(text[:200_000])
    return headings[0].title if headings else ""
