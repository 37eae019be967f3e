"""`retrieval map`: clusters with labels, and a map of them as an HTML page."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.invocation import Invocation


class ByName(StrEnum):
    """Choices of ``--by``."""

    DOCUMENT = "document"
    PASSAGE = "passage"


def map_index(
    invocation: Invocation,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the map to this HTML file.")] = None,
    clusters: Annotated[
        int | None, typer.Option(min=1, max=100, metavar="N", help="How many.  [default: chosen by the silhouette]")
    ] = None,
    by: Annotated[ByName, typer.Option(help="A point for each document or each passage.")] = ByName.DOCUMENT,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Take a uniform sample where there are more.")] = 3_000,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of sample, clusters and map.")] = 0,
    where: Annotated[
        str | None, typer.Option(metavar="JSON", help="Qdrant filter; metadata stands under 'metadata.'.")
    ] = None,
) -> None:
    """Put the documents of the index into clusters with labels, and draw a map of them that works without a network."""
    from pipelines.commands.filter_option import parse_where
    from pipelines.render.clusters import render_clusters
    from pipelines.render.map_html import map_page
    from pipelines.render.output import output_console, step_progress, write_json

    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise ValueError(f"--out {out} is not a file in a folder that exists")
    filter_ = None if where is None else parse_where(where)
    with invocation.open_existing() as pipeline, step_progress(quiet=invocation.quiet) as on_progress:
        report = pipeline.clusters(
            by=by.value,
            count=clusters,
            limit=limit,
            seed=seed,
            where=filter_,
            mapped=out is not None or invocation.json,
            on_progress=on_progress,
        )
        name = Path(pipeline.store.location).name
    if out is not None:
        out.write_text(map_page(report, name), encoding="utf-8")
    if invocation.json:
        write_json(report)
        return
    render_clusters(output_console(), report)
    if out is not None:
        invocation.notice(f"wrote {out}")
