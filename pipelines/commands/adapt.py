"""`retrieval adapt`: let the static model learn the documents of the index, or take that back."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.commands.invocation import Invocation


def adapt(
    invocation: Invocation,
    seconds: Annotated[float, typer.Option(metavar="N", help="Time limit of training; encoding comes on top.")] = 150.0,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed trains on the same sample.")] = 0,
    teacher: Annotated[
        str | None, typer.Option(metavar="DIR", help="Also learn from a sentence transformer: its folder.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Train and check, and change nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Switch even if the self-check shows a loss.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Return to the previous generation.")] = False,
    discard: Annotated[bool, typer.Option("--discard", help="Erase the previous generation to free its disk.")] = False,
) -> None:
    """Train the static model on the documents of the index, without labels, and make all vectors anew with it.

    The old vectors serve until the new ones are complete. Held-out passages are asked for before and after; when the
    search for them got worse, nothing is switched. The previous generation is kept for --rollback.
    """
    if rollback + discard + (dry_run or force or teacher is not None) > 1:
        raise ValueError("--rollback and --discard stand alone; leave the other options out")
    if not seconds > 0:
        raise ValueError(f"--seconds is above 0, not {seconds:g}")
    if rollback:
        _rollback(invocation)
    elif discard:
        _discard(invocation)
    else:
        _adapt(invocation, seconds, seed, teacher, dry_run=dry_run, force=force)


def _adapt(
    invocation: Invocation, seconds: float, seed: int, teacher: str | None, *, dry_run: bool, force: bool
) -> None:
    from pipelines.render.adapt import adapt_progress, render_adaptation
    from pipelines.render.output import output_console, write_json
    from pipelines.teacher import open_teacher

    with invocation.open_existing() as pipeline:
        opened = None if teacher is None else open_teacher(teacher)
        with adapt_progress(quiet=invocation.quiet) as on_progress:
            report = pipeline.adapt(
                seconds=seconds, seed=seed, teacher=opened, on_progress=on_progress, force=force, dry_run=dry_run
            )
    if pipeline.config.first_stage.dense_weight not in {None, report.dense_weight}:
        given = pipeline.config.first_stage.dense_weight
        invocation.notice(f"first_stage.dense_weight {given} of the configuration holds, not the one chosen here")
    if invocation.json:
        write_json(report)
    else:
        render_adaptation(output_console(), report, dry_run=dry_run, rollback=invocation.again("adapt --rollback"))


def _rollback(invocation: Invocation) -> None:
    from pipelines.render.adapt import adapt_progress, render_rollback
    from pipelines.render.output import output_console, write_json

    with invocation.open_existing() as pipeline, adapt_progress(quiet=invocation.quiet) as on_progress:
        report = pipeline.rollback(on_progress=on_progress)
    if invocation.json:
        write_json(report)
    else:
        render_rollback(output_console(), report)


def _discard(invocation: Invocation) -> None:
    from pipelines.render.output import output_console, write_json

    with invocation.open_existing() as pipeline:
        number = pipeline.discard_previous()
    if invocation.json:
        write_json({"discarded": number})
    elif number is None:
        output_console().print("there is no previous generation")
    else:
        output_console().print(f"erased generation {number}; there is nothing to roll back to now")
