"""The command line: ``retrieval ingest PATH``, ``retrieval search QUERY`` and the rest."""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands.registration import command

if TYPE_CHECKING:
    app: typer.Typer

_AGAIN = "stopped; run the same command again to go on"
_AS_IT_WAS = "stopped; the index is as it was"
_RESUME = "stopped; run the same command with --resume to go on from the last checkpoint"


@dataclass(frozen=True, slots=True)
class _Command:
    """Where a command is: a function of a module in `pipelines.commands`, and what Ctrl-C says.

    Args:
        module: Name of the module.
        function: Its function; ``None`` where the module has an ``app`` with commands of its own.
        interrupted: What Ctrl-C says.
    """

    module: str
    function: str | None
    interrupted: str = "stopped"


COMMANDS = {
    "ingest": _Command("ingest", "ingest", _AGAIN),
    "search": _Command("search", "search"),
    "watch": _Command("watch", "watch"),
    "adapt": _Command("adapt", "adapt", _AS_IT_WAS),
    "quantize": _Command("quantize", "quantize", "stopped; 'retrieval info' says how the vectors are compressed now"),
    "calibrate": _Command("calibrate", "calibrate", _AS_IT_WAS),
    "tune": _Command("tune", "tune", f"{_AS_IT_WAS}, and no file was written"),
    "evaluate": _Command("evaluate", "evaluate"),
    "datasets": _Command("datasets", "datasets"),
    "info": _Command("inspect", "info"),
    "doctor": _Command("inspect", "doctor"),
    "repair": _Command("repair", "repair", _AS_IT_WAS),
    "delete": _Command("ingest", "delete"),
    "similar": _Command("similar", "similar"),
    "duplicates": _Command("duplicates", "duplicates"),
    "map": _Command("map", "map_index"),
    "export": _Command("export", "export"),
    "demo": _Command("demo", "demo"),
    "serve": _Command("serve", "serve"),
    "mcp": _Command("mcp", "mcp"),
    "push": _Command("transfer", "push", _AGAIN),
    "pull": _Command("transfer", "pull", _AGAIN),
    "snapshot": _Command("snapshot", None),
    "plan": _Command("plan", "plan"),
    "mine": _Command("mine", "mine", _AGAIN),
    "distill": _Command("distill", "distill"),
    "train": _Command("train", "train", _RESUME),
    "train-reranker": _Command("train_reranker", "train_reranker", _AGAIN),
}
"""The commands by name, in the order of the help."""


def __getattr__(name: str) -> Any:
    if name == "app":
        globals()["app"] = built = build_app()
        return built
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def build_app(*only: str) -> typer.Typer:
    """The command line.

    Args:
        only: Names of commands, of which alone the modules are imported; none for all.
    """
    app = typer.Typer(
        name="retrieval",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name in only or COMMANDS:
        place = COMMANDS[name]
        module = import_module(f"pipelines.commands.{place.module}")
        if place.function is None:
            app.add_typer(module.app)
        else:
            command(app, name=name, interrupted=place.interrupted)(getattr(module, place.function))
    app.callback()(_root)
    return app


def main() -> None:
    """Run the command line of this process and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What a terminal cannot show must not end a search.
            stream.reconfigure(errors="replace")
    # Looking for plugins would read the metadata of all packages that are installed, and there is no use for any here.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # The interpreter looks through all objects for garbage as it ends, and gives back their memory with the process.
    atexit.register(gc.freeze)
    if sys.argv[1:2] == ["search"]:
        _prepare_for_one_search()
    build_app(*(name for name in sys.argv[1:2] if name in COMMANDS))(prog_name="retrieval")


def _prepare_for_one_search() -> None:
    """Leave out what pays off in a long run only."""
    # A search makes some 50,000 objects that stay; looking for garbage among them as they come takes a tenth of it.
    gc.set_threshold(100_000, 20, 20)
    # numpy multiplies nothing large here, and its idle threads would spin on the cores that the cross-encoder needs.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _show_version(wanted: bool) -> None:
    if wanted:
        from retrieval import __version__

        typer.echo(f"retrieval {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Two-stage retrieval on a cheap CPU: static embeddings and BM25 fetch, a cross-encoder reads the best."""
