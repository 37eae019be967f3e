"""Where the headings of a text stand: markdown (ATX, setext) and reStructuredText (underlined, overlined)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_HEADING_CHARACTERS = 200
"""A longer line is no heading, whatever marks it: headings are repeated in every passage below them."""

_MARK = re.compile(
    r"""^[ ]{0,3}(?:
        (?P<atx>\#{1,6})[ \t]+(?P<title>[^\n]*?)
      | (?P<rule>(?P<char>[=\-~^"'*+\#.:_`])(?P=char)+)(?P<info>[^\n]*?)
    )[ \t]*\r?$""",
    re.MULTILINE | re.VERBOSE,
)
_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(?:[^\n]*\n){0,200}?(?:---|\.\.\.)[ \t]*\r?(?:\n|\Z)")
_CLOSING = re.compile(r"(?:^|[ \t]+)#+$")
_LIST_OR_QUOTE = re.compile(r"[ ]{4}|\t|[ ]{0,3}(?:[-*+]|\d{1,9}[.)])(?:[ \t]|$)|[ ]{0,3}[|>]")


@dataclass(frozen=True, slots=True)
class Heading:
    """One heading.

    Args:
        start: First character of its first line (an overline, if there is one).
        end: One past its last character, underline included, line end not.
        level: 1 for the outermost.
        title: Its text without marks.
    """

    start: int
    end: int
    level: int
    title: str


@dataclass(frozen=True, slots=True)
class _Mark:
    start: int
    end: int
    style: str
    title: str


def find_headings(text: str) -> list[Heading]:
    """List the headings in order; lines inside fenced code blocks and front matter are none.

    Underlines of ``=`` and ``-`` alone are levels 1 and 2 as in markdown. Where another character or an overline occurs
    the text is taken for reStructuredText, whose levels follow the order in which the styles first occur.
    """
    marks = list(_marks(text))
    underlines = dict.fromkeys(mark.style for mark in marks if not mark.style.startswith("atx"))
    if underlines.keys() <= {"=", "-"}:
        levels = {"=": 1, "-": 2}
    else:
        levels = {style: position for position, style in enumerate(underlines, 1)}
    levels |= {f"atx{level}": level for level in range(1, 7)}
    return [Heading(mark.start, mark.end, levels[mark.style], mark.title) for mark in marks]


def front_matter_end(text: str) -> int:
    """Position after the YAML front matter, 0 when there is none."""
    match = _FRONT_MATTER.match(text)
    return match.end() if match else 0


def _marks(text: str) -> Iterator[_Mark]:
    fence = ""
    floor = front_matter_end(text)
    for match in _MARK.finditer(text, floor):
        if match["atx"]:
            title = _CLOSING.sub("", match["title"]).strip()
            if not fence and title and len(title) <= MAX_HEADING_CHARACTERS:
                floor = match.end()  # a rule below a heading does not make it a second one
                yield _Mark(match.start(), match.end(), f"atx{len(match['atx'])}", title)
            continue
        rule, info = match["rule"], match["info"].strip()
        may_fence = rule[0] in "`~" and len(rule) >= 3
        if fence:
            if may_fence and rule.startswith(fence) and not info:
                fence = ""
            continue
        underlined = None if info else _underlined(text, match, floor)
        if underlined is not None:
            floor = match.end()
            yield underlined
        elif may_fence and not (rule[0] == "`" and "`" in info):
            fence = rule


def _underlined(text: str, match: re.Match[str], floor: int) -> _Mark | None:
    """The heading whose underline was matched, if the lines above it make one."""
    rule = match["rule"]
    line, line_start = _line_before(text, match.start(), floor)
    title = line.strip()
    needed = 3 if rule[0] in "=-" else max(4, len(title))
    if not title or len(rule) < min(needed, max(2, len(title))) or _LIST_OR_QUOTE.match(line):
        return None
    if rule[0] not in "=-" and len(rule) < needed:
        return None
    above, above_start = _line_before(text, line_start, floor)
    if above.strip() == rule and len(rule) >= 3:
        return _Mark(above_start, match.end(), f"over{rule[0]}", title)
    if above.strip() or line.startswith(" ") or not any(map(str.isalnum, title)):
        return None
    return _Mark(line_start, match.end(), rule[0], title)


def _line_before(text: str, position: int, floor: int) -> tuple[str, int]:
    """The line that ends just before a line start, and its start; empty at the beginning or when it is too long."""
    end = position - 1
    if end < floor:
        return "", position
    low = max(floor, end - MAX_HEADING_CHARACTERS - 2)
    start = text.rfind("\n", low, end) + 1
    if start == 0:
        if low > floor:
            return "", position
        start = floor
    return text[start:end].rstrip("\r"), start
