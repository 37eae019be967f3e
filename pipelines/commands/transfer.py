"""`retrieval push` and `retrieval pull`: an index goes from a folder to a server, or comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.invocation import Invocation

if TYPE_CHECKING:
    from pipelines.transfer.push_pull import TransferReport

_Replace = Annotated[
    bool, typer.Option("--replace", help="Also replace an index that is not a copy of this one, or has changed since.")
]


def push(
    invocation: Invocation,
    replace: _Replace = False,
    discard: Annotated[
        bool, typer.Option("--discard", help="Erase the replaced generation, even if a service has it open.")
    ] = False,
) -> None:
    """Copy the index in a folder to the Qdrant server that --config names.

    Vectors, BM25 weights, payloads, the adapted encoder and the manifest go as they are; nothing is encoded again. The
    copy is compared with the index and takes the place of the live collection in one step. Interrupted, the same
    command goes on where it was.
    """
    from pipelines.presence import DEFAULT_INDEX
    from pipelines.render.output import step_progress
    from pipelines.transfer.push_pull import push_index

    with step_progress(quiet=invocation.quiet) as on_progress:
        report = push_index(
            invocation.index or DEFAULT_INDEX,
            invocation.settings(),
            replace_other=replace,
            keep_previous=not discard,
            on_progress=on_progress,
        )
    _show(invocation, report)


def pull(
    invocation: Invocation,
    replace: _Replace = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the replaced generation until the next one.")] = False,
) -> None:
    """Copy the index on the Qdrant server that --config names into a folder; the opposite of push."""
    from pipelines.presence import DEFAULT_INDEX
    from pipelines.render.output import step_progress
    from pipelines.transfer.push_pull import pull_index

    with step_progress(quiet=invocation.quiet) as on_progress:
        report = pull_index(
            invocation.settings(),
            invocation.index or DEFAULT_INDEX,
            replace_other=replace,
            keep_previous=keep,
            on_progress=on_progress,
        )
    _show(invocation, report)


def _show(invocation: Invocation, report: TransferReport) -> None:
    from pipelines.render.output import output_console, write_json
    from pipelines.render.transfer import render_transfer

    if invocation.json:
        write_json(report)
    else:
        render_transfer(output_console(), report)
