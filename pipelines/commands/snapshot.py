"""`retrieval snapshot create | list | download | restore | delete`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.invocation import Invocation
from pipelines.commands.registration import command

if TYPE_CHECKING:
    from retrieval.config import ServerStoreConfig

app = typer.Typer(
    name="snapshot", help="Snapshots of an index on a Qdrant server.", no_args_is_help=True, rich_markup_mode=None
)


@command(app, name="create")
def create(invocation: Invocation) -> None:
    """Make a snapshot of the live collection; searches and writes go on meanwhile."""
    from pipelines.render.output import output_console, write_json
    from pipelines.render.transfer import render_snapshots
    from retrieval.stores.server.snapshots import create_snapshot

    made = create_snapshot(_server(invocation))
    if invocation.json:
        write_json(made)
    else:
        render_snapshots(output_console(), [made])


@command(app, name="list")
def list_all(invocation: Invocation) -> None:
    """List the snapshots on the server, newest first."""
    from pipelines.render.output import output_console, write_json
    from pipelines.render.transfer import render_snapshots
    from retrieval.stores.server.snapshots import list_snapshots

    found = list_snapshots(_server(invocation))
    if invocation.json:
        write_json(found)
    elif found:
        render_snapshots(output_console(), found)
    else:
        output_console().print(f"there is no snapshot; make one with '{invocation.again('snapshot create')}'")


@command(app, name="download")
def download(
    invocation: Invocation,
    name: Annotated[str, typer.Argument(metavar="NAME", help="As 'retrieval snapshot list' says it.")],
    path: Annotated[Path, typer.Argument(metavar="[PATH]", help="A file, or a folder to put it in.")] = Path(),
) -> None:
    """Fetch a snapshot into a file, which is there only when it is complete and its checksum is right."""
    from pipelines.render.output import output_console, plain, step_progress, visible, write_json
    from pipelines.render.tables import megabytes
    from retrieval.stores.server.snapshots import download_snapshot

    target = path / Path(name).name if path.is_dir() else path
    with step_progress(quiet=invocation.quiet) as show:
        info = download_snapshot(
            _server(invocation), name, target, lambda done, of: show("downloading, MiB", done >> 20, of >> 20)
        )
    if invocation.json:
        write_json({**plain(info), "path": target})
    else:
        output_console().print(f"{visible(str(target))}: {megabytes(info.bytes)}")


@command(app, name="restore", interrupted="stopped; the index serves as before")
def restore(
    invocation: Invocation,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Name of a snapshot, a URL that the server reaches, or a file here.")
    ],
    checksum: Annotated[
        str | None, typer.Option(metavar="SHA256", help="What the file must have; checked by the server.")
    ] = None,
) -> None:
    """Bring a snapshot back as the next generation, check it, and let it take the place of the live one."""
    from pipelines.render.output import output_console, step_progress, write_json
    from pipelines.render.transfer import render_restored
    from retrieval.stores.server.snapshots import restore_snapshot

    with step_progress(quiet=invocation.quiet) as show:
        restored = restore_snapshot(
            _server(invocation),
            source,
            checksum=checksum,
            on_progress=lambda done, of: show("uploading, MiB", done >> 20, of >> 20),
        )
    if invocation.json:
        write_json(restored)
    else:
        render_restored(output_console(), restored)


@command(app, name="delete")
def delete(
    invocation: Invocation,
    name: Annotated[str, typer.Argument(metavar="NAME", help="As 'retrieval snapshot list' says it.")],
) -> None:
    """Remove a snapshot from the server; the index stays."""
    from pipelines.render.output import output_console, visible, write_json
    from retrieval.stores.server.snapshots import delete_snapshot

    delete_snapshot(_server(invocation), name)
    if invocation.json:
        write_json({"deleted": name})
    else:
        output_console().print(f"deleted {visible(name)}")


def _server(invocation: Invocation) -> ServerStoreConfig:
    from retrieval.config import ServerStoreConfig
    from retrieval.errors import ConfigError

    config, _ = invocation.resolve()
    if not isinstance(config.store, ServerStoreConfig):
        raise ConfigError(
            "snapshots are made by a Qdrant server; name it with --config FILE (see configs/server.yaml), "
            "and copy the folder of an embedded index instead"
        )
    return config.store
