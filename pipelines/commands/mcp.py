"""`retrieval mcp`."""

from __future__ import annotations

import logging
import sys
import threading
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.invocation import Invocation

if TYPE_CHECKING:
    from pipelines.mcp_server import Served
    from retrieval.errors import StoreBusyError


class Transport(StrEnum):
    """Choices of ``--transport``."""

    STDIO = "stdio"
    HTTP = "http"


def mcp(
    invocation: Invocation,
    transport: Annotated[
        Transport, typer.Option(help="stdio for a client that starts this command, http for clients that connect.")
    ] = Transport.STDIO,
    collection: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIR", help="Serve this index under a name; several times for several indexes."),
    ] = None,
    allow_ingest: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Let clients ingest files of this folder; not at all by default."),
    ] = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="http: address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="http: port; 0 takes a free one.")] = 8010,
    key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="http: environment variable with the key that clients send.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="http: another name that requests may be made for.")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="http: serve other machines without a key.")] = False,
    idle: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="Close the index after so long without a call, so that others can use it."
        ),
    ] = 5.0,
    wait: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long a call waits for an index that others use.")
    ] = 20.0,
) -> None:
    """Serve search to assistants over the Model Context Protocol: Claude, Cursor, VS Code, Zed and others.

    Tools: search, get_document, list_collections, and ingest where --allow-ingest names folders. docs/mcp.md has the
    configuration of common clients.
    """
    from pipelines.mcp_server import create_server

    if invocation.json and transport is Transport.STDIO:
        raise ValueError("--json has no meaning here: standard output belongs to the protocol; leave it out")
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    served = _served(invocation, collection or [], allow_ingest or [], idle=idle, wait=wait)
    server, tools = create_server(served)
    try:
        if transport is Transport.STDIO:
            from pipelines.mcp_server.stdio import serve_stdio

            _tell_problems(invocation, served)
            tools.preload()
            serve_stdio(server)
            return
        from pipelines.listening import bind, url_of
        from pipelines.mcp_server.http import BACKLOG, PATH, http_app, read_key, serve_http

        key = read_key(key_env, host, insecure=insecure)
        app = http_app(server, host=host, key=key, allowed_hosts=allow_host or [])
        with bind(host, port, named="--host", backlog=BACKLOG) as listener:
            _tell_problems(invocation, served)
            tools.preload()
            serve_http(app, listener, on_started=lambda: _tell_started(invocation, url_of(listener) + PATH))
    finally:
        tools.close()


def _served(invocation: Invocation, named: list[str], folders: list[Path], *, idle: float, wait: float) -> Served:
    from pipelines.lease import IndexLease
    from pipelines.mcp_server import Served, ServedIndex
    from pipelines.mcp_server.roots import Roots

    logger = logging.getLogger(__name__)

    def waits(error: StoreBusyError) -> None:
        logger.warning("waiting: %s", error)

    def reads(text: str) -> None:
        logger.warning("%s", text)

    targets: dict[str, Invocation] = {}
    for pair in named:
        name, equals, folder = pair.partition("=")
        if not name or not equals or not folder:
            raise ValueError(f"--collection {pair!r} is not of the form NAME=DIR")
        if name in targets:
            raise ValueError(f"--collection names {name!r} twice")
        targets[name] = replace(invocation, index=Path(folder))
    if named and invocation.index is not None:
        raise ValueError(f"--index {invocation.index} and --collection exclude each other; name it as a collection too")
    if not targets:
        config, folder_of_index = invocation.resolve(for_rebuild=True)
        name = getattr(config.store, "collection", None) or (folder_of_index or Path("index")).absolute().name
        targets[name] = invocation
    stop = threading.Event()
    indexes = [
        ServedIndex(
            name,
            target.resolve,
            IndexLease(
                target.resolve,
                idle=idle,
                wait=wait,
                on_wait=waits,
                stop=stop,
                read_only=False if folders else None,
                tell=reads,
            ),
        )
        for name, target in targets.items()
    ]
    return Served(indexes, Roots(folders), stop)


def _tell_problems(invocation: Invocation, served: Served) -> None:
    """Say on stderr what cannot be searched yet; the server starts all the same, and its answers say so too."""
    from retrieval.errors import StoreError

    for index in served.indexes:
        try:
            _, folder = index.resolve()
            problem = None if folder is None else index.describe().problem
        except StoreError as error:
            problem = str(error)
        if problem is not None:
            invocation.notice(f"warning: {index.name}: {problem}", style="yellow")


def _tell_started(invocation: Invocation, url: str) -> None:
    from pipelines.render.output import write_json

    if invocation.json:
        write_json({"url": url})
        sys.stdout.flush()
    else:
        invocation.notice(f"serving MCP at {url}; Ctrl-C ends it")
