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

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from retrieval.datatypes import IngestProgress

# Controls, and the marks that change the direction of what follows.
_INVISIBLE = {code: " " for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}
_INVISIBLE |= dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F), "")


def output_console() -> Console:
    """The console of results."""
    return Console(highlight=False, emoji=False, markup=False)


def error_console() -> Console:
    """The console of everything that is not a result."""
    return Console(stderr=True, highlight=False, emoji=False, markup=False, soft_wrap=True)


def visible(text: str) -> str:
    """A text on one line, without anything that a terminal would obey."""
    return " ".join(text.translate(_INVISIBLE).split())


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


@contextmanager
def ingest_progress(*, quiet: bool) -> Iterator[Callable[[IngestProgress], None] | None]:
    """A live line on stderr while an ingest runs; ``None`` where nobody watches."""
    console = error_console()
    if quiet or not console.is_terminal:
        yield None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None, counts="")

        def show(progress: IngestProgress) -> None:
            rate = progress.passages / progress.seconds if progress.seconds else 0.0
            counts = f"{progress.documents:,} documents  {progress.passages:,} passages ({rate:,.0f}/s)"
            if progress.rejected:
                counts += f"  {progress.rejected:,} rejected"
            bar.update(task, description=progress.stage, counts=counts)

        yield show


@contextmanager
def step_progress(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A live line on stderr for work in steps: called with what is done, how much of it, and of how many."""
    console = error_console()
    if quiet or not console.is_terminal:
        yield lambda stage, done, total: None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None, counts="")

        def show(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, counts=f"{done:,} of {total:,}" if total else f"{done:,}")

        yield show
