"""`retrieval quantize`: compress the vectors of an index where that is measured to cost little, or take it back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.invocation import Invocation

if TYPE_CHECKING:
    from retrieval.datatypes import Quantization

_BITS = {"turbo": 2.0, "binary": 1.0}


def quantize(
    invocation: Invocation,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="turbo, binary or scalar.  [default: turbo]")] = None,
    bits: Annotated[
        float | None,
        typer.Option(metavar="N", help="Bits a dimension; turbo: 1, 1.5, 2, 4, 8; binary: 1, 1.5, 2.  [default: 2, 1]"),
    ] = None,
    query_bits: Annotated[
        int | None, typer.Option(metavar="N", help="Bits of the query of binary vectors: 4 or 8.")
    ] = None,
    oversampling: Annotated[
        float | None, typer.Option(metavar="X", help="Times the candidates that are rescored.  [default: 3]")
    ] = None,
    rescore: Annotated[
        bool | None,
        typer.Option("--rescore/--no-rescore", help="Rescore with the original vectors.  [default: rescore]"),
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Real queries: one to a line, or BEIR's queries.jsonl.")
    ] = None,
    qrels: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Judgements of --queries, or a BEIR folder: nDCG@10 decides.")
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Queries at most.  [default: 200 made, 1,000 real]")
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(metavar="X", help="What may be lost.  [default: 0.005 of nDCG@10, 0.02 of the overlap]"),
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Take quantization back.")] = False,
) -> None:
    """Compress the vectors of the index, measure before and after, and keep it only when little is lost.

    Without --queries, titles and sentences of the index are asked for. Without --qrels the overlap of the 100
    candidates with exact float search decides. Originals stay stored. Exit code 1 when it was taken back, or when the
    engine did not compress an index of this size.
    """
    options = (kind, bits, query_bits, oversampling, rescore)
    if off and any(value is not None for value in (*options, queries, qrels, sample, max_loss)):
        raise ValueError("--off stands alone; leave the other options out")
    from pipelines.quantization.queries import read_judged, read_queries
    from pipelines.render.output import output_console, step_progress, write_json
    from pipelines.render.quantize import render_quantization

    wanted = _wanted(off, *options)
    texts, judgements = None, None
    if qrels is not None:
        texts, judgements = read_judged(qrels, queries)
    elif queries is not None:
        texts = read_queries(queries)
    with invocation.open_existing() as pipeline, step_progress(quiet=invocation.quiet) as on_progress:
        report = pipeline.quantize(
            wanted, queries=texts, qrels=judgements, sample=sample, max_loss=max_loss, on_progress=on_progress
        )
    if invocation.json:
        write_json(report)
    else:
        render_quantization(output_console(), report, invocation.again("quantize --off"))
    if not report.done:
        invocation.fail(report.reason)


def _wanted(
    off: bool,
    kind: str | None,
    bits: float | None,
    query_bits: int | None,
    oversampling: float | None,
    rescore: bool | None,
) -> Quantization:
    from retrieval.config import parse_config
    from retrieval.datatypes import Quantization

    if off:
        return Quantization()
    kind = kind or "turbo"
    if kind == "none":
        raise ValueError("--kind none takes quantization back; say --off")
    given = {
        "kind": kind,
        "bits": _BITS.get(kind) if bits is None else bits,
        "query_bits": query_bits,
        "oversampling": oversampling,
        "rescore": rescore,
    }
    settings = {name: value for name, value in given.items() if value is not None}
    return parse_config({"quantization": settings}, origin="the options").quantization.record()
