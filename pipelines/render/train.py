"""A training while it runs, and what came out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.render.output import live_line, visible

if TYPE_CHECKING:
    from pipelines.train import TrainReport
    from retrieval.training.contrastive.training import TrainProgress

_SHOWN_REJECTIONS = 5
_SHOWN_SETS = 12


@contextmanager
def training_progress(*, quiet: bool) -> Iterator[Callable[[TrainProgress], None]]:
    """A live line on stderr while a training runs; nothing where nobody watches."""
    with live_line(quiet=quiet, bar_width=16, remaining=True) as line:
        if line is None:
            yield lambda progress: None
            return
        yield lambda progress: line.show(progress.stage, _counts(progress), done=progress.done, of=progress.of)


def _counts(progress: TrainProgress) -> str:
    if not progress.of:
        return f"{progress.done:,} pairs"
    counts = f"{progress.done:,}/{progress.of:,}"
    if progress.loss is not None:
        counts += f" loss {progress.loss:.2f}"
    if progress.score is not None:
        counts += f" nDCG@10 {progress.score:.3f}"
    return counts


def render_training(console: Console, report: TrainReport) -> None:
    """What was trained on what, how good it is, and how to use it."""
    out = visible(str(report.out))
    console.print(
        f"{out}: {report.tokens:,} tokens of {report.dimensions} dimensions, started from {visible(report.start)}",
        style="bold",
    )
    _render_data(console, report)
    loss = f", loss {report.losses[0][1]:.2f} → {report.losses[-1][1]:.2f}" if report.losses else ""
    best = f", the best is step {report.best_step:,}" if report.best_step != report.step else ""
    console.print(
        f"training    {report.steps:,} steps in {report.seconds:.0f} s on {report.device} in {report.precision}"
        f"{loss}{best}"
    )
    if report.measured_on is not None:
        console.print(f"measured    nDCG@10 on {visible(report.measured_on)}")
        console.print(_scores(report))
    for warning in report.warnings:
        console.print(f"warning: {warning}", style="yellow")
    console.print()
    console.print("Use it with an index of its own:")
    console.print(f"  retrieval ingest PATH --index NEW --set encoder.model={out}", soft_wrap=True)


def _render_data(console: Console, report: TrainReport) -> None:
    shown = [f"{visible(name)} {count:,}" for name, count in list(report.pairs.items())[:_SHOWN_SETS]]
    if len(report.pairs) > _SHOWN_SETS:
        shown.append(f"{len(report.pairs) - _SHOWN_SETS} more")
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=11, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("pairs", f"{sum(report.pairs.values()):,}: {', '.join(shown)}")
    if report.unknown:
        grid.add_row("", f"{report.unknown:,} pairs have no word that the model knows and were left out")
    if report.rejected_count:
        grid.add_row("", Text(f"{report.rejected_count:,} rows could not be used", style="yellow"))
        for rejected in report.rejected[:_SHOWN_REJECTIONS]:
            grid.add_row("", f"{visible(rejected.source)}: {visible(rejected.reason)}")
        if report.rejected_count > _SHOWN_REJECTIONS:
            grid.add_row("", f"and {report.rejected_count - _SHOWN_REJECTIONS:,} more; --json lists the first 100")
    console.print(grid)


def _scores(report: TrainReport) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("           ", no_wrap=True)
    for name in ("dimensions", "nDCG@10", "95 %"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = [] if report.before is None else [("before", report.before)]
    for name, score in [*rows, *(("after", score) for score in report.after)]:
        table.add_row(name, str(score.dimensions), f"{score.mean:.3f}", f"{score.low:.3f}-{score.high:.3f}")
    return table
