"""The table of an evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from pipelines.render.output import visible

if TYPE_CHECKING:
    from pipelines.evaluate import EvaluationReport


def render_evaluation(console: Console, report: EvaluationReport) -> None:
    """Quality and speed of every system, and what was measured how."""
    console.print(
        f"{visible(report.collection)} ({report.split}): {report.queries:,} queries, {report.documents:,} documents, "
        f"{report.passages:,} passages"
    )
    if report.rejected:
        console.print(f"{report.rejected:,} documents could not be used and cannot be found", style="yellow")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True)
    first = report.measures[0] if report.measures else None
    for measure in report.measures:
        table.add_column(_shown_name(measure), justify="right")
        if measure == first:
            table.add_column("95 %", justify="right", style="dim", no_wrap=True)
    for name in ("queries/s", "p50 ms", "p95 ms"):
        table.add_column(name, justify="right")
    for system in report.systems:
        row = [system.name]
        for measure in report.measures:
            row.append(f"{system.means[measure]:.3f}")
            if measure == first:
                low, high = system.intervals[measure]
                row.append(f"{low:.3f}-{high:.3f}")
        latency = system.latency
        table.add_row(*row, f"{latency.queries_per_second:,.0f}", f"{latency.p50:.1f}", f"{latency.p95:.1f}")
    console.print(table)
    console.print(
        f"latency: {report.timed_queries:,} queries one after another, {report.timed_top_k} hits each, "
        f"after a warm-up; {report.machine['cpus']} CPUs",
        style="dim",
    )
    two_stage = report.systems[-1]
    console.print(f"the cross-encoder read {two_stage.reranked:.1f} passages per query on average", style="dim")
    console.print(f"encoder {report.encoder}; reranker {visible(report.reranker)}", style="dim")


def _shown_name(measure: str) -> str:
    # ir_measures writes reciprocal rank as RR; everybody else calls its mean MRR.
    return f"M{measure}" if measure.startswith("RR") else measure
