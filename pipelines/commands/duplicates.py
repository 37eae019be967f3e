"""`retrieval duplicates`: a report of near-equal documents or passages."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from pipelines.commands.invocation import Invocation


class OfName(StrEnum):
    """Choices of ``--of``."""

    DOCUMENT = "document"
    PASSAGE = "passage"


class WithinName(StrEnum):
    """Choices of ``--within``."""

    CORPUS = "corpus"
    DOCUMENT = "document"


def duplicates(
    invocation: Invocation,
    of: Annotated[
        OfName | None,
        typer.Option(help="Compare whole documents or passages.  [default: document]", show_default=False),
    ] = None,
    within: Annotated[
        WithinName, typer.Option(help="Compare passages with all others, or inside of their document.")
    ] = WithinName.CORPUS,
    threshold: Annotated[
        float | None, typer.Option(metavar="X", help="Share of word triples from which two are near-equal.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(metavar="JSON", help="Qdrant filter; metadata stands under 'metadata.'.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="How many groups to show; --json has all.")] = 20,
) -> None:
    """Report groups of near-equal documents; nothing is removed.

    The index proposes what lies close, the words decide. Pairs with a negation, a number or a word exchanged are shown
    apart.
    """
    from pipelines.commands.filter_option import parse_where
    from pipelines.render.duplicates import render_duplicates
    from pipelines.render.output import output_console, step_progress, write_json

    unit = of or (OfName.DOCUMENT if within is WithinName.CORPUS else OfName.PASSAGE)
    filter_ = None if where is None else parse_where(where)
    with invocation.open_existing() as pipeline, step_progress(quiet=invocation.quiet) as on_progress:
        report = pipeline.duplicates(
            of=unit.value, within=within.value, threshold=threshold, where=filter_, on_progress=on_progress
        )
    if invocation.json:
        write_json(report)
    else:
        render_duplicates(output_console(), report, top)
