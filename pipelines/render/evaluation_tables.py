"""The words and cells of an evaluation, the same for the terminal, Markdown and HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from pipelines.render.output import visible

if TYPE_CHECKING:
    from pipelines.evaluation import CollectionReport, Evaluation, SystemResult
    from retrieval.evaluation import Comparison

NONE = "-"
_CUT = re.compile(r"@(\d+)")
_SIGNS = {"better": "▲", "worse": "▼", "open": "="}


@dataclass(frozen=True, slots=True)
class Grid:
    """A table.

    Args:
        title: What it shows.
        header: One text for each column; the first column names the row.
        rows: Cells.
        words: Positions of columns that hold words, not numbers.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: tuple[int, ...] = (0,)


def heading(report: CollectionReport) -> str:
    """Which collection, and how much of it."""
    counts = f"{len(report.queries):,} judged queries"
    if report.setups:
        counts += f", {report.setups[0].documents:,} documents, {report.setups[0].passages:,} passages"
    return f"{visible(report.name)} ({visible(report.split)}): {counts}"


def findings(report: CollectionReport, measure: str) -> list[str]:
    """One sentence for each system that is compared."""
    return [_finding(one) for one in report.comparisons if one.measure == measure]


def quality(report: CollectionReport) -> Grid:
    """Means of all measures, with the interval of the first."""
    first, *others = report.measures
    rows = []
    for system in report.systems:
        low, high = system.intervals[first]
        cells = [f"{system.means[first]:.3f}", f"{low:.3f}-{high:.3f}"]
        rows.append((visible(system.name), *cells, *(f"{system.means[measure]:.3f}" for measure in others)))
    return Grid("Quality", ("", first, "95 %", *others), tuple(rows))


def comparisons(report: CollectionReport) -> list[Grid]:
    """Every other system against the baseline, one table for each measure."""
    return [
        Grid(
            f"{measure} against {visible(report.baseline)}",
            ("", "diff", "95 %", "p", "verdict"),
            tuple(_compared(one) for one in report.comparisons if one.measure == measure),
            words=(0, 4),
        )
        for measure in report.measures
        if report.comparisons
    ]


def other_comparisons(report: CollectionReport) -> Grid | None:
    """All measures but the first in one table, with signs for words; ``None`` where nothing is compared."""
    others = report.measures[1:]
    if not others or not report.comparisons:
        return None
    rows = []
    for system in report.systems:
        found = [report.against_baseline(system.name, measure) for measure in others]
        if system.name != report.baseline:
            rows.append(
                (visible(system.name), *(f"{signed(one.difference)} {_SIGNS[one.outcome]}" for one in found if one))
            )
    return Grid(f"Other measures against {visible(report.baseline)}: {marks(report)}", ("", *others), tuple(rows))


def cost(report: CollectionReport) -> Grid | None:
    """Time, bytes and money; ``None`` where nothing was run here."""
    systems = [system for system in report.systems if system.latency is not None]
    if not systems:
        return None
    header = ["", "p50 ms", "p95 ms", "queries/s", "bytes/passage", "passages read"]
    if report.price_per_hour is not None:
        header.append("cost/million")
    return Grid("Time and bytes", tuple(header), tuple(_cost_row(report, system) for system in systems))


def overview(evaluation: Evaluation) -> Grid | None:
    """The first measure of all collections side by side; ``None`` for a single collection."""
    reports = evaluation.collections
    if len(reports) < 2:
        return None
    measure, names = reports[0].measures[0], [system.name for system in reports[0].systems]
    rows = []
    for position, name in enumerate(names):
        cells = [f"{report.systems[position].means[measure]:.3f}{_mark(report, name, measure)}" for report in reports]
        rows.append((visible(name), *cells))
    header = ("", *(visible(report.name) for report in reports))
    return Grid(f"{measure}: {marks(reports[0])}", header, tuple(rows))


def marks(report: CollectionReport) -> str:
    """What the signs of the overview say."""
    baseline = visible(report.baseline)
    return f"▲ better than {baseline}, ▼ worse, = not distinguishable"


def notes(report: CollectionReport) -> list[str]:
    """How it was measured and what the numbers leave out."""
    lines = []
    if report.comparisons:
        lines.append(
            "p: paired randomization test, corrected after Holm for all comparisons of this collection; intervals: "
            "paired bootstrap, not corrected; below 0.05 a difference counts."
        )
    for system in report.systems:
        if system.unanswered:
            lines.append(f"{visible(system.name)}: {system.unanswered:,} judged queries without results count as zero.")
    if report.setups:
        lines.append(
            f"Latency: {report.timed_queries:,} queries one after another, {report.timed_top_k} hits each, after a "
            "warm-up. Bytes: what the first stage searches, without texts and ids."
        )
    if deep := _beyond_candidates(report):
        lines.append(deep)
    if report.price_per_hour is not None:
        lines.append(f"Cost: a million queries one after another at {report.price_per_hour:g} an hour.")
    for setup in report.setups:
        if setup.rejected:
            lines.append(f"{setup.rejected:,} documents could not be used and cannot be found.")
    lines += dict.fromkeys(f"Encoder {s.encoder}; reranker {visible(s.reranker)}." for s in report.setups)
    return lines


def _beyond_candidates(report: CollectionReport) -> str:
    """What measures that look further down than searches fetch leave out; empty where none does."""
    for setup in report.setups[:1]:
        candidates = int(cast("dict[str, int]", setup.config["first_stage"])["candidates"])
        deep = [name for name in report.measures if any(int(cut) > candidates for cut in _CUT.findall(name))]
        if deep:
            return (
                f"{', '.join(deep)}: searches fetch {candidates:,} candidates (first_stage.candidates), and nothing "
                "below counts."
            )
    return ""


def machine(evaluation: Evaluation) -> str:
    """Where and when."""
    facts = evaluation.machine
    return (
        f"{visible(str(facts['processor']))}, {facts['cpus']} CPUs, Python {facts['python']}, "
        f"two-stage-retrieval {evaluation.version}, {evaluation.date[:10]}"
    )


def signed(value: float) -> str:
    """A difference with its sign."""
    return f"{value:+.3f}"


def span(interval: Sequence[float]) -> str:
    """An interval of differences."""
    low, high = interval
    return f"{low:+.3f} to {high:+.3f}"


def _finding(one: Comparison) -> str:
    system, baseline = visible(one.system), visible(one.baseline)
    numbers = f"{signed(one.difference)}, 95 % {span(one.interval)}"
    if one.outcome == "open":
        return f"{system} and {baseline}: {one.verdict} in {one.measure} ({numbers})"
    return f"{system} is {one.outcome} than {baseline} in {one.measure} ({numbers})"


def _compared(one: Comparison) -> tuple[str, ...]:
    p = "<.001" if one.p_corrected < 0.001 else f"{one.p_corrected:.3f}"
    return visible(one.system), signed(one.difference), span(one.interval), p, one.verdict


def _cost_row(report: CollectionReport, system: SystemResult) -> tuple[str, ...]:
    latency = system.latency
    assert latency is not None
    row = [
        visible(system.name),
        f"{latency.p50:.1f}",
        f"{latency.p95:.1f}",
        f"{latency.queries_per_second:,.{1 if latency.queries_per_second < 10 else 0}f}",
        NONE if system.bytes_per_passage is None else f"{system.bytes_per_passage:,.0f}",
        NONE if system.reranked is None else f"{system.reranked:.1f}",
    ]
    if report.price_per_hour is not None:
        row.append(NONE if system.cost_per_million is None else f"{system.cost_per_million:.3g}")
    return tuple(row)


def _mark(report: CollectionReport, system: str, measure: str) -> str:
    one = report.against_baseline(system, measure)
    return "  " if one is None else f" {_SIGNS[one.outcome]}"
