"""`retrieval export`: the static model for other libraries, and a small index for a page in the browser."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.invocation import Invocation


class PrecisionName(StrEnum):
    """Choices of ``--precision``."""

    INT8 = "int8"
    FLOAT32 = "float32"


def export(
    invocation: Invocation,
    out: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder for the model.")],
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A bundled model, folder or hub name.  [default: that of the index]"),
    ] = None,
    precision: Annotated[PrecisionName, typer.Option(help="float32 has four times the size.")] = PrecisionName.INT8,
    with_index: Annotated[
        bool, typer.Option("--with-index", help="Write the passages too, for a page in the browser.")
    ] = False,
    max_passages: Annotated[int, typer.Option(min=1, metavar="N", help="Refuse a larger index.")] = 20_000,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model that is in the folder.")] = False,
) -> None:
    """Write the static model as safetensors and tokenizer.json, which model2vec and sentence-transformers open.

    It is the model of the index, with what `retrieval adapt` has made of it; without an index the configured one.
    """
    from pipelines.export import export_model, model_to_export
    from pipelines.model_folder import refuse_occupied
    from pipelines.render.export import render_export
    from pipelines.render.output import output_console, write_json

    refuse_occupied(out, overwrite=overwrite)
    if with_index:
        if model is not None:
            raise ValueError("--model and --with-index: an index goes with its own model; leave one of them out")
        with invocation.open_existing() as pipeline:
            config, folder = invocation.resolve()
            chosen = model_to_export(config, folder)
            report = export_model(
                chosen,
                out,
                precision=precision.value,
                overwrite=overwrite,
                index=pipeline,
                max_passages=max_passages,
            )
    else:
        config, folder = invocation.resolve()
        if invocation.index is not None:
            from pipelines.presence import require_index

            require_index(config, folder)
        report = export_model(
            model_to_export(config, folder, model), out, precision=precision.value, overwrite=overwrite
        )
    if invocation.json:
        write_json(report)
    elif not invocation.quiet:
        render_export(output_console(), report)
