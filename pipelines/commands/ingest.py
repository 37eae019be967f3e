"""`retrieval ingest` and `retrieval delete`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.invocation import Invocation

if TYPE_CHECKING:
    from pipelines.two_stage import TwoStagePipeline
    from retrieval.config import Config
    from retrieval.datatypes import IngestProgress, IngestReport, Rejected


class DuplicatesName(StrEnum):
    """Choices of ``--duplicates``."""

    KEEP = "keep"
    REPORT = "report"
    SKIP = "skip"


def ingest(
    invocation: Invocation,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files and folders.")],
    sync: Annotated[bool, typer.Option("--sync", help="Also remove documents that are no longer there.")] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build a new index and replace the old one when it is complete.")
    ] = False,
    text_column: Annotated[str | None, typer.Option(metavar="NAME", help="Column or key with the text.")] = None,
    id_column: Annotated[str | None, typer.Option(metavar="NAME", help="The same for the id.")] = None,
    title_column: Annotated[str | None, typer.Option(metavar="NAME", help="The same for the title.")] = None,
    metadata_column: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Column to keep as metadata; all when not given.")
    ] = None,
    encoding: Annotated[str | None, typer.Option(metavar="NAME", help="Encoding of text; detected by default.")] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Skip these names too, as in .gitignore.")
    ] = None,
    rejected: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what could not be used, as JSON lines.")
    ] = None,
    duplicates: Annotated[
        DuplicatesName | None,
        typer.Option(help="Report or leave out what is near-equal to a document that is there.  [default: keep]"),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Let the workers of a Ray cluster write to a Qdrant server: local, auto, HOST:6379 or ray://HOST:10001.",
        ),
    ] = None,
) -> None:
    """Add files and folders to the index: what is new goes in, what changed is replaced, the rest is skipped."""
    from pipelines.render.output import ingest_progress, output_console, plain, write_json
    from pipelines.render.tables import render_report

    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise ValueError(f"there is no file or folder {missing[0]}")
    if rejected is not None and not rejected.absolute().parent.is_dir():
        raise ValueError(f"--rejected {rejected}: the folder does not exist")
    columns = {"text_column": text_column, "id_column": id_column, "title_column": title_column, "encoding": encoding}
    overrides = [f"documents.{name}={json.dumps(value)}" for name, value in columns.items() if value is not None]
    if metadata_column:
        overrides.append(f"documents.metadata_columns={json.dumps(metadata_column)}")
    if duplicates is not None:
        overrides.append(f"documents.duplicates={duplicates.value}")
    with ingest_progress(quiet=invocation.quiet) as on_progress:
        target = replace(invocation, overrides=[*(invocation.overrides or ()), *overrides])
        report = _run(target, paths, tuple(ignore or ()), sync=sync, rebuild=rebuild, ray=ray, on_progress=on_progress)
    if rejected is not None:
        _write_rejected(rejected, report.rejected)
    if invocation.json:
        write_json({**plain(report), "passages_per_second": report.passages_per_second})
    elif not invocation.quiet:
        render_report(output_console(), report)
    if not report.added + report.changed + report.unchanged:
        found = "nothing there could be used" if report.rejected_count else "no documents were found"
        invocation.fail(f"{found} in {', '.join(map(str, paths))}" + ("; the old index stays" if rebuild else ""))


def delete(
    invocation: Invocation,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Document ids as search shows them.")],
) -> None:
    """Remove documents from the index by their ids."""
    from pipelines.render.output import output_console, write_json

    wanted = list(dict.fromkeys(ids))
    with invocation.open_existing() as pipeline:
        removed = pipeline.delete(wanted)
    if invocation.json:
        write_json({"removed": removed, "asked": len(wanted)})
    elif not invocation.quiet:
        output_console().print(f"removed {removed:,} of {len(wanted):,} documents")
    if not removed:
        invocation.fail(f"no document of the index has the id {wanted[0]!r}" + (" or another one" * (len(wanted) > 1)))


def _run(
    invocation: Invocation,
    paths: Sequence[Path],
    ignore: tuple[str, ...],
    *,
    sync: bool,
    rebuild: bool,
    ray: str | None,
    on_progress: Callable[[IngestProgress], None] | None,
) -> IngestReport:
    from pipelines.rebuild import rebuild_index
    from pipelines.two_stage import TwoStagePipeline
    from retrieval.errors import ConfigError

    config, folder = invocation.resolve(for_rebuild=rebuild)
    if config.store.kind == "memory":
        raise ConfigError("store.kind 'memory' keeps nothing from one command to the next; use edge or server")
    config = ignoring(config, ignore, paths, folder)

    if ray is not None:
        return _run_on_ray(config, paths, ray, sync=sync, rebuild=rebuild, on_progress=on_progress)

    def fill(pipeline: TwoStagePipeline) -> IngestReport:
        return _ingest_all(partial(pipeline.ingest, sync=sync), paths, on_progress)

    if rebuild:
        if folder is None:
            raise ConfigError("--rebuild works on an embedded index; on a server ingest into another store.collection")
        return rebuild_index(folder, config, fill)
    with TwoStagePipeline.open(folder or Path(), config) as pipeline:
        return fill(pipeline)


def _run_on_ray(
    config: Config,
    paths: Sequence[Path],
    address: str,
    *,
    sync: bool,
    rebuild: bool,
    on_progress: Callable[[IngestProgress], None] | None,
) -> IngestReport:
    from pipelines.ray_ingest.cluster import cluster
    from pipelines.two_stage import TwoStagePipeline
    from retrieval.errors import ConfigError

    if config.store.kind != "server":
        raise ConfigError(
            f"--ray needs an index that many may write to: set store.kind to server, not {config.store.kind}"
        )
    if rebuild:
        raise ConfigError("--rebuild works on an embedded index; on a server ingest into another store.collection")
    # Ray tells of dead workers on standard output, which is ours.
    with redirect_stdout(sys.stderr), cluster(address), TwoStagePipeline.open(config=config) as pipeline:
        return _ingest_all(partial(pipeline.ingest_distributed, address=address, sync=sync), paths, on_progress)


def ignoring(config: Config, ignore: tuple[str, ...], paths: Sequence[Path], folder: Path | None) -> Config:
    """The configuration that skips more names, and the index itself where it lies inside of what is read.

    Args:
        config: The configuration.
        ignore: Names, as in a ``.gitignore``.
        paths: What is read.
        folder: The index; ``None`` for one that is in no folder.

    Raises:
        ValueError: A path is the index itself.
    """
    index = None if folder is None else folder.resolve()
    own = []
    for path in paths:
        root = path.resolve()
        if index is not None and root == index:
            raise ValueError(f"{path} is the index itself; name the files that it is made from")
        if index is not None and index.is_relative_to(root):
            own.append("/" + re.sub(r"([\\*?\[\]!# ])", r"\\\1", index.relative_to(root).as_posix()) + "/")
    documents = config.documents.model_copy(update={"ignore": (*config.documents.ignore, *ignore, *own)})
    return config.model_copy(update={"documents": documents})


def _ingest_all(
    ingest_one: Callable[..., IngestReport],
    paths: Sequence[Path],
    on_progress: Callable[[IngestProgress], None] | None,
) -> IngestReport:
    """One run for each path, one report for all of them."""
    total: IngestReport | None = None
    for path in paths:
        before = total

        def show(progress: IngestProgress, before: IngestReport | None = before) -> None:
            if on_progress is not None:
                on_progress(progress if before is None else _continued(before, progress))

        report = ingest_one(path, on_progress=show)
        total = report if total is None else _joined(total, report)
    assert total is not None
    return total


def _continued(before: IngestReport, progress: IngestProgress) -> IngestProgress:
    return replace(
        progress,
        documents=progress.documents + before.added + before.changed + before.unchanged,
        passages=progress.passages + before.passages,
        rejected=progress.rejected + before.rejected_count,
        seconds=progress.seconds + before.seconds,
        read_seconds=progress.read_seconds + before.read_seconds,
        encode_seconds=progress.encode_seconds + before.encode_seconds,
        write_seconds=progress.write_seconds + before.write_seconds,
    )


def _joined(first: IngestReport, second: IngestReport) -> IngestReport:
    names = (
        *("added", "changed", "unchanged", "removed", "rejected", "rejected_count", "passages", "seconds"),
        *("duplicates", "duplicate_count", "read_seconds", "encode_seconds", "write_seconds"),
    )
    return replace(first, **{name: getattr(first, name) + getattr(second, name) for name in names})


def _write_rejected(path: Path, rejections: Sequence[Rejected]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for rejection in rejections:
            file.write(json.dumps({"source": rejection.source, "reason": rejection.reason}) + "\n")
