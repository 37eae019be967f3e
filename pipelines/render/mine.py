"""What mining shows: how long it will take, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from pipelines.render.output import error_console, live_line, visible

if TYPE_CHECKING:
    from pipelines.mine import MineProgress, MineReport

_SETTLED = 64
_LONG_SECONDS = 60.0


@contextmanager
def mine_progress(*, quiet: bool) -> Iterator[Callable[[MineProgress], None] | None]:
    """A bar on stderr with the time that is left; where nobody watches, one sentence if it will take long."""
    console = error_console()
    if not quiet and not console.is_terminal:
        yield _estimate_once(console)
        return
    with live_line(quiet=quiet, bar_width=16) as line:
        if line is None:
            yield None
            return

        def show(progress: MineProgress) -> None:
            counts = f"{progress.done:,} of {progress.of:,}" if progress.of else f"{progress.done:,}"
            if progress.seconds_left is not None and progress.done < progress.of:
                counts += f", {duration(progress.seconds_left)} left"
            line.show(progress.stage, counts, done=progress.done, of=progress.of)

        yield show


def _estimate_once(console: Console) -> Callable[[MineProgress], None]:
    said: list[str] = []
    first: list[int] = []

    def show(progress: MineProgress) -> None:
        if progress.stage != "mining" or said:
            return
        first.append(progress.done)
        left = progress.seconds_left
        if left is not None and progress.done - first[0] >= _SETTLED:
            said.append("once")
            if left >= _LONG_SECONDS:
                console.print(f"mining {progress.of:,} queries: {estimate(left, progress.seconds_reading)}")

    return show


def estimate(seconds: float, reading: float) -> str:
    """How long it will take, and how much of that without the cross-encoder."""
    if not reading:
        return f"about {duration(seconds)}"
    return f"about {duration(seconds)}, {duration(reading)} of them in the cross-encoder (--no-rerank leaves it out)"


def duration(seconds: float) -> str:
    """Seconds as people say them: ``40 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def render_mining(console: Console, report: MineReport) -> None:
    """Where the lists are, what they hold, and what was left out and why."""
    counts = report.counts
    console.print(
        f"{visible(report.out)}: {counts.lists:,} lists with {counts.negatives:,} negatives "
        f"for {counts.queries:,} queries, from {report.passages:,} passages"
    )
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(justify="right")
    table.add_column()
    left_out = [
        (counts.known, "candidates left out: known to answer the query"),
        (counts.answered, "left out: hold the answer"),
        (counts.near, "left out: nearly the same as the positive"),
    ]
    if report.reranker:
        left_out.append((counts.dropped, f"left out: {visible(report.reranker)} scores them as answers"))
    left_out.append((counts.queries - counts.lists, "queries without any negative, not in the file"))
    for number, what in left_out:
        table.add_row(f"{number:,}", what)
    console.print(table)
    here = counts.queries - report.resumed
    if report.resumed:
        console.print(f"{report.resumed:,} queries were done by an earlier run", style="dim")
    pace = f"{duration(report.seconds)} for {here:,} queries"
    if report.reranker and report.reading_seconds:
        pace += f", {duration(report.reading_seconds)} of them in the cross-encoder ({counts.read:,} texts read in all)"
    console.print(pace, style="dim")
