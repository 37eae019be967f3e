"""Groups of near-equal documents, and pairs that only look so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from pipelines.render.output import visible
from pipelines.render.tables import facts

if TYPE_CHECKING:
    from pipelines.corpus_views.duplicates import DuplicateGroup, DuplicateMember, DuplicatesReport

_OTHERS = 10
_TEXT = 150


def render_duplicates(console: Console, report: DuplicatesReport, top: int) -> None:
    """The groups, largest first, then what says something else in nearly the same words.

    Args:
        console: Where to.
        report: What was found.
        top: How many groups and pairs to show.
    """
    for number, group in enumerate(report.groups[:top], start=1):
        console.print(Text(f"group {number}: {len(group.others) + 1:,} near-equal {report.of}s", style="bold green"))
        _render_group(console, group)
    if report.altered:
        console.print(Text("alike, but for a negation, a number or exchanged words: in no group", style="bold yellow"))
        for pair in report.altered[:top]:
            _render_group(console, pair)
    hidden = max(0, len(report.groups) - top) + max(0, len(report.altered) - top)
    if hidden:
        console.print(f"and {hidden:,} more; --top N shows them, --json has all", style="dim")
    rows = [
        (f"{report.of}s", f"{report.compared:,}"),
        ("groups", f"{len(report.groups):,}"),
        ("could go", f"{report.duplicates:,}, all of a group but the one that is kept"),
        ("altered pairs", f"{len(report.altered):,}"),
        ("threshold", f"{report.threshold:g} of the word triples"),
        ("compared", f"{report.checked:,} pairs word for word"),
        ("seconds", f"{report.seconds:.1f}"),
    ]
    console.print(facts(rows))


def _render_group(console: Console, group: DuplicateGroup) -> None:
    console.print(_line(group.kept, "keep"))
    text = group.kept.text
    if text:
        console.print(
            Padding(Text(visible(text[:_TEXT]) + ("…" if len(text) > _TEXT else ""), style="dim"), (0, 0, 0, 9))
        )
    for member in group.others[:_OTHERS]:
        label = f"{member.share:.0%}" if member.kind != "exact" else "same"
        console.print(_line(member, label))
        for sign, words, style in (("-", member.only_kept, "red"), ("+", member.only_here, "green")):
            if words:
                console.print(Padding(_words(sign, words, member.turning, style), (0, 0, 0, 9)))
    if len(group.others) > _OTHERS:
        console.print(Padding(Text(f"and {len(group.others) - _OTHERS:,} more", style="dim"), (0, 0, 0, 9)))
    console.print()


def _line(member: DuplicateMember, label: str) -> Text:
    name = visible(member.document_id) + ("" if member.index is None else f", passage {member.index + 1}")
    title = visible(member.title)
    return Text.assemble(
        (f"  {label:>5}  ", "bold"), (name, "bold"), (f"  {title}" if title and title not in name else "", "")
    )


def _words(sign: str, words: Sequence[str], turning: Sequence[str], style: str) -> Text:
    line = Text(f"{sign} ", style=style)
    for number, word in enumerate(words):
        line.append((", " if number else "") + visible(word), style=f"bold {style}" if word in turning else style)
    return line
