"""A plan as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from pipelines.render.output import visible
from pipelines.render.tables import facts

if TYPE_CHECKING:
    from pipelines.plan import Plan


def render_plan(console: Console, plan: Plan) -> None:
    """What is kept of a passage, and what all of them take."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("one passage", no_wrap=True)
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("kept", no_wrap=True)
    for part in plan.parts:
        table.add_row(part.name, f"{part.bytes:,.0f}", "in memory" if part.in_memory else "on disk")
    memory = sum(part.bytes for part in plan.parts if part.in_memory)
    table.add_row("all", f"{sum(part.bytes for part in plan.parts):,.0f}", f"{memory:,.0f} in memory", style="bold")
    console.print(table)
    console.print(facts(_rows(plan)))
    console.print("every constant has a source: docs/scale.md, and --json")


def _rows(plan: Plan) -> list[tuple[str, str]]:
    options, node = plan.options, plan.options.node
    generations = "" if options.generations == 1 else f", {options.generations} generations"
    return [
        ("passages", f"{options.passages:,} of {options.dims} dimensions, {_copies(plan.replicas)}{generations}"),
        ("memory", f"{plan.memory_gib:,.1f} GiB"),
        ("disk", f"{plan.disk_gb:,.1f} GB"),
        ("nodes", f"{plan.nodes:,} of {node.memory_gib:g} GiB and {node.cores} cores, for {plan.bound_by}"),
        ("shards", f"{plan.shards:,}"),
        ("first stage", f"{_rate(plan.rate)} queries/s, limited by {plan.rate_bound_by}"),
        ("", f"{plan.milliseconds:,.1f} ms for a query on an idle cluster"),
        ("", f"{plan.core_ms:,.1f} core-ms and {plan.reads:,.0f} reads from disk for a query"),
        ("reranking", _reranking(plan)),
        ("ingest", f"{_hours(plan.encode_hours)} to encode on {options.ingest_cores} cores"),
        ("", f"{_hours(plan.build_hours)} to build the indexes on the cluster"),
        ("cost", f"${plan.dollars_per_month:,.0f} a month for the cluster"),
        ("", f"${plan.service_dollars_per_month:,.0f} a month for the cores that rerank"),
        *(("note", visible(note)) for note in plan.notes),
    ]


def _copies(replicas: int) -> str:
    return "1 copy" if replicas == 1 else f"{replicas} copies"


def _reranking(plan: Plan) -> str:
    depth, rate = plan.options.depth, plan.options.rate or plan.rate
    if not depth:
        return "none"
    return f"{plan.service_cores:,} cores of the service read {depth} for each of {_rate(rate)} queries/s"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:,.2g}"


def _hours(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{hours * 60:,.1f} min"
