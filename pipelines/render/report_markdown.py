"""An evaluation as Markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pipelines.render import evaluation_tables as tables
from pipelines.render import loss_tables
from pipelines.render.evaluation_tables import Grid
from pipelines.render.output import visible

if TYPE_CHECKING:
    from pipelines.evaluation import CollectionReport, Evaluation, LossReport

_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#])")


def markdown_report(evaluation: Evaluation) -> str:
    """The tables of all collections, with the command that gives them again."""
    blocks = ["# Evaluation", _escaped(tables.machine(evaluation))]
    if evaluation.command:
        blocks.append(f"```console\n$ {visible(evaluation.command)}\n```")
    for overview in (tables.overview(evaluation), loss_tables.overview(evaluation)):
        if overview is not None:
            blocks += _grid(overview, level=2)
    for report in evaluation.collections:
        blocks += _collection(report)
    return "\n\n".join(blocks) + "\n"


def _collection(report: CollectionReport) -> list[str]:
    blocks = [f"## {_escaped(tables.heading(report))}"]
    if found := tables.findings(report, report.measures[0]):
        blocks.append("\n".join(f"* {_escaped(sentence)}" for sentence in found))
    grids = [tables.quality(report), *tables.comparisons(report)]
    if (cost := tables.cost(report)) is not None:
        grids.append(cost)
    for grid in grids:
        blocks += _grid(grid, level=3)
    notes = tables.notes(report)
    if report.losses is not None:
        blocks += _losses(report.losses)
        notes += loss_tables.notes(report.losses)
    if notes:
        blocks.append("\n".join(f"* {_escaped(note)}" for note in notes))
    return blocks


def _losses(losses: LossReport) -> list[str]:
    from pipelines.evaluation.advice import verdict

    sentences = [f"**{_escaped(verdict(losses))}**", *(f"* {_escaped(visible(one))}" for one in losses.advice)]
    way, arms = _grid(loss_tables.way(losses), level=3), _grid(loss_tables.arms(losses), level=4)
    return [*way, "\n\n".join([sentences[0], "\n".join(sentences[1:])]).strip(), *arms]


def _grid(grid: Grid, *, level: int) -> list[str]:
    rule = ["---" if position in grid.words else "--:" for position in range(len(grid.header))]
    lines = [[_escaped(cell) for cell in row] for row in (grid.header, *grid.rows)]
    lines.insert(1, rule)
    return [f"{'#' * level} {_escaped(grid.title)}", "\n".join(f"| {' | '.join(cells)} |" for cells in lines)]


def _escaped(text: str) -> str:
    return _MARKUP.sub(r"\\\1", text)
