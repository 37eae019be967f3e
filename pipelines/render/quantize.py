"""What a change of quantization did, and how the vectors of an index are compressed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from pipelines.render.output import visible
from pipelines.render.tables import facts, megabytes
from retrieval.datatypes import Quantization

if TYPE_CHECKING:
    from pipelines.quantization.measure import Measurement
    from pipelines.quantization.quantize import QuantizeReport
    from retrieval.config import HnswConfig
    from retrieval.stores import StoredOrder

_ASKED = {
    "judged": "judged queries",
    "real": "real queries",
    "pseudo": "pseudo-queries made of titles and sentences of the index",
}


def quantization_state(quantization: Quantization, *, interrupted: bool) -> str:
    """How vectors are compressed, for people.

    Args:
        quantization: What searches use.
        interrupted: Whether a change of it was begun and has not ended.
    """
    if interrupted:
        return "none; a change of it was interrupted or is under way: 'retrieval quantize' or 'quantize --off' ends it"
    where = (
        "; passages that came since the last optimization are compared whole" if quantization.kind == "scalar" else ""
    )
    return f"{quantization}{where}"


def order_state(order: StoredOrder, hnsw: HnswConfig) -> str:
    """What an embedded index is searched with, for people.

    Args:
        order: As the index has it.
        hnsw: As configured.
    """
    graph = f"graph with m {hnsw.m}" if order.graph else f"no graph below {hnsw.threshold:,} passages"
    chosen = "chosen by size; " if order.automatic else ""
    fresh = f"; {order.written:,} written since the last optimization" if order.written else ""
    return f"{chosen}{graph}{fresh}"


def render_quantization(console: Console, report: QuantizeReport, off: str) -> None:
    """What was measured and, unless it came to nothing, what was done.

    Args:
        console: Where to.
        report: What a change did.
        off: The command that takes it back.
    """
    if report.before is not None:
        console.print(_table(report.before, report.after))
    if report.done:
        console.print(visible(report.reason), style="green" if report.outcome == "kept" else "")
    rows = [("outcome", report.outcome), ("quantization", str(report.quantization))]
    if report.asked is not None:
        rows.append(("measured on", f"{report.queries:,} {_ASKED[report.asked]}"))
    if report.loss_interval is not None and report.measure is not None:
        low, high = report.loss_interval
        rows.append(("loss", f"{report.loss:+.4f} of {report.measure} (95 % {low:+.4f} to {high:+.4f})"))
    if report.outcome == "kept" and report.after is not None:
        rows.append(("originals", f"{report.vector_bytes:,} bytes a passage stay stored, for rescoring and --off"))
        if report.after.in_effect < 1:
            rows.append(("in effect", f"for {report.after.in_effect:.0%} of the vectors; the engine compresses on"))
    rows.append(("seconds", f"{report.seconds:.1f}"))
    console.print(facts(rows))
    if report.outcome == "kept":
        console.print(f"take it back any time with: {off}", style="dim")


def _table(before: Measurement, after: Measurement | None) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("before", justify="right", no_wrap=True)
    if after is not None:
        table.add_column("after", justify="right", no_wrap=True)
    for name, show in _ROWS:
        shown = [show(one) for one in (before, after) if one is not None]
        if all(cell is not None for cell in shown):
            table.add_row(name, *[cell or "" for cell in shown])
    return table


def _rescored(quantization: Quantization) -> str:
    if quantization.kind == "none":
        return "-"
    return f"{quantization.oversampling:g} x 100" if quantization.rescore else "none"


def _four(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


_ROWS: tuple[tuple[str, Callable[[Measurement], str | None]], ...] = (
    ("quantization", lambda one: str(one.quantization).split(",")[0]),
    ("candidates rescored", lambda one: _rescored(one.quantization)),
    ("overlap with the exact top 100", lambda one: _four(one.overlap)),
    ("nDCG@10, static arm", lambda one: _four(one.ndcg)),
    ("nDCG@10, first stage", lambda one: _four(one.first_stage_ndcg)),
    ("static arm, p50 / p95 ms", lambda one: f"{one.static.p50:.2f} / {one.static.p95:.2f}"),
    ("first stage, p50 / p95 ms", lambda one: f"{one.first_stage.p50:.2f} / {one.first_stage.p95:.2f}"),
    ("vectors searched, bytes a passage", lambda one: f"{one.bytes_per_passage:,.0f}"),
    ("vectors searched, all", lambda one: megabytes(one.bytes)),
)
