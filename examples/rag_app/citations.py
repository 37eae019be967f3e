"""Citations in a text that is still being written: numbers of passages that were given stay, all others are marked."""

from __future__ import annotations

import re
from collections.abc import Collection

INVENTED = "[?]"
"""What stands in the text instead of the number of a passage that was not given."""

_MARKER = re.compile(r"\[[ ]?[0-9]{1,9}(?:[ ]?[,;][ ]?[0-9]{1,9})*[ ]?\]")
_BEGINNING = re.compile(r"\[[0-9 ,;]*")
_LONGEST_MARKER = 64


class CitationChecker:
    """Reads a text piece by piece and gives back what may be shown of it.

    A marker is ``[1]``, ``[1][2]`` or ``[1, 2]``, which becomes ``[1][2]``. In code, between backticks, brackets are
    left alone. A marker that is cut in two by a piece is held back until the next one.

    Args:
        given: Numbers of the passages that may be cited.
    """

    def __init__(self, given: Collection[int]) -> None:
        self._given = frozenset(given)
        self._pending = ""
        self._fence = ""
        self._cited: dict[int, None] = {}
        self._invented: dict[int, None] = {}

    @property
    def cited(self) -> tuple[int, ...]:
        """Numbers of given passages in the order in which they were first cited."""
        return tuple(self._cited)

    @property
    def invented(self) -> tuple[int, ...]:
        """Numbers that were cited and not given."""
        return tuple(self._invented)

    def feed(self, piece: str) -> str:
        """Take the next piece and return the text that is settled by it."""
        self._pending += piece
        return self._settle(final=False)

    def finish(self) -> str:
        """Return what was held back; nothing comes after it."""
        return self._settle(final=True)

    def _settle(self, *, final: bool) -> str:
        text, at, shown = self._pending, 0, []
        while at < len(text):
            taken = self._special(text, at, final=final)
            if taken is None:
                break
            length, replacement = taken
            shown.append(replacement)
            at += length
        self._pending = text[at:]
        return "".join(shown)

    def _special(self, text: str, at: int, *, final: bool) -> tuple[int, str] | None:
        """Length and replacement of what stands at a place, ``None`` when the next piece decides."""
        sign = text[at]
        if sign == "`":
            run = len(text[at:]) - len(text[at:].lstrip("`"))
            if at + run == len(text) and not final:
                return None
            self._toggle("`" * run)
            return run, "`" * run
        if sign == "\n" and len(self._fence) < 3:
            self._fence = ""
        if sign != "[" or self._fence:
            return 1, sign
        marker = _MARKER.match(text, at)
        if marker is not None:
            return len(marker[0]), self._checked(marker[0])
        beginning = _BEGINNING.match(text, at)
        waiting = beginning is not None and beginning.end() == len(text) and len(text) - at < _LONGEST_MARKER
        return None if waiting and not final else (1, sign)

    def _toggle(self, run: str) -> None:
        if not self._fence:
            self._fence = run
        elif self._fence == run:
            self._fence = ""

    def _checked(self, marker: str) -> str:
        shown = []
        for number in map(int, re.findall(r"[0-9]+", marker)):
            known = number in self._given
            (self._cited if known else self._invented)[number] = None
            shown.append(f"[{number}]" if known else INVENTED)
        return "".join(shown)
