"""Consoles, progress and JSON.

Results go to stdout, everything else to stderr. Text of documents is shown without control characters, so that a
document cannot write to the terminal.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, TaskID

    from retrieval.datatypes import IngestProgress

# Controls, and the marks that change the direction of what follows.
_INVISIBLE = {code: " " for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}
_INVISIBLE |= dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F), "")


def output_console() -> Console:
    """The console of results."""
    from rich.console import Console  # JSON for machines does without it

    return Console(highlight=False, emoji=False, markup=False)


def error_console() -> Console:
    """The console of everything that is not a result."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, emoji=False, markup=False, soft_wrap=True)


def visible(text: str) -> str:
    """A text on one line, without anything that a terminal would obey."""
    return " ".join(text.translate(_INVISIBLE).split())


def visible_lines(text: str) -> str:
    """A text with its lines, without anything else that a terminal would obey."""
    return "\n".join(line.translate(_INVISIBLE) for line in text.split("\n"))


def write_json(record: Any) -> None:
    """Write one JSON document to stdout: records as objects, paths as strings, numbers that are not finite as null."""
    # Half of a surrogate pair, from a file name that is not UTF-8, has no form but the escaped one.
    sys.stdout.write(json.dumps(plain(record), ensure_ascii=True, allow_nan=False, indent=1) + "\n")


def plain(value: Any) -> Any:
    """A record as JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    return plain(value.item()) if hasattr(value, "item") else str(value)


class LiveLine:
    """What a live line shows; `live_line` opens one."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def show(self, stage: str, counts: str, *, done: int = 0, of: int = 0) -> None:
        """Change what it says.

        Args:
            stage: What is being done.
            counts: How much of it, in words.
            done: Where the bar stands.
            of: Where it ends; 0 while that is not known.
        """
        self._bar.update(self._task, description=stage, counts=counts, completed=done, total=of or None)


@contextmanager
def live_line(*, quiet: bool, bar_width: int = 0, remaining: bool = False) -> Iterator[LiveLine | None]:
    """A line on stderr with a spinner, the stage, counts and the time; ``None`` where nobody watches.

    Args:
        quiet: Show nothing.
        bar_width: Columns of the bar; 0 for none.
        remaining: Show the time that is left as well.
    """
    console = error_console()
    if quiet or not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn("{task.description}")]
    if bar_width:
        columns.append(BarColumn(bar_width=bar_width))
    columns += [TextColumn("{task.fields[counts]}"), TimeElapsedColumn()]
    if remaining:
        columns.append(TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield LiveLine(bar, bar.add_task("starting", total=None, counts=""))


@contextmanager
def ingest_progress(*, quiet: bool) -> Iterator[Callable[[IngestProgress], None] | None]:
    """A live line on stderr while an ingest runs; ``None`` where nobody watches."""
    with live_line(quiet=quiet) as line:
        if line is None:
            yield None
            return

        def show(progress: IngestProgress) -> None:
            counts = f"{progress.documents:,} documents  {progress.passages:,} passages"
            if progress.rejected:
                counts += f"  {progress.rejected:,} rejected"
            line.show(progress.stage, counts + _rates(progress))

        yield show


def _rates(progress: IngestProgress) -> str:
    """A second line: passages per second of time, and of the time that each stage has worked."""
    if not progress.passages or not progress.seconds:
        return ""
    rates = f"\npassages/s {progress.passages / progress.seconds:,.0f}"
    stages = {"read": progress.read_seconds, "encode": progress.encode_seconds, "write": progress.write_seconds}
    # Reweighting counts passages that went through no stage of this run.
    if progress.stage == "reweighting" or not all(stages.values()):
        return rates
    return f"{rates}: " + "  ".join(f"{name} {progress.passages / spent:,.0f}" for name, spent in stages.items())


@contextmanager
def step_progress(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A live line on stderr for work in steps: called with what is done, how much of it, and of how many."""
    with live_line(quiet=quiet) as line:
        if line is None:
            yield lambda stage, done, total: None
            return
        yield lambda stage, done, total: line.show(stage, f"{done:,} of {total:,}" if total else f"{done:,}")
