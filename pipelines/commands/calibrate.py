"""`retrieval calibrate`: from which probability on a hit is a good answer, stored with the index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.invocation import Invocation


def calibrate(
    invocation: Invocation,
    target_precision: Annotated[
        float, typer.Option(metavar="P", help="Share of the answered queries that shall have a relevant hit.")
    ] = 0.8,
    queries: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Your queries: one to a line, or BEIR's queries.jsonl.")
    ] = None,
    qrels: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Judgements of --queries, or a BEIR folder.")
    ] = None,
    unanswerable: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Queries that the index does not answer, one to a line.")
    ] = None,
    no_answer: Annotated[
        float | None, typer.Option(metavar="X", help="Share of queries without an answer.  [default: 0.5]")
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Judged queries at most.  [default: 1,000]")
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Erase what was stored.")] = False,
) -> None:
    """Fit from which probability on a hit is a good answer, and store it with the index.

    With --qrels it is fitted to your judgements, with half of the weight on queries without an answer: those of
    --unanswerable, or the judged ones with their judged documents left out. Without, the figures of the bundled
    cross-encoder are taken. 'search --min-score auto' then shows only what reaches it.
    """
    from pipelines.quantization.queries import read_judged, read_queries
    from pipelines.render.calibrate import render_calibration
    from pipelines.render.output import output_console, step_progress, write_json

    if off:
        if any(value is not None for value in (queries, qrels, unanswerable, no_answer, sample)):
            raise ValueError("--off stands alone; leave the other options out")
        _forget(invocation)
        return
    texts, judgements = None, None
    if qrels is not None:
        texts, judgements = read_judged(qrels, queries)
    elif queries is not None:
        raise ValueError(f"--queries {queries} need their judgements: name them with --qrels, or leave both out")
    strange = [] if unanswerable is None else list(read_queries(unanswerable).values())
    with invocation.open_existing() as pipeline, step_progress(quiet=invocation.quiet) as on_progress:
        report = pipeline.calibrate(
            queries=texts,
            qrels=judgements,
            target_precision=target_precision,
            no_answer=no_answer,
            unanswerable=strange,
            sample=sample,
            on_progress=on_progress,
        )
    if invocation.json:
        write_json(report)
    else:
        render_calibration(output_console(), report, invocation.again("search --min-score auto QUERY"))


def _forget(invocation: Invocation) -> None:
    from pipelines.render.output import output_console, write_json

    with invocation.open_existing() as pipeline:
        there = pipeline.forget_calibration()
    if invocation.json:
        write_json({"erased": there})
    else:
        output_console().print("erased" if there else "nothing was stored")
