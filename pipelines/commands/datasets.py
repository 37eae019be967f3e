"""`retrieval datasets`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.invocation import Invocation


def datasets(
    invocation: Invocation,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="What to download.", show_default=False)
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to keep them; default: a cache, or $RETRIEVAL_DATASETS.")
    ] = None,
    mirror: Annotated[
        str | None, typer.Option(metavar="URL", help="Where the archives are, instead of at BEIR.")
    ] = None,
) -> None:
    """List the public collections of BEIR, or download some of them with their checksums.

    What is printed for each NAME is the folder to give to 'retrieval evaluate'.
    """
    from pipelines.render.datasets import render_datasets
    from pipelines.render.output import output_console, plain, step_progress, write_json
    from retrieval.evaluation.datasets import MIRROR, PUBLIC_DATASETS, default_folder, fetch_dataset, find_dataset

    place = folder or default_folder()
    chosen = [find_dataset(name) for name in names or ()]
    paths = []
    with step_progress(quiet=invocation.quiet) as on_progress:
        for dataset in chosen:
            paths.append(fetch_dataset(dataset, place, mirror=mirror or MIRROR, on_progress=on_progress))
    if invocation.json:
        shown = chosen or PUBLIC_DATASETS
        there = {one.name: str(place / one.name) if (place / one.name).is_dir() else None for one in shown}
        write_json({"datasets": [{**plain(one), "folder": there[one.name]} for one in shown]})
    elif chosen:
        for path in paths:
            typer.echo(path)
    else:
        render_datasets(output_console(), PUBLIC_DATASETS, place)
