"""`retrieval similar`: the nearest documents of a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.invocation import Invocation
from pipelines.commands.search import FirstStageName

if TYPE_CHECKING:
    from retrieval.datatypes import FirstStage


def similar(
    invocation: Invocation,
    document_id: Annotated[str, typer.Argument(metavar="ID", help="Document id, or source, as search shows it.")],
    top_k: Annotated[int | None, typer.Option("--top-k", "-k", min=1, help="How many documents.")] = None,
    first_stage: Annotated[FirstStageName | None, typer.Option(help="Which arms look for them.")] = None,
    where: Annotated[
        str | None, typer.Option(metavar="JSON", help="Qdrant filter; metadata stands under 'metadata.'.")
    ] = None,
) -> None:
    """Find the documents that are most like one of the index, and tell why."""
    from pipelines.commands.filter_option import parse_where
    from pipelines.render.output import output_console, write_json
    from pipelines.render.similar import render_similar

    arms: FirstStage | None = None if first_stage is None else first_stage.value
    filter_ = None if where is None else parse_where(where)
    with invocation.open_existing() as pipeline:
        found = pipeline.similar(document_id, top_k, where=filter_, first_stage=arms)
    if invocation.json:
        write_json(found)
    else:
        render_similar(output_console(), found, quiet=invocation.quiet)
