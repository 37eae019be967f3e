"""Tables: what an ingest did, what an index holds, what was checked and measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.render.output import visible

if TYPE_CHECKING:
    from pipelines.index_checks import Check
    from retrieval.datatypes import IndexManifest, IngestReport

_SHOWN_REJECTIONS = 10
_FINDINGS = 5
_MARKS = {
    True: Text("ok", style="green"),
    False: Text("failed", style="bold red"),
    None: Text("skipped", style="yellow"),
}


def facts(rows: Sequence[tuple[str, str]], title: str | None = None) -> Table:
    """Two columns: a name and its value."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), title=title, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table


def render_report(console: Console, report: IngestReport) -> None:
    """What an ingest did."""
    if not (report.added or report.changed or report.removed) and report.unchanged:
        console.print(f"nothing changed: all {report.unchanged:,} documents were in the index already")
    rows = [
        (name, f"{value:,}")
        for name, value in (
            ("added", report.added),
            ("changed", report.changed),
            ("unchanged", report.unchanged),
            ("removed", report.removed),
            ("rejected", report.rejected_count),
            ("passages", report.passages),
        )
    ]
    if report.duplicate_count:
        rows.append(("duplicates", f"{report.duplicate_count:,}"))
    rows.append(("seconds", f"{report.seconds:.2f}"))
    if report.passages:
        rows.append(("passages/s", f"{report.passages_per_second:,.0f}"))
    console.print(facts(rows))
    for one in islice((one for one in report.duplicates if not one.skipped), _SHOWN_REJECTIONS):
        like = "the same words as" if one.kind == "exact" else f"near-equal ({one.share:.0%}) to"
        console.print(Text.assemble("duplicate ", (visible(one.source), "bold"), f": {like} {visible(one.of)}"))
    for rejected in islice(report.rejected, _SHOWN_REJECTIONS):
        console.print(Text.assemble("rejected ", (visible(rejected.source), "bold"), f": {visible(rejected.reason)}"))
    if report.rejected_count > _SHOWN_REJECTIONS:
        console.print(f"and {report.rejected_count - _SHOWN_REJECTIONS:,} more; --rejected FILE writes them to a file")


def render_info(console: Console, manifest: IndexManifest, location: str, size: int | None, quantization: str) -> None:
    """What an index holds.

    Args:
        console: Where to.
        manifest: Manifest of the index.
        location: Folder or URL.
        size: Bytes on disk; ``None`` where that is not known.
        quantization: How its vectors are compressed, in words.
    """
    encoder, bm25, chunking = manifest.encoder, manifest.bm25, manifest.chunking
    rows = [
        ("index", location),
        ("documents", f"{manifest.documents:,}"),
        ("passages", f"{manifest.passages:,}"),
        ("generation", _generation(manifest)),
        ("encoder", f"{encoder.name}@{encoder.digest}, {encoder.dim} dimensions"),
        ("quantization", quantization),
        ("dense weight", "default" if manifest.dense_weight is None else f"{manifest.dense_weight:.2f}, by adapt"),
        ("good answer", _good_answer(manifest)),
        ("bm25", ", ".join(f"{name} {value}" for name, value in bm25.items())),
        ("average length", f"{manifest.average_length:.1f} terms per passage"),
        ("chunking", ", ".join(f"{name} {value}" for name, value in chunking.items())),
        ("created", manifest.created),
        ("updated", manifest.updated),
        ("runs", f"{manifest.runs:,}"),
        ("state", manifest.state),
    ]
    if size is not None:
        rows.insert(3, ("on disk", megabytes(size)))
    console.print(facts(rows))


def _good_answer(manifest: IndexManifest) -> str:
    if manifest.calibration is None:
        return "no threshold; 'retrieval calibrate' fits one"
    threshold = manifest.calibration["threshold"]
    return f"from probability {threshold['probability']:.2f} on, for a precision of {threshold['target']:g}"


def _generation(manifest: IndexManifest) -> str:
    base, previous = manifest.adapted_from, manifest.previous
    made = "not adapted" if base is None else f"adapted from {base.name}@{base.digest}"
    kept = "" if previous is None else f"; generation {previous} is kept for --rollback"
    return f"{manifest.generation}, {made}{kept}"


def megabytes(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 2**20:,.1f} MiB" if size < 2**30 else f"{size / 2**30:,.2f} GiB"


def render_checks(console: Console, checks: Sequence[Check]) -> None:
    """One line for each check, and what to do where it failed."""
    for check in checks:
        mark = _MARKS[check.ok]
        line = Table.grid(padding=(0, 1))
        line.add_column(width=7, no_wrap=True)
        line.add_column(width=12, no_wrap=True, style="bold")
        line.add_column(overflow="fold")
        line.add_row(mark, check.name, visible(check.detail))
        for finding in check.findings[1:_FINDINGS]:
            line.add_row("", "", visible(str(finding)))
        if check.ok is False and check.remedy:
            line.add_row("", "", Text(f"→ {check.remedy}", style="yellow"))
        console.print(line)
