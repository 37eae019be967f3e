"""Hits: where they were found, how they moved, and the part of the passage that shows why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pipelines.render.output import visible

if TYPE_CHECKING:
    from pipelines.explain import QueryTerms
    from retrieval.datatypes import Arm, Hit, Results

Spans = Callable[[str], Sequence[tuple[int, int]]]
"""Gives ``(start, end)`` of the words of a text that match the query."""

_SNIPPET = 300
_METADATA = 120
_STOPPED = {
    "complete": "all it was asked to read",
    "budget": "then its time was spent",
    "settled": "then nothing it could still read would change the result",
    "likely": "then nothing it could still read was likely to change the result",
}


def render_results(console: Console, results: Results, spans: Spans, *, explained: QueryTerms | None = None) -> None:
    """One block for each hit.

    Args:
        console: Where to.
        results: The hits.
        spans: Finds the words to highlight.
        explained: The words of the query, to show the numbers behind each hit as well.
    """
    for hit in results:
        console.print(_block(hit, spans, calibrated=results.answered is not None, explained=explained is not None))
        console.print()
    if explained is not None:
        _render_terms(console, explained)
    if not results:
        console.print("no hits")


def render_footer(console: Console, results: Results) -> None:
    """How long each stage took, how much was read and why reading stopped."""
    timings = results.timings
    console.print(
        f"encode {timings.encode:.1f} ms, retrieve {timings.retrieve:.1f} ms, rerank {timings.rerank:.1f} ms, "
        f"total {timings.total:.1f} ms",
        style="dim",
    )
    if results.stopped == "off":
        reading = "the cross-encoder was not used"
    else:
        reading = f"the cross-encoder read {results.reranked:,}, {_STOPPED[results.stopped]}"
    console.print(f"{results.candidates:,} candidates; {reading}", style="dim")
    if results.answered:
        console.print("a hit reaches the threshold of a good answer that is stored with the index", style="dim")


def render_warnings(console: Console, results: Results) -> None:
    """What the user should know about this result."""
    for warning in results.warnings:
        console.print(f"warning: {warning}", style="yellow")


def movement(before: int, after: int) -> Text:
    """An arrow for how a rank has changed."""
    if before == after:
        return Text("=", style="dim")
    return Text(f"↑{before - after}", style="green") if after < before else Text(f"↓{after - before}", style="red")


def snippet(text: str, spans: Sequence[tuple[int, int]], length: int = _SNIPPET) -> Text:
    """The part of a text with the most different matching words, on one line, those words in bold."""
    start = _best_start(text, spans, length)
    end = min(len(text), start + length)
    if end < len(text):
        end = max(text.rfind(" ", start, end), start + length // 2)
    shown = Text("… " if start else "", style="dim")
    position = start
    for left, right in [*((left, right) for left, right in spans if start <= left and right <= end), (end, end)]:
        shown.append(_joined(text[position:left]), style="not dim")
        shown.append(visible(text[left:right]), style="not dim bold cyan")
        position = right
    if end < len(text):
        shown.append(" …")
    return shown


def _best_start(text: str, spans: Sequence[tuple[int, int]], length: int) -> int:
    if len(text) <= length:
        return 0
    best, best_words = 0, -1
    for left, _ in [(0, 0), *spans]:
        words = {text[a:b].lower() for a, b in spans if left <= a and b <= left + length - 40}
        if len(words) > best_words:
            best, best_words = left, len(words)
    if best + length > len(text):
        best = max(0, len(text) - length)
    # A little of what stands before, from the beginning of a word.
    before = max(0, best - 40)
    return 0 if before == 0 else text.find(" ", before, best + 1) + 1 or best


def _joined(text: str) -> str:
    """`visible`, but with the blank at either end that keeps words apart."""
    inner = visible(text)
    if not inner:
        return " " if text else ""
    return (" " if text[0].isspace() else "") + inner + (" " if text[-1].isspace() else "")


def _block(hit: Hit, spans: Spans, *, calibrated: bool, explained: bool) -> Group:
    head = Table.grid(expand=True, padding=(0, 1))
    head.add_column(width=3, justify="right")
    head.add_column(ratio=1, overflow="ellipsis", no_wrap=True)
    head.add_column(justify="right", no_wrap=True)
    # Without a threshold of the index to compare it with, the number would only raise questions.
    sure = f"p {hit.probability:.2f}  " if calibrated and hit.probability is not None else ""
    place = Text(f"{sure}{hit.score:.3f}  stage 1: {hit.first_stage_rank} → {hit.rank} ")
    place.append_text(movement(hit.first_stage_rank, hit.rank))
    title = visible(hit.title) or visible(hit.document_id)
    head.add_row(Text(f"{hit.rank}", style="bold green"), Text(title, style="bold"), place)
    lines: list[Text | Table] = []
    if hit.headings:
        lines.append(Text(" \u203a ".join(visible(heading) for heading in hit.headings), style="magenta"))
    names = list(dict.fromkeys(visible(name) for name in (hit.document_id, hit.source) if name))
    where = "  ".join(name for name in names if name != title)
    where += f"{'  ' if where else ''}characters {hit.start:,}-{hit.end:,}"
    lines.append(Text(where, style="dim", overflow="fold"))
    lines.append(snippet(hit.text, spans(hit.text)))
    if hit.metadata:
        pairs = ", ".join(f"{name}: {value}" for name, value in hit.metadata.items() if value != hit.document_id)
        line = Text(visible(pairs), style="dim")
        line.truncate(_METADATA, overflow="ellipsis")
        lines.append(line)
    if explained:
        lines.append(_numbers(hit))
    return Group(head, *(Padding(line, (0, 0, 0, 4)) for line in lines))


def _numbers(hit: Hit) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("dense", "bm25", "fused", "logit", "prob.", "final"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("read", no_wrap=True)
    logit = "-" if hit.rerank_score is None else f"{hit.rerank_score:.2f}"
    probability = "-" if hit.probability is None else f"{hit.probability:.2f}"
    read = "not read" if hit.read is None else f"{hit.read[0]:,}-{hit.read[1]:,} of {len(hit.text):,}"
    fused = f"#{hit.first_stage_rank} {hit.first_stage_score:.3f}"
    table.add_row(
        _arm(hit, "dense"), _arm(hit, "bm25"), fused, logit, probability, f"#{hit.rank} {hit.score:.3f}", read
    )
    return table


def _arm(hit: Hit, arm: Arm) -> str:
    found = hit.arms.get(arm)
    return "-" if found is None else f"#{found.rank} {found.score:.3f}"


def _render_terms(console: Console, terms: QueryTerms) -> None:
    for label, words in (
        ("known to the static encoder", terms.known),
        ("unknown to the static encoder", terms.unknown),
        ("ignored by BM25", terms.ignored),
    ):
        if words:
            console.print(Text(f"{label}: {visible(', '.join(words))}", style="dim"))
