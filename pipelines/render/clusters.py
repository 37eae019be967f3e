"""The clusters of an index as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.render.output import visible

if TYPE_CHECKING:
    from pipelines.corpus_views.clusters import ClustersReport


def render_clusters(console: Console, report: ClustersReport) -> None:
    """One row for each cluster, the largest first.

    Args:
        console: Where to.
        report: The clusters.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", expand=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column(f"{report.by}s", justify="right", no_wrap=True)
    table.add_column("telling words", ratio=3)
    table.add_column("in its middle", ratio=2, overflow="ellipsis", no_wrap=True)
    for cluster in report.clusters:
        name, title = cluster.central[0]
        words = Text(visible(cluster.label), style="bold")
        if len(cluster.terms) > 3:
            words.append(visible(f", {', '.join(cluster.terms[3:])}"), style="not bold")
        table.add_row(f"{cluster.number}", f"{cluster.size:,}", words, visible(title or name))
    console.print(table)
    shown = f"{len(report.points):,} {report.by}s"
    if len(report.points) < report.total:
        shown = f"a sample of {len(report.points):,} of {report.total:,} {report.by}s"
    tried = ", ".join(f"{count}: {score:.3f}" for count, score in report.silhouettes)
    console.print(f"{shown}, {report.seconds:.1f} s" + (f"; silhouettes {tried}" if tried else ""), style="dim")
