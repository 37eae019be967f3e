"""What a push, a pull or a snapshot did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from pipelines.render.output import visible
from pipelines.render.tables import facts, megabytes, render_checks

if TYPE_CHECKING:
    from pipelines.transfer.push_pull import TransferReport
    from retrieval.stores.server.snapshots import RestoredSnapshot, SnapshotInfo


def render_transfer(console: Console, report: TransferReport) -> None:
    """What was copied and compared."""
    if report.copied:
        render_checks(console, report.checks)
    else:
        console.print(f"nothing to do: {visible(report.target)} is the same index already")
    rows = [
        ("from", visible(report.source)),
        ("to", visible(report.target)),
        ("generation", f"{report.generation} is live"),
        ("passages", f"{report.passages:,}"),
    ]
    if report.continued:
        rows.append(("continued", f"{report.continued:,} passages were there from a run that was stopped"))
    if report.copied:
        rows.append(("written", f"{report.written:,} passages"))
    if report.copied and report.previous is not None:
        rows.append(("previous", f"generation {report.previous} is kept until the next switch"))
    rows.append(("seconds", f"{report.seconds:.1f}"))
    rows += [("note", visible(note)) for note in report.notes]
    console.print(facts(rows))


def render_snapshots(console: Console, snapshots: Sequence[SnapshotInfo]) -> None:
    """The name of each on a line of its own, to be copied into the next command."""
    for snapshot in snapshots:
        console.print(visible(snapshot.name), style="bold", soft_wrap=True)
        created = "" if snapshot.created is None else f", {visible(snapshot.created)}"
        console.print(f"  generation {snapshot.generation}, {megabytes(snapshot.bytes)}{created}")


def render_restored(console: Console, restored: RestoredSnapshot) -> None:
    """What serves now."""
    rows = [
        ("generation", f"{restored.generation} is live ({visible(restored.collection)})"),
        ("passages", f"{restored.points:,}"),
    ]
    if restored.previous is not None:
        rows.append(("previous", f"generation {restored.previous} is kept until the next switch"))
    console.print(facts(rows))
