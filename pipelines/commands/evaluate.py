"""`retrieval evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.invocation import Invocation

if TYPE_CHECKING:
    from retrieval.config import Config


def evaluate(
    invocation: Invocation,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A collection in the layout of BEIR.")],
    split: Annotated[str, typer.Option(metavar="NAME", help="Which judgements: qrels/NAME.tsv.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N judged queries.")] = None,
    measures: Annotated[
        str, typer.Option(metavar="NAMES", help="Measures, separated by blanks.")
    ] = "nDCG@10 R@100 RR@10",
) -> None:
    """Measure BM25, static vectors, both, and both with the cross-encoder on a judged collection.

    Without --index the collection is ingested into a temporary index. Judged queries without results count as zero.
    Quality comes from all queries, latency from up to 100 of them with as many hits as search.top_k.
    """
    from pipelines.evaluate import evaluate_collection
    from pipelines.render.evaluation import render_evaluation
    from pipelines.render.output import output_console, plain, step_progress, write_json

    config, index = _place(invocation)
    with step_progress(quiet=invocation.quiet) as on_progress:
        report = evaluate_collection(
            folder,
            config,
            index=index,
            split=split,
            limit=limit,
            measures=measures.replace(",", " ").split(),
            on_progress=on_progress,
        )
    if invocation.json:
        record = plain(report)
        for system in record["systems"]:
            # A hundred ids for each query are the business of evaluate_collection.
            del system["run"]
        write_json(record)
    else:
        render_evaluation(output_console(), report)


def _place(invocation: Invocation) -> tuple[Config, Path | None]:
    """Settings and index; no index where none was named, even if there is one in ./index."""
    config = invocation.settings()
    named = invocation.index is not None or getattr(config.store, "path", None) is not None
    return invocation.resolve() if named else (config, None)
