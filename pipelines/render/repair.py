"""What `retrieval repair` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.render.output import visible

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.repair import RepairReport

_SHOWN = 10


def render_repair(console: Console, report: RepairReport, discard: str) -> None:
    """Show what was damaged, what was done, and what is missing.

    Args:
        console: Where to.
        report: What the repair did.
        discard: Command that erases what was kept.
    """
    held = f"{report.documents:,} documents, {report.passages:,} passages"
    for line in report.restored:
        console.print(f"restored {visible(line)}")
    for note in report.notes:
        console.print(visible(note), style="yellow")
    if report.done != "index":
        said = "Everything else is sound" if report.done == "files" else "The index is sound, and was left as it is"
        again = "" if report.complete else "; a run was interrupted, run the same 'retrieval ingest' command again"
        console.print(f"{said}: {held}{again}.")
        return
    _render_rebuilt(console, report, held)
    _render_losses(console, report, discard)


def _render_rebuilt(console: Console, report: RepairReport, held: str) -> None:
    for finding in report.damage[:_SHOWN]:
        console.print(f"damaged  {visible(str(finding))}")
    if len(report.damage) > _SHOWN:
        console.print(f"damaged  … and {len(report.damage) - _SHOWN:,} more")
    again = f", {report.reread:,} documents read from their sources again" if report.reread else ""
    read = f"Texts were read {'without' if report.texts_from == 'files' else 'with'} the engine{again}."
    console.print(read)
    proof = {
        True: "the digest of all ids proves that nothing is missing",
        False: "something is missing",
        None: "run the same 'retrieval ingest' again, nothing tells whether all of it is there",
    }[report.complete]
    console.print(f"Made again as generation {report.generation}: {held}; {proof}.")


def _render_losses(console: Console, report: RepairReport, discard: str) -> None:
    for one in report.lost[:_SHOWN]:
        name = visible(one.document) or "documents that nothing names any more"
        console.print(f"lost     passages of {name}: {one.lost:,}; kept: {one.kept:,}", style="red")
    if len(report.lost) > _SHOWN:
        console.print(
            f"lost     … and {len(report.lost) - _SHOWN:,} more documents; --json names them all", style="red"
        )
    for key in report.doubtful[:_SHOWN]:
        console.print(f"doubtful title, source or metadata of {visible(key)}", style="yellow")
    if report.lost:
        console.print("Ingest the sources of these documents again; what was kept of them is replaced then.")
    if report.kept_damaged:
        console.print(f"The damaged files are kept in {report.kept_damaged}; '{discard}' erases them.")
