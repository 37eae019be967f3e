"""`retrieval search`."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands.invocation import Invocation

if TYPE_CHECKING:
    from pipelines.search_options import SearchArguments


class FirstStageName(StrEnum):
    """Choices of ``--first-stage``."""

    HYBRID = "hybrid"
    DENSE = "dense"
    BM25 = "bm25"


class GroupName(StrEnum):
    """Choices of ``--group-by``."""

    DOCUMENT = "document"
    PASSAGE = "passage"


def search(
    invocation: Invocation,
    query: Annotated[str, typer.Argument(help="What to look for.")],
    top_k: Annotated[int | None, typer.Option("--top-k", "-k", min=1, help="How many hits.")] = None,
    candidates: Annotated[int | None, typer.Option(min=1, help="How many passages the first stage fetches.")] = None,
    depth: Annotated[int | None, typer.Option(min=0, help="How many the cross-encoder may read.")] = None,
    budget_ms: Annotated[float | None, typer.Option(help="Milliseconds after which it stops reading.")] = None,
    rerank: Annotated[bool | None, typer.Option("--rerank/--no-rerank", help="Use the cross-encoder.")] = None,
    first_stage: Annotated[FirstStageName | None, typer.Option(help="Which arms fetch candidates.")] = None,
    where: Annotated[
        str | None, typer.Option(metavar="JSON", help="Qdrant filter; metadata stands under 'metadata.'.")
    ] = None,
    group_by: Annotated[GroupName | None, typer.Option(help="One hit for each document, or each passage.")] = None,
    min_score: Annotated[float | None, typer.Option(help="Leave out hits with a lower final score.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show the numbers behind each hit.")] = False,
) -> None:
    """Find the passages that answer a query: both arms fetch candidates, the cross-encoder reads the best."""
    from pipelines.explain import matched_spans, query_terms
    from pipelines.render.output import error_console, output_console, plain, write_json

    arguments: SearchArguments = {
        "candidates": candidates,
        "depth": depth,
        "budget_ms": budget_ms,
        "rerank": rerank,
        "first_stage": None if first_stage is None else first_stage.value,
        "where": None if where is None else _filter(where),
        "group_by": None if group_by is None else group_by.value,
        "min_score": min_score,
    }
    with invocation.open_existing() as pipeline:
        results = pipeline.search(query, top_k, **arguments)
        terms = query_terms(pipeline.encoder, pipeline.sparse, query) if explain else None
        if invocation.json:
            write_json(plain(results) | ({"terms": plain(terms)} if explain else {}))
            return
        from pipelines.render.hits import render_footer, render_results, render_warnings

        console = output_console()
        render_results(console, results, lambda text: matched_spans(pipeline.sparse, query, text), explained=terms)
        if not invocation.quiet:
            render_footer(console, results)
        render_warnings(error_console(), results)


def _filter(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"--where {text!r} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f'--where takes a JSON object such as {{"must": [...]}}, got {text!r}')
    return value
