"""Progress and report of an adaptation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from pipelines.render.output import live_line, visible
from pipelines.render.tables import facts

if TYPE_CHECKING:
    from pipelines.adapt import AdaptReport
    from pipelines.generations import RollbackReport
    from retrieval.training.adapt import AdaptProgress


@contextmanager
def adapt_progress(*, quiet: bool) -> Iterator[Callable[[AdaptProgress], None] | None]:
    """A live bar on stderr: the stage, how far it is, loss, self-check and time; ``None`` where nobody watches."""
    with live_line(quiet=quiet, bar_width=20) as line:
        if line is None:
            yield None
            return

        def show(progress: AdaptProgress) -> None:
            counts = f"{progress.done:,} of {progress.of:,}"
            if progress.loss is not None:
                counts += f"  loss {progress.loss:.3f}"
            if progress.check is not None:
                counts += f"  check {progress.check:+.3f}"
            line.show(progress.stage, counts, done=progress.done, of=progress.of)

        yield show


def render_adaptation(console: Console, report: AdaptReport, *, dry_run: bool, rollback: str) -> None:
    """What an adaptation found and changed.

    Args:
        console: Where to.
        report: What it did.
        dry_run: Whether it was not to change anything.
        rollback: The command that takes it back.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("held-out queries", no_wrap=True)
    for name in ("number", "before", "after", "change", "95 %"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in report.rows:
        style = "green" if row.low > 0 else "red" if row.high < 0 else ""
        change = f"{row.after - row.before:+.3f}"
        interval = f"{row.low:+.3f} to {row.high:+.3f}"
        table.add_row(
            visible(row.kind),
            f"{row.queries:,}",
            f"{row.before:.3f}",
            f"{row.after:.3f}",
            change,
            interval,
            style=style,
        )
    console.print(table)
    console.print(visible(report.reason))
    console.print(facts(_outcome(report, dry_run=dry_run, rollback=rollback)))


def render_rollback(console: Console, report: RollbackReport) -> None:
    """What a rollback did."""
    rows = [("generation", f"{report.generation} is live"), ("encoder", visible(report.encoder))]
    if report.encoded:
        rows.append(("encoded", f"{report.encoded:,} passages, because the index had changed since"))
    if report.previous is not None:
        rows.append(("previous", f"generation {report.previous}; --rollback again returns to it, --discard erases it"))
    rows.append(("seconds", f"{report.seconds:.1f}"))
    console.print(facts(rows))


def _outcome(report: AdaptReport, *, dry_run: bool, rollback: str) -> list[tuple[str, str]]:
    live = f"{report.generation} is live" if report.switched else f"{report.generation} stays"
    weight = f"{report.dense_weight:.2f} for the dense arm"
    if report.dense_weight != report.dense_weight_before:
        weight += f", {report.dense_weight_before:.2f} before"
    rows = [
        ("generation", f"{live}; nothing was changed" if dry_run else live),
        ("encoder", visible(report.encoder)),
        ("fusion", weight),
        ("trained", f"{report.steps:,} steps on {report.sampled:,} passages in {report.training_seconds:.1f} s"),
    ]
    if report.switched:
        rows.append(("encoded", f"{report.encoded:,} passages"))
    rows.append(("seconds", f"{report.seconds:.1f}"))
    if report.switched and report.previous is not None:
        rows.append(("previous", f"generation {report.previous} is kept; go back to it with"))
        rows.append(("", rollback))
    return rows
