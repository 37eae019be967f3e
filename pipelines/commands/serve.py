"""`retrieval serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.invocation import Invocation

if TYPE_CHECKING:
    from pipelines.service.config import ServiceConfig
    from pipelines.two_stage import TwoStagePipeline
    from retrieval.config import Config


def serve(
    invocation: Invocation,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address to listen at.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, metavar="N", help="Port; 0 takes a free one.", show_default="8000")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Serve other machines although no keys are configured.")
    ] = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Only search, beside the process that writes to the index.")
    ] = False,
    no_playground: Annotated[
        bool, typer.Option("--no-playground", help="Leave out the page at / for trying searches.")
    ] = False,
) -> None:
    """Serve search, ingest, embeddings and rerank over HTTP until SIGTERM or Ctrl-C.

    The section 'service' of the configuration holds keys, limits and timeouts; see configs/service.yaml. An index that
    does not exist yet is made. An embedded index has one writer: while this process serves it, send documents to it.
    With --read-only any number of services search an index that another process writes to.
    """
    from pipelines.listening import url_of
    from pipelines.render.output import error_console, write_json
    from pipelines.render.serve import Started, render_started
    from pipelines.service import create_app
    from pipelines.service.reload import warm_up
    from pipelines.service.server import listen, require_safe, serve

    config = _service_config(
        invocation, host, port, insecure=insecure, read_only=read_only, playground=not no_playground
    )
    require_safe(config)
    with listen(config) as listener:
        pipeline = _open(invocation, config)
        try:
            warm_up(pipeline)
            if not config.read_only:
                _let_others_read(pipeline)
            app = create_app(pipeline, config, resolve=lambda name: _resolve(invocation, config, name))
        except BaseException:
            pipeline.close()
            raise

        def show() -> None:
            started = Started.of(app, url_of(listener))
            if invocation.json:
                write_json(started)
            elif not invocation.quiet:
                render_started(error_console(), started)

        serve(app, listener, on_started=show)


def _service_config(
    invocation: Invocation, host: str | None, port: int | None, *, insecure: bool, read_only: bool, playground: bool
) -> ServiceConfig:
    from pipelines.service import load_service_config

    config = load_service_config(invocation.config, invocation.overrides or ())
    given = {"host": host, "port": port, "insecure": insecure or None, "read_only": read_only or None}
    given["playground"] = None if playground else False
    return config.model_copy(update={name: value for name, value in given.items() if value is not None})


def _open(invocation: Invocation, config: ServiceConfig) -> TwoStagePipeline:
    from pipelines.two_stage import TwoStagePipeline
    from retrieval.errors import StoreBusyError

    settings, folder = invocation.resolve()
    try:
        return TwoStagePipeline.open(folder or Path(), settings, read_only=config.read_only)
    except StoreBusyError as error:
        if config.read_only:
            raise
        raise StoreBusyError(
            f"{error}. An embedded index has one writer: if that is another 'retrieval serve', send requests there; "
            "to search it beside that, use --read-only"
        ) from error


def _let_others_read(pipeline: TwoStagePipeline) -> None:
    import logging

    from retrieval.errors import StoreError

    try:
        pipeline.publish()
    except StoreError as error:
        logging.getLogger(__name__).warning("no other process can search this index: %s", error)


def _resolve(invocation: Invocation, config: ServiceConfig, name: str | None) -> tuple[Config, Path | None]:
    """The settings as the configuration file gives them now, and the folder of the index that they or a name mean."""
    from dataclasses import replace

    from pipelines.presence import require_index
    from retrieval.errors import ConfigError

    if name is None:
        return invocation.resolve()
    if config.indexes is None:
        raise ConfigError("service.indexes names no folder, so no index can be loaded by its name")
    chosen = replace(invocation, index=Path(config.indexes) / name)
    settings, folder = chosen.resolve()
    require_index(settings, folder)
    return settings, folder
