"""What an export has written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from pipelines.render.output import visible
from pipelines.render.tables import facts, megabytes

if TYPE_CHECKING:
    from pipelines.export import ExportReport


def render_export(console: Console, report: ExportReport) -> None:
    """Where it is, what it is, and what another library makes differently.

    Args:
        console: Where to.
        report: What was written.
    """
    loss = "none, every number is kept" if report.exact else f"lowest cosine of a token {report.lowest_cosine:.5f}"
    rows = [
        ("folder", visible(str(report.folder))),
        ("model", visible(report.model)),
        ("origin", visible(report.origin)),
        ("table", f"{report.tokens:,} tokens, {report.dim} dimensions, {report.precision}"),
        ("loss", loss),
        ("size", megabytes(report.bytes)),
    ]
    if report.passages is not None:
        one = report.passages
        rows.append(("passages", f"{one.passages:,} of {one.documents:,} documents"))
    console.print(facts(rows))
    for limit in report.limits:
        console.print(f"what differs: {visible(limit)}", style="yellow")
    console.print(
        "open it: StaticModel.from_pretrained(DIR) or SentenceTransformer(DIR); see its README.md", style="dim"
    )
