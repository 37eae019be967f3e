"""`retrieval train-reranker`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.invocation import Invocation


def train_reranker(
    invocation: Invocation,
    sources: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Lists of 'retrieval mine', or files or folders of pairs.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the cross-encoder.")],
    start: Annotated[
        str, typer.Option(metavar="MODEL", help="BERT sentence transformer to start from: a folder or a hub name.")
    ],
    layers: Annotated[
        str | None, typer.Option(metavar="N", help="Layers to keep, or which: 0,2,5.", show_default="all")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.0, metavar="M", help="Time for training.")] = 45.0,
    epochs: Annotated[int, typer.Option(min=1, metavar="N", help="Passes over the lists at most.")] = 3,
    loss: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="listwise, margin or distil.", show_default="distil with scores"),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Cross-encoder to learn from, or 'ensemble'.")
    ] = None,
    contrast: Annotated[
        float, typer.Option(min=0.0, max=0.9, metavar="SHARE", help="Share of lists that teach negation.")
    ] = 0.1,
    max_tokens: Annotated[int, typer.Option(min=16, max=512, metavar="N", help="Longest pair in training.")] = 144,
    float_copy: Annotated[bool, typer.Option("--float-copy", help="Also write the network unrounded.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model in DIR.")] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Order of the lists and choice of negatives.")] = 0,
) -> None:
    """Train a cross-encoder and write it as an int8 graph that ranks as the float network does.

    A teacher, or lists that 'retrieval mine' has scored, is learnt from too. 'ensemble' is the cosine of MODEL with
    BM25. After Ctrl-C the same command goes on from its last checkpoint. A file DIR.training/stop ends training early.
    """
    from pipelines.render.output import output_console, plain, step_progress, write_json
    from pipelines.render.train_reranker import render_reranker
    from pipelines.train_reranker import RerankerPlan, train_reranker_model
    from retrieval.training.reranker.losses import LOSSES

    if loss is not None and loss not in LOSSES:
        raise ValueError(f"--loss is {', '.join(LOSSES[:-1])} or {LOSSES[-1]}, not {loss!r}")
    plan = RerankerPlan(
        sources=tuple(sources),
        out=out,
        start=start,
        layers=_layers(layers),
        minutes=minutes,
        epochs=epochs,
        loss=loss,  # type: ignore[arg-type]  # checked above
        teacher=teacher,
        contrast=contrast,
        max_tokens=max_tokens,
        float_copy=float_copy,
        overwrite=overwrite,
        seed=seed,
    )
    with step_progress(quiet=invocation.quiet) as on_progress:
        report = train_reranker_model(plan, on_progress)
    if invocation.json:
        write_json(plain(report))
    elif not invocation.quiet:
        render_reranker(output_console(), report)


def _layers(text: str | None) -> int | tuple[int, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--layers is a number or numbers with commas, such as 3 or 0,2,5, not {text!r}") from None
    return numbers if "," in text else numbers[0]
