"""What a calibration found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from pipelines.render.tables import facts
from retrieval.rerankers import PlattCalibration

if TYPE_CHECKING:
    from pipelines.calibrate import CalibrateReport


def render_calibration(console: Console, report: CalibrateReport, again: str) -> None:
    """The threshold, what it promises, and what other targets would cost.

    Args:
        console: Where to.
        report: What was fitted.
        again: A search that uses it.
    """
    own, threshold = report.labels == "own", report.threshold
    rows = [
        ("threshold", f"probability {threshold.probability:.3f}, for a precision of {threshold.target:g}"),
        ("on its labels", _worth(threshold.precision, threshold.recall)),
    ]
    if own:
        kept = "too few queries to tell" if report.held_out is None else _worth(*report.held_out)
        rows.append(("on others, held out", kept))
        rows.append(("fitted to", f"{report.queries:,} judged queries, {report.found:,} with a judged passage read"))
        rows.append(("without an answer", f"{report.no_answer:.0%} of the weight"))
    else:
        rows.append(("fitted to", "the development sets of the cross-encoder; --qrels fits it to your own"))
    if report.before is not None:
        rows.append(("before", f"probability {report.before.probability:.3f}, for {report.before.target:g}"))
    rows.append(("cross-encoder", report.reranker))
    if isinstance(report.passages, PlattCalibration):
        rows.append(
            ("probability", f"1 / (1 + exp(-({report.passages.slope:.3f} logit {report.passages.intercept:+.3f})))")
        )
    rows.append(("seconds", f"{report.seconds:.1f}"))
    console.print(facts(rows))
    if len(report.others) > 1:
        console.print(_others(report))
    console.print(f"use it with: {again}", style="dim")


def _worth(precision: float, recall: float) -> str:
    return f"precision {precision:.2f}; {recall:.0%} of the queries with an answer get it"


def _others(report: CalibrateReport) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("target precision", "threshold", "precision", "answered rightly"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in report.others:
        chosen = "bold" if one.target == report.threshold.target else ""
        cells = (f"{one.target:g}", f"{one.probability:.3f}", f"{one.precision:.2f}", f"{one.recall:.0%}")
        table.add_row(*cells, style=chosen)
    return table
