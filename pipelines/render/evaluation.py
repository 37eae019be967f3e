"""The tables of an evaluation in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.render import evaluation_tables as tables
from pipelines.render import loss_tables
from pipelines.render.evaluation_tables import Grid
from pipelines.render.output import visible

if TYPE_CHECKING:
    from pipelines.evaluation import CollectionReport, Evaluation, LossReport


def render_evaluation(console: Console, evaluation: Evaluation) -> None:
    """Quality, differences and cost of every system, collection by collection, and what was measured how."""
    for number, report in enumerate(evaluation.collections):
        if number:
            console.print()
        _render_collection(console, report)
    for overview in (tables.overview(evaluation), loss_tables.overview(evaluation)):
        if overview is not None:
            _render_grid(console, overview)
    console.print(f"\n{tables.machine(evaluation)}", style="dim")


def _render_collection(console: Console, report: CollectionReport) -> None:
    console.print(tables.heading(report), style="bold")
    _render_grid(console, tables.quality(report))
    for grid in (*tables.comparisons(report)[:1], tables.other_comparisons(report)):
        if grid is not None:
            _render_grid(console, grid)
    cost = tables.cost(report)
    if cost is not None:
        _render_grid(console, cost)
    if report.losses is not None:
        _render_losses(console, report.losses)
    console.print()
    for note in (*tables.notes(report), *(loss_tables.notes(report.losses) if report.losses is not None else ())):
        console.print(note, style="dim")


def _render_losses(console: Console, losses: LossReport) -> None:
    from pipelines.evaluation.advice import verdict

    _render_grid(console, loss_tables.way(losses))
    _render_grid(console, loss_tables.arms(losses))
    console.print(f"\n{verdict(losses)}", style="bold")
    for sentence in losses.advice:
        console.print(f"* {visible(sentence)}")


def _render_grid(console: Console, grid: Grid) -> None:
    console.print(f"\n{grid.title}", style="bold")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for position, title in enumerate(grid.header):
        words = position in grid.words
        table.add_column(title, justify="left" if words else "right", no_wrap=not words)
    for row in grid.rows:
        table.add_row(*map(Text, row))
    console.print(table)
