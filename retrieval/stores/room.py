"""Whether there is disk enough to open an index."""

from __future__ import annotations

import shutil
from pathlib import Path

from retrieval.errors import StoreFullError
from retrieval.stores.index_layout import ENGINE
from retrieval.stores.seal import SEAL

_LEAST = 40 * 2**20
"""Beside what the log holds: the engine begins another file of it, of 32 MiB, and pages of its own."""


def require_room(generation: Path, place: Path) -> None:
    """Refuse to open an index that was not closed in order on a disk that is too full for what that takes.

    The engine brings its files up to date from its log as it opens them. It writes through memory maps, and a full
    disk then kills the process without a word. What was closed in order is opened without.

    Args:
        generation: Folder of the generation.
        place: The index, for the message.

    Raises:
        StoreFullError: There is less room than the log takes.
    """
    log = generation / ENGINE / "wal"
    if not log.is_dir() or (generation / SEAL).exists():
        return
    needed = _LEAST + sum(getattr(path.stat(), "st_blocks", 0) * 512 for path in log.iterdir())
    free = shutil.disk_usage(generation).free
    if free < needed:
        raise StoreFullError(
            f"{place} was not closed in order, and to open it needs {needed // 2**20} MiB of free disk, of which there "
            f"are {free // 2**20}; make room, and try again: nothing is lost"
        )
