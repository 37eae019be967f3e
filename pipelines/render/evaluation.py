"""The tables of an evaluation in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.render import evaluation_tables as tables
from pipelines.render.evaluation_tables import Grid

if TYPE_CHECKING:
    from pipelines.evaluation import CollectionReport, Evaluation


def render_evaluation(console: Console, evaluation: Evaluation) -> None:
    """Quality, differences and cost of every system, collection by collection, and what was measured how."""
    for number, report in enumerate(evaluation.collections):
        if number:
            console.print()
        _render_collection(console, report)
    overview = tables.overview(evaluation)
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
    console.print()
    for note in tables.notes(report):
        console.print(note, style="dim")


def _render_grid(console: Console, grid: Grid) -> None:
    console.print(f"\n{grid.title}", style="bold")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for position, title in enumerate(grid.header):
        words = position in grid.words
        table.add_column(title, justify="left" if words else "right", no_wrap=not words)
    for row in grid.rows:
        table.add_row(*map(Text, row))
    console.print(table)
