"""What `retrieval watch` says: one line for each thing that happens."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.text import Text

from pipelines.render.output import error_console, output_console, plain, visible

if TYPE_CHECKING:
    from pipelines.watch import WatchEvent

_SHOWN_PATHS = 3
_SHOWN_REJECTIONS = 3


class EventLines:
    """Writes a line for each event: changes to stdout, the rest to stderr; as JSON all to stdout.

    Args:
        as_json: One JSON document a line.
        quiet: Only changes and failures.
    """

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self._as_json = as_json
        self._quiet = quiet

    def waiting(self, message: str) -> None:
        """Say that another process has the index."""
        if self._as_json:
            self._write({"event": "waiting", "message": message})
        elif not self._quiet:
            self._tell(f"waiting: {message}", "yellow")

    def show(self, event: WatchEvent) -> None:
        """Say what has happened."""
        if self._as_json:
            counts = plain(event.applied) if event.kind in {"synced", "changed"} else {}
            given = {"event": event.kind, "folder": None if event.root is None else str(event.root)}
            more = {"paths": list(event.paths)} if event.paths else {}
            self._write(given | counts | more | ({"message": event.message} if event.message else {}))
        elif event.kind in {"synced", "changed"}:
            self._changes(event)
        elif event.kind == "failed":
            self._tell(f"error: {event.root}: {event.message}; trying again", "red")
        elif event.kind == "gone":
            self._tell(f"{event.root} is gone; its documents stay, waiting for it", "yellow")
        elif not self._quiet:
            self._tell({"watching": "watching; Ctrl-C ends it"}.get(event.kind, event.kind) + _of(event), "dim")

    def _changes(self, event: WatchEvent) -> None:
        applied = event.applied
        counts = [("added", applied.added), ("changed", applied.changed), ("removed", applied.removed)]
        words = [f"{number:,} {name}" for name, number in counts if number] or ["nothing new"]
        if applied.unchanged and event.kind == "synced":
            words.append(f"{applied.unchanged:,} unchanged")
        if applied.rejected:
            words.append(f"{len(applied.rejected):,} not usable")
        names = ", ".join(visible(name) for name in event.paths[:_SHOWN_PATHS])
        names += f" and {len(event.paths) - _SHOWN_PATHS:,} more" if len(event.paths) > _SHOWN_PATHS else ""
        line = Text.assemble((_clock(), "dim"), "  ", ", ".join(words), (f" in {applied.seconds:.1f} s", "dim"))
        line.append(f"  {names or visible(str(event.root))}", style="dim")
        output_console().print(line, soft_wrap=True)
        for one in applied.rejected[:_SHOWN_REJECTIONS]:
            self._tell(f"  {one.source}: {one.reason}", "yellow")
        if len(applied.rejected) > _SHOWN_REJECTIONS:
            self._tell(f"  and {len(applied.rejected) - _SHOWN_REJECTIONS:,} more", "yellow")
        sys.stdout.flush()

    def _tell(self, message: str, style: str) -> None:
        error_console().print(Text.assemble((_clock(), "dim"), "  ", (visible(message), style)), soft_wrap=True)

    def _write(self, record: dict[str, object]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        sys.stdout.write(json.dumps({"time": now, **record}, allow_nan=False) + "\n")
        sys.stdout.flush()


def _of(event: WatchEvent) -> str:
    return "" if event.root is None else f": {event.root}"


def _clock() -> str:
    return datetime.now().strftime("%H:%M:%S")
