"""`retrieval info` and `retrieval doctor`: what an index holds, and whether it is sound."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.invocation import Invocation


def info(invocation: Invocation) -> None:
    """Show what the index holds and what it was built with."""
    from pipelines.presence import require_index
    from pipelines.render.output import output_console, plain, write_json
    from pipelines.render.quantize import order_state, quantization_state
    from pipelines.render.tables import render_info
    from retrieval.stores import StoredOrder, peek_order, peek_quantization

    config, folder = invocation.resolve()
    manifest = require_index(config, folder)
    if manifest is None or folder is None:
        with invocation.open_existing() as pipeline:
            manifest, location, size = pipeline.manifest, pipeline.store.location, None
            quantization, interrupted = pipeline.store.quantization, False
            order: StoredOrder | None = None
    else:
        location, size = str(folder.absolute()), _size_on_disk(folder)
        quantization, interrupted = peek_quantization(folder, manifest.generation)
        order = peek_order(folder, manifest.generation)
    if invocation.json:
        record = {"location": location, "bytes_on_disk": size, **plain(manifest)}
        record |= {"quantization": plain(quantization), "quantization_interrupted": interrupted}
        write_json({**record, "first_stage": plain(order)})
    else:
        shown = quantization_state(quantization, interrupted=interrupted)
        if order is not None:
            shown += f"; {order_state(order, config.hnsw)}"
        render_info(output_console(), manifest, location, size, shown)


def doctor(
    invocation: Invocation,
    deep: Annotated[
        bool, typer.Option("--deep", help="Compare every file and every passage, which takes a while.")
    ] = False,
) -> None:
    """Check the installation and the index; exit code 1 when something is wrong.

    Without --deep a sample of the vectors is compared with what the encoder gives. With it every file is compared with
    its seal, every passage with what is made of its text, and filters and searches with a walk over all passages.
    """
    from pipelines.doctor import examine
    from pipelines.render.output import output_console, plain, step_progress, write_json
    from pipelines.render.tables import render_checks

    config, folder = invocation.resolve(for_rebuild=True)
    with step_progress(quiet=invocation.quiet) as on_progress:
        checks = examine(config, folder, deep=deep, on_progress=on_progress)
    failed = [check for check in checks if check.ok is False]
    if invocation.json:
        write_json({"ok": not failed, "checks": plain(checks)})
    else:
        render_checks(output_console(), checks)
    if failed:
        invocation.fail(f"{len(failed)} of {len(checks)} checks failed")


def _size_on_disk(folder: Path) -> int:
    """Bytes of the blocks in use; the engine's files are sparse, their length says nothing."""
    size = 0
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:  # an open index comes and goes
            continue
        size += status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size
    return size
