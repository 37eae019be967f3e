"""`retrieval search`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipelines.commands.filter_option import parse_where
from pipelines.commands.invocation import Invocation

if TYPE_CHECKING:
    from pipelines.search_options import SearchArguments

_IDLE_S = 2.0
_WAIT_S = 20.0


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
    query: Annotated[
        str | None,
        typer.Argument(help="What to look for; without it a prompt, or one query a line where input is no terminal."),
    ] = None,
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
    min_score: Annotated[
        str | None,
        typer.Option(metavar="P", help="Leave out hits with a lower probability, 0 to 1; auto: what calibrate stored."),
    ] = None,
    exact: Annotated[
        bool | None, typer.Option("--exact/--no-exact", help="Search all vectors as given: no graph, no compression.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show the numbers behind each hit.")] = False,
    read_only: Annotated[
        bool | None,
        typer.Option(
            "--read-only/--no-read-only",
            help="Search the last complete state, beside others; by default only where another process has the index.",
        ),
    ] = None,
) -> None:
    """Find the passages that answer a query: both arms fetch candidates, the cross-encoder reads the best."""
    arguments: SearchArguments = {
        "candidates": candidates,
        "depth": depth,
        "budget_ms": budget_ms,
        "rerank": rerank,
        "first_stage": None if first_stage is None else first_stage.value,
        "where": None if where is None else parse_where(where),
        "group_by": None if group_by is None else group_by.value,
        "min_score": None if min_score is None else _probability(min_score),
        "exact": exact,
    }
    if query is not None:
        _answer(invocation, query, top_k, arguments, explain=explain, read_only=read_only)
    elif not invocation.json and sys.stdin.isatty() and sys.stdout.isatty():
        _ask(invocation, top_k, arguments, explain=explain, read_only=read_only)
    else:
        from pipelines.terminal.lines import answer_lines

        with invocation.open_existing(read_only=read_only) as pipeline:
            answer_lines(pipeline, _lines(), top_k, arguments, as_json=invocation.json, explain=explain)


def _answer(
    invocation: Invocation,
    query: str,
    top_k: int | None,
    arguments: SearchArguments,
    *,
    explain: bool,
    read_only: bool | None,
) -> None:
    reads = arguments["rerank"] is not False and arguments["depth"] != 0
    with invocation.open_existing(eager=reads, read_only=read_only) as pipeline:
        from pipelines.explain import matched_spans, query_terms
        from pipelines.render.output import error_console, output_console, plain, write_json

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


def _ask(
    invocation: Invocation, top_k: int | None, arguments: SearchArguments, *, explain: bool, read_only: bool | None
) -> None:
    """A prompt; the index is let go between queries, so that it can be kept up to date meanwhile."""
    from pipelines.lease import IndexLease
    from pipelines.render.output import error_console, output_console
    from pipelines.terminal.history import history_file
    from pipelines.terminal.prompt import run_prompt
    from pipelines.terminal.session import SearchSession
    from pipelines.terminal.settings import Settings

    console, errors = output_console(), error_console()
    lease = IndexLease(
        invocation.resolve,
        idle=_IDLE_S,
        wait=_WAIT_S,
        on_wait=lambda error: errors.print(f"waiting: {error}", style="yellow"),
        read_only=read_only,
        tell=lambda text: invocation.notice(text, style="yellow"),
    )
    try:
        with lease.use() as pipeline:
            settings = Settings(pipeline.config, top_k, arguments)
            invocation.notice(
                f"{pipeline.manifest.documents:,} documents, {pipeline.manifest.passages:,} passages; "
                ":help lists commands, Ctrl-D leaves",
                style="dim",
            )
        run_prompt(
            SearchSession(lease, settings, console, errors, explain=explain, footer=not invocation.quiet),
            history_file(),
        )
    finally:
        lease.close()


def _lines() -> Iterator[str]:
    """The lines of standard input; bytes that are not UTF-8 become question marks."""
    for line in sys.stdin.buffer:
        yield line.decode("utf-8", "replace")


def _probability(text: str) -> float | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--min-score is a probability from 0 to 1 or 'auto', not {text!r}") from None
