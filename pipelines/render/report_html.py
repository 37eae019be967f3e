"""An evaluation as one HTML file: tables, plots and the queries that gained and lost most; it loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from pipelines.render import evaluation_tables as tables
from pipelines.render import loss_plot, loss_tables
from pipelines.render import report_plots as plots
from pipelines.render.evaluation_tables import Grid
from pipelines.render.output import visible
from pipelines.render.report_svg import require_plotting

if TYPE_CHECKING:
    from pipelines.evaluation import CollectionReport, Evaluation, LossReport

_TEMPLATE = "report.html.j2"
_EXTREMES = 5
_QUERY_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class _Losses:
    """What the template shows of where relevant documents were lost."""

    verdict: str
    figure: str
    way: Grid
    advice: Sequence[str]
    arms: Grid


@dataclass(frozen=True, slots=True)
class _Section:
    """What the template shows of one collection."""

    heading: str
    findings: Sequence[tuple[str, str]]
    quality: Grid
    comparisons: Sequence[Grid]
    cost: Grid | None
    figures: Sequence[tuple[str, str]]
    extremes: Sequence[Grid]
    losses: _Losses | None
    notes: Sequence[str]


def html_report(evaluation: Evaluation) -> str:
    """The page, in the light or dark theme of whoever looks at it.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    require_plotting()
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(files("pipelines.render").joinpath(_TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        title=", ".join(visible(report.name) for report in evaluation.collections),
        machine=tables.machine(evaluation),
        command=visible(evaluation.command),
        overviews=[one for one in (tables.overview(evaluation), loss_tables.overview(evaluation)) if one is not None],
        sections=[_section(report) for report in evaluation.collections],
    )


def _section(report: CollectionReport) -> _Section:
    measure = report.measures[0]
    outcomes = [one.outcome for one in report.comparisons if one.measure == measure]
    figures = [
        ("Quality against latency: up and left is better.", plots.quality_against_latency(report, measure)),
        ("Quality against bytes: up and left is better.", plots.quality_against_bytes(report, measure)),
        (
            f"Gains and losses: how much better or worse every query came out than with {visible(report.baseline)}.",
            plots.gains_and_losses(report, measure),
        ),
    ]
    return _Section(
        heading=tables.heading(report),
        findings=list(zip(outcomes, tables.findings(report, measure), strict=True)),
        quality=tables.quality(report),
        comparisons=tables.comparisons(report),
        cost=tables.cost(report),
        figures=[(caption, svg) for caption, svg in figures if svg],
        extremes=_extremes(report, measure),
        losses=_losses(report.losses, report.name) if report.losses is not None else None,
        notes=[*tables.notes(report), *(loss_tables.notes(report.losses) if report.losses is not None else ())],
    )


def _losses(losses: LossReport, name: str) -> _Losses:
    from pipelines.evaluation.advice import verdict

    return _Losses(
        verdict=verdict(losses),
        figure=loss_plot.waterfall(losses, name),
        way=loss_tables.way(losses),
        advice=[visible(sentence) for sentence in losses.advice],
        arms=loss_tables.arms(losses),
    )


def _extremes(report: CollectionReport, measure: str) -> list[Grid]:
    """The queries with the largest gains and losses of each system."""
    values = {system.name: system.per_query[measure] for system in report.systems}
    base = values[report.baseline]
    grids = []
    for name, own in values.items():
        changed = sorted((own[query] - base[query], query) for query in base if own[query] != base[query])
        lost = [pair for pair in changed[:_EXTREMES] if pair[0] < 0]
        gained = [pair for pair in reversed(changed[-_EXTREMES:]) if pair[0] > 0]
        if not changed:
            continue
        rows = [
            (
                visible(query),
                _shown(report.queries[query]),
                f"{base[query]:.3f}",
                f"{own[query]:.3f}",
                tables.signed(by),
            )
            for by, query in (*gained, *reversed(lost))
        ]
        header = ("id", "query", visible(report.baseline), visible(name), "difference")
        grids.append(Grid(f"{visible(name)}: largest gains and losses", header, tuple(rows), words=(0, 1)))
    return grids


def _shown(text: str) -> str:
    text = visible(text)
    return text if len(text) <= _QUERY_CHARACTERS else f"{text[: _QUERY_CHARACTERS - 1]}…"
