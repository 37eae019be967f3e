"""`retrieval repair`: find out what of an index is damaged, and make it again from its texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.invocation import Invocation

if TYPE_CHECKING:
    from retrieval.config import Config


def repair(
    invocation: Invocation,
    source: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="What the documents were ingested from, where texts are lost; repeatable."),
    ] = None,
    discard: Annotated[
        bool, typer.Option("--discard", help="Erase the damaged files that an earlier repair has kept.")
    ] = False,
) -> None:
    """Make a damaged index again from the texts that it keeps.

    First everything is compared, as 'retrieval doctor --deep' does; a sound index is left as it is. Texts that are gone
    are read from their sources again, where these have not changed. Exit code 1 when something is missing in the end:
    it is named, and the damaged files are kept.
    """
    from pipelines.render.output import output_console, step_progress, write_json
    from pipelines.render.repair import render_repair
    from pipelines.repair import repair_index
    from retrieval.errors import ConfigError

    config, folder = _resolve(invocation)
    if folder is None:
        raise ConfigError("only an embedded index has files to repair; leave store.kind out")
    with step_progress(quiet=invocation.quiet) as on_progress:
        report = repair_index(folder, config, sources=source or (), discard=discard, on_progress=on_progress)
    if invocation.json:
        write_json(report)
    else:
        render_repair(output_console(), report, invocation.again("repair --discard"))
    if report.lost or report.complete is False:
        missing = sum(one.lost for one in report.lost)
        invocation.fail(f"{missing:,} passages are missing" if missing else "the index is not what its manifest says")


def _resolve(invocation: Invocation) -> tuple[Config | None, Path | None]:
    """The configuration that was given, ``None`` where none was: its manifest tells, once it is restored."""
    config, folder = invocation.resolve(for_rebuild=True)
    given = invocation.config is not None or bool(invocation.overrides)
    return (config if given else None), folder
