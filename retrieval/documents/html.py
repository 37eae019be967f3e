"""HTML pages: the text that a reader sees, with headings and code in markdown marks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lxml import etree  # type: ignore[import-untyped]

from retrieval.datatypes import Document
from retrieval.documents.content import UnreadableError, read_text
from retrieval.documents.source import Source

_NEVER = frozenset(
    {
        "script",
        "style",
        "noscript",
        "template",
        "svg",
        "math",
        "iframe",
        "object",
        "canvas",
        "audio",
        "video",
        "select",
        "button",
        "textarea",
        "head",
    }
)
_BOILERPLATE = frozenset({"nav", "footer", "dialog", "menu"})
_BOILERPLATE_ROLES = frozenset({"navigation", "banner", "contentinfo", "search", "dialog"})
_BLOCKS = frozenset(
    {
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "caption",
        "center",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "header",
        "hr",
        "html",
        "legend",
        "main",
        "nav",
        "ol",
        "p",
        "section",
        "summary",
        "table",
        "tbody",
        "tfoot",
        "thead",
        "ul",
    }
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_SPACE = re.compile(r"[ \t\r\n\f]+")


def read_html(source: Source) -> Iterator[Document]:
    """Yield the page: its main part if it marks one, without navigation, footers, scripts and forms."""
    markup = read_text(source)
    try:
        text, title = html_text(markup)
    except (etree.LxmlError, ValueError) as error:
        raise UnreadableError(f"is not usable as HTML: {error}") from error
    if (document := source.whole_document(text, title)) is not None:
        yield document


def html_text(markup: str) -> tuple[str, str]:
    """Text and title of a page; headings are ``#`` lines, ``pre`` is fenced code, cells are parted by ``|``.

    Raises:
        etree.LxmlError: The markup cannot be parsed at all.
    """
    for drop_boilerplate in (True, False):
        renderer = _Renderer(drop_boilerplate)
        # Events instead of a tree: memory stays near the size of the text, whatever the markup.
        parser = etree.HTMLParser(target=renderer, huge_tree=True, remove_comments=True, remove_pis=True)
        # An XML declaration is refused in a str, and what it declares no longer holds.
        parser.feed(re.sub(r"\A\s*<\?xml[^>]*>", "", markup))
        text, title = parser.close()
        if text:
            break
    return text, title


class _Renderer:
    """Receives the events of the parser and collects lines of text."""

    def __init__(self, drop_boilerplate: bool) -> None:
        self._drop = drop_boilerplate
        self._hidden = 0
        self._title_depth = 0
        self._title: list[str] = []
        self._main_depth = 0
        self._main = _Lines()
        self._all = _Lines()
        self._open: list[bool] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        hides = tag in _NEVER or "hidden" in attributes or attributes.get("aria-hidden") == "true"
        if self._drop and not hides:
            hides = tag in _BOILERPLATE or attributes.get("role") in _BOILERPLATE_ROLES
        self._open.append(hides)
        self._hidden += hides
        self._title_depth += tag == "title"
        self._main_depth += tag == "main"
        if not self._hidden:
            for lines in self._targets():
                lines.start(tag)

    def end(self, tag: str) -> None:
        if not self._hidden:
            for lines in self._targets():
                lines.end(tag)
        if self._open:
            self._hidden -= self._open.pop()
        self._title_depth -= tag == "title"
        self._main_depth -= tag == "main"

    def data(self, data: str) -> None:
        if self._title_depth == 1 and not self._title_closed():
            self._title.append(data)
        if not self._hidden:
            for lines in self._targets():
                lines.data(data)

    def close(self) -> tuple[str, str]:
        main = self._main.text() if self._drop else ""
        return main or self._all.text(), " ".join("".join(self._title).split())

    def _targets(self) -> tuple[_Lines, ...]:
        return (self._all, self._main) if self._main_depth else (self._all,)

    def _title_closed(self) -> bool:
        return sum(map(len, self._title)) > 10_000


class _Lines:
    """Text under construction: runs of spaces are one, blocks are parted by a blank line."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._breaks = 0
        # A heading or list mark that waits for text, so that an empty element leaves none behind.
        self._pending = ""
        self._space = False
        self._preformatted = 0

    def start(self, tag: str) -> None:
        if tag == "pre":
            self._break(2)
            self._pending = ""
            if not self._preformatted:
                self._write("```\n")
            self._preformatted += 1
        elif tag in _HEADINGS:
            self._break(2)
            self._pending = "#" * _HEADINGS[tag] + " "
        elif tag == "li":
            self._break(1)
            self._pending = "- "
        elif tag in {"tr", "br"}:
            self._break(1)
        elif tag in {"td", "th"} and self._parts and not self._breaks:
            self._write(" | ")
        elif tag in _BLOCKS and not self._pending:
            self._break(2)

    def end(self, tag: str) -> None:
        if tag == "pre" and self._preformatted:
            self._preformatted -= 1
            if not self._preformatted:
                self._parts.append("\n```")
                self._break(2)
        elif tag in _HEADINGS or tag in _BLOCKS:
            self._break(2)
        elif tag in {"li", "tr"}:
            self._break(1)
        if tag in _HEADINGS or tag == "li":
            self._pending = ""

    def data(self, data: str) -> None:
        if self._preformatted:
            self._parts.append(data)
            return
        for position, word in enumerate(_SPACE.split(data)):
            self._space = self._space or position > 0
            if word:
                self._write((" " if self._needs_space() else "") + word)

    def text(self) -> str:
        return re.sub(r"(?<![ \t])[ \t]+$", "", "".join(self._parts), flags=re.MULTILINE).strip()

    def _needs_space(self) -> bool:
        return (
            self._space
            and not self._breaks
            and not self._pending
            and bool(self._parts)
            and not self._parts[-1].endswith((" ", "\n"))
        )

    def _break(self, lines: int) -> None:
        self._breaks = max(self._breaks, lines)

    def _write(self, text: str) -> None:
        if self._breaks and self._parts:
            self._parts.append("\n" * self._breaks)
        self._parts.append(self._pending + text)
        self._breaks, self._space, self._pending = 0, False, ""
