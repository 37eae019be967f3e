"""`retrieval demo`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.invocation import Invocation


def demo(
    invocation: Invocation,
    keep: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep the index in this folder.")] = None,
) -> None:
    """Index the documentation of this Python, ask it five questions, and show what the second stage changes."""
    from pipelines.demo import run_demo
    from pipelines.render.demo import render_demo
    from pipelines.render.output import ingest_progress, output_console, plain, write_json

    if keep is not None and invocation.index is not None:
        raise ValueError(f"--keep {keep} and --index {invocation.index} say the same; leave one of them out")
    keep = keep or invocation.index
    config = invocation.settings()
    if keep is not None:
        config, keep = replace(invocation, index=keep).resolve()
    with ingest_progress(quiet=invocation.quiet) as on_progress:
        report = run_demo(config, keep=keep, on_progress=on_progress)
    if invocation.json:
        write_json(plain(report))
    else:
        render_demo(output_console(), report, keep)
