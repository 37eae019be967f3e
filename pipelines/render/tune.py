"""What a choice of settings came to: the frontier, the choice, why, and what comes next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from pipelines.render.output import visible
from pipelines.render.tables import facts

if TYPE_CHECKING:
    from pipelines.tuning.report import TunePoint, TuneReport

_ASKED = {
    "judged": "judged queries",
    "real": "real queries without judgements",
    "pseudo": "pseudo-queries made of titles and sentences of the index",
}


def render_tuning(console: Console, report: TuneReport, written: Path | None, following: Sequence[str]) -> None:
    """The whole of it.

    Args:
        console: Where to.
        report: What was found.
        written: The file that was written; ``None`` for none.
        following: Commands that come next.
    """
    console.print(_frontier(report))
    console.print(_legend(report), style="dim")
    console.print()
    console.print(visible(report.reason), style="green" if report.outcome == "changed" else "bold")
    rows = [
        ("measured on", f"{report.queries:,} {_ASKED[report.asked]}, {report.passages:,} passages"),
        *_held_out(report),
    ]
    rows += [(change.key, f"{_value(change.before)} -> {_value(change.after)}") for change in report.changes]
    rows += [("note", visible(note)) for note in report.notes]
    if report.asked != "judged":
        rows.append(("beware", "likeness to exact search at full depth is not relevance; judgements would tell"))
    rows.append(("work", f"{report.settings_tried} settings, {report.pairs:,} pairs at {report.ms_per_pair:.1f} ms"))
    rows.append(("seconds", f"{report.seconds:.1f}"))
    console.print(facts(rows))
    if written is not None:
        console.print(f"wrote {written}", style="bold")
    for command in following:
        console.print(f"next: {command}", soft_wrap=True)


def _frontier(report: TuneReport) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True)
    for name in ("dims", "vectors", "first stage"):
        table.add_column(name, no_wrap=True)
    likeness = report.metric if report.asked == "judged" else "likeness"
    for name in ("depth", "blend", likeness, "p50 ms", "bytes"):
        table.add_column(name, justify="right", no_wrap=True)
    for point in report.frontier:
        table.add_row(*_cells(point), style="green" if point == report.chosen else "")
    return table


def _cells(point: TunePoint) -> list[str]:
    mark = {"present": "now", "chosen": ">", "present, chosen": "> now"}.get(point.name, "")
    vectors = "float" if point.quantization == "none" else point.quantization.split(",")[0]
    bm25 = point.arms == "bm25"
    depth = f"{point.depth}" if point.budget_ms is None else f"{point.depth}, {point.budget_ms:g} ms"
    return [
        mark,
        "-" if bm25 else f"{point.dimensions}",
        "-" if bm25 else vectors,
        _first_stage(point),
        depth if point.depth else "off",
        f"{point.first_stage_weight:.1f}" if point.depth else "-",
        f"{point.quality:.4f}",
        f"{point.p50:,.1f}" if point.p50 < 10 else f"{point.p50:,.0f}",
        f"{point.bytes_per_passage:,.0f}",
    ]


def _first_stage(point: TunePoint) -> str:
    if point.arms != "hybrid":
        return {"bm25": "BM25", "dense": "static"}[point.arms]
    return f"{point.fusion} {point.dense_weight:.2f}"


def _legend(report: TuneReport) -> str:
    of = report.metric if report.asked == "judged" else f"{report.metric} against exact search that reads everything"
    return (
        f"{of}: over the queries that chose. first stage: fusion and weight of the static arm. blend: share of the "
        "first stage. p50: real searches in this run. bytes: read a passage."
    )


def _held_out(report: TuneReport) -> list[tuple[str, str]]:
    comparison = report.comparison
    if report.held_out is None or report.held_out_interval is None or comparison is None:
        return []
    low, high = report.held_out_interval
    least, most = comparison.interval
    present = report.held_out - comparison.difference
    rows = [
        ("held out", f"{report.held_out:.4f} (95 % {low:.4f} to {high:.4f}); now {present:.4f}"),
        (
            "difference",
            f"{comparison.difference:+.4f} (95 % {least:+.4f} to {most:+.4f}), {comparison.gained} better, "
            f"{comparison.lost} worse: {comparison.verdict}",
        ),
    ]
    choices = Counter(fold.chosen or "no change" for fold in report.folds)
    choice, times = choices.most_common(1)[0]
    said = f"{times} of {len(report.folds)} choose {choice}"
    rows.append(("folds", said if times > 1 else f"all {len(report.folds)} choose something else: few queries"))
    return rows


def _value(value: str | float | int | bool | None) -> str:
    return {True: "on", False: "off", None: "none"}[value] if value is None or isinstance(value, bool) else str(value)
