"""`retrieval watch`."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.ingest import ignoring
from pipelines.commands.invocation import Invocation

if TYPE_CHECKING:
    from retrieval.config import Config
    from retrieval.errors import StoreBusyError


def watch(
    invocation: Invocation,
    paths: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Folders.")],
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Skip these names too, as in .gitignore.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Bring the index in step and end.")] = False,
    debounce: Annotated[
        int, typer.Option(min=10, max=60_000, metavar="MS", help="Wait until nothing has changed for so long.")
    ] = 500,
    poll: Annotated[
        float | None,
        typer.Option(
            min=0.1, metavar="SECONDS", help="Look at every file so often: for network drives, which tell of no change."
        ),
    ] = None,
) -> None:
    """Keep the index in step with folders: what is added, changed, renamed or deleted there, until Ctrl-C.

    The index is open only while a batch is written, so searches find it free in between; when another process has it,
    this waits. A folder that vanishes is waited for, and its documents stay.
    """
    from pipelines.lease import IndexLease
    from pipelines.render.watch import EventLines
    from pipelines.watch import FolderWatch, WatchOptions
    from retrieval.errors import ConfigError

    def resolve() -> tuple[Config, Path | None]:
        config, folder = invocation.resolve()
        if config.store.kind == "memory":
            raise ConfigError("store.kind 'memory' keeps nothing from one command to the next; use edge or server")
        return ignoring(config, tuple(ignore or ()), paths, folder), folder

    lines = EventLines(as_json=invocation.json, quiet=invocation.quiet)
    stop = threading.Event()

    def waiting(error: StoreBusyError) -> None:
        lines.waiting(str(error))

    config, _ = resolve()
    lease = IndexLease(resolve, idle=0, wait=float("inf"), on_wait=waiting, stop=stop)
    options = WatchOptions(debounce_ms=debounce, poll_ms=None if poll is None else round(poll * 1000))
    folders = FolderWatch(paths, lease, config.documents, lines.show, stop, options)

    def end(number: int, frame: object) -> None:
        if stop.is_set():  # once more: whoever says it does not want to wait
            raise KeyboardInterrupt
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    try:
        if not once:
            folders.run()
        elif not folders.sync() and not stop.is_set():
            raise typer.Exit(1)
    finally:
        lease.close()
