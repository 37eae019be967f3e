"""The demo: for each question the order of the first stage beside the order after reading."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pipelines.render.hits import movement, snippet
from pipelines.render.output import visible

if TYPE_CHECKING:
    from pipelines.demo import DemoAnswer, DemoReport
    from retrieval.datatypes import Hit


def render_demo(console: Console, report: DemoReport, keep: Path | None) -> None:
    """What was indexed, the answers, and what to try next."""
    ingest = report.ingest
    rate = f", {ingest.passages_per_second:,.0f} passages/s" if ingest.passages else ", all there already"
    console.print(
        f"The documentation of this Python: {report.documents:,} documents, {report.passages:,} passages, "
        f"indexed in {ingest.seconds:.1f} s{rate}"
    )
    for answer in report.answers:
        console.print()
        _render_answer(console, answer)
    console.print()
    console.print("Now with your own documents:", style="bold")
    for line in _next_commands(keep):
        console.print(f"  {line}", soft_wrap=True)


def _render_answer(console: Console, answer: DemoAnswer) -> None:
    console.print(Text(answer.question, style="bold cyan"))
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", expand=True)
    table.add_column("", width=1)
    table.add_column("first stage: static vectors and BM25", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("after the cross-encoder has read", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("", width=4, justify="right")
    rows = max(len(answer.first_stage), len(answer.results))
    for row in range(rows):
        first = _name(answer.first_stage[row]) if row < len(answer.first_stage) else ""
        if row < len(answer.results):
            moved = movement(answer.first_stage_places[row], row + 1)
            table.add_row(str(row + 1), first, _name(answer.results[row]), moved)
        else:
            table.add_row(str(row + 1), first, "", "")
    console.print(table)
    for hit in answer.results[:1]:
        start, end = hit.read or (0, len(hit.text))
        console.print(Padding(snippet(hit.text[start:end], (), 150), (0, 0, 0, 2)))
    timings = answer.results.timings
    console.print(
        f"  first stage {timings.encode + timings.retrieve:.1f} ms, cross-encoder {timings.rerank:.1f} ms "
        f"for {answer.results.reranked:,} of {answer.results.candidates:,} candidates",
        style="dim",
    )
    for warning in answer.results.warnings:
        console.print(f"  warning: {visible(warning)}", style="yellow")


def _name(hit: Hit) -> str:
    return visible(hit.title or hit.document_id)


def _next_commands(keep: Path | None) -> tuple[str, ...]:
    first = 'retrieval search "your question"' if keep is None else f'retrieval search "your question" --index {keep}'
    return ("retrieval ingest PATH", f"{first} --explain", "retrieval doctor")
