"""The command line: ``retrieval ingest PATH``, ``retrieval search QUERY`` and the rest."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from pipelines.commands.adapt import adapt
from pipelines.commands.calibrate import calibrate
from pipelines.commands.datasets import datasets
from pipelines.commands.demo import demo
from pipelines.commands.distill import distill
from pipelines.commands.duplicates import duplicates
from pipelines.commands.evaluate import evaluate
from pipelines.commands.export import export
from pipelines.commands.ingest import delete, ingest
from pipelines.commands.inspect import doctor, info
from pipelines.commands.map import map_index
from pipelines.commands.mcp import mcp
from pipelines.commands.mine import mine
from pipelines.commands.plan import plan
from pipelines.commands.quantize import quantize
from pipelines.commands.registration import command
from pipelines.commands.search import search
from pipelines.commands.serve import serve
from pipelines.commands.similar import similar
from pipelines.commands.snapshot import app as snapshots
from pipelines.commands.train import train
from pipelines.commands.train_reranker import train_reranker
from pipelines.commands.transfer import pull, push
from pipelines.commands.tune import tune
from pipelines.commands.watch import watch

app = typer.Typer(
    name="retrieval",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

command(app, interrupted="stopped; run the same command again to go on")(ingest)
command(app)(search)
command(app)(watch)
command(app, interrupted="stopped; the index is as it was")(adapt)
command(app, interrupted="stopped; 'retrieval info' says how the vectors are compressed now")(quantize)
command(app, interrupted="stopped; the index is as it was")(calibrate)
command(app, interrupted="stopped; the index is as it was, and no file was written")(tune)
command(app)(evaluate)
command(app)(datasets)
command(app)(info)
command(app)(doctor)
command(app)(delete)
command(app)(similar)
command(app)(duplicates)
command(app, name="map")(map_index)
command(app)(export)
command(app)(demo)
command(app)(serve)
command(app)(mcp)
command(app, interrupted="stopped; run the same command again to go on")(push)
command(app, interrupted="stopped; run the same command again to go on")(pull)
app.add_typer(snapshots)
command(app)(plan)
command(app, interrupted="stopped; run the same command again to go on")(mine)
command(app)(distill)
command(app, interrupted="stopped; run the same command with --resume to go on from the last checkpoint")(train)
command(app, interrupted="stopped; run the same command again to go on")(train_reranker)


def main() -> None:
    """Run the command line of this process and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What a terminal cannot show must not end a search.
            stream.reconfigure(errors="replace")
    app(prog_name="retrieval")


def _show_version(wanted: bool) -> None:
    if wanted:
        from retrieval import __version__

        typer.echo(f"retrieval {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Two-stage retrieval on a cheap CPU: static embeddings and BM25 fetch, a cross-encoder reads the best."""
