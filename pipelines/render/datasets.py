"""The list of public collections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from pipelines.render.output import visible

if TYPE_CHECKING:
    from retrieval.evaluation.datasets import PublicDataset


def render_datasets(console: Console, datasets: Sequence[PublicDataset], folder: Path) -> None:
    """Every collection with its size, and whether it is there."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    table.add_column("collection")
    table.add_column("documents", justify="right")
    table.add_column("queries", justify="right")
    table.add_column("split")
    table.add_column("")
    for one in datasets:
        here = "downloaded" if (folder / one.name).is_dir() else ""
        table.add_row(one.name, f"{one.documents:,}", f"{one.queries:,}", one.split, here)
    console.print(table)
    console.print(f"\n'retrieval datasets NAME' downloads one to {visible(str(folder))}", style="dim")
