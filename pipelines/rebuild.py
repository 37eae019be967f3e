"""Build an index anew beside the old one and let it take its place only when it is complete.

The new index grows in ``.NAME.rebuilding``, a hidden folder next to the old one. When it is complete two renames swap
them: old to ``.NAME.replaced``, new to ``NAME``. A process killed at any moment leaves one complete index, either in
its place or, between the two renames, where `finish_swap` finds it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from retrieval.errors import StoreError
from retrieval.manifest import MANIFEST_FILE

if TYPE_CHECKING:
    from pipelines.two_stage import TwoStagePipeline
    from retrieval.config import Config

Result = TypeVar("Result")

_INDEX_FILES = {MANIFEST_FILE, "store.json", "engine", ".lock"}


def rebuild_index(folder: Path, config: Config, fill: Callable[[TwoStagePipeline], Result]) -> Result:
    """Fill a new embedded index and put it in the place of the old one, which is locked meanwhile.

    Args:
        folder: Folder of the index; need not exist.
        config: Settings of the new index; its ``store.path`` is not used.
        fill: Ingests into the new index. If the index is still empty afterwards, or ``fill`` raises, the old one stays.

    Returns:
        What ``fill`` returned.

    Raises:
        StoreBusyError: The old index is open elsewhere.
        StoreError: The folder holds something that is not part of an index.
    """
    from pipelines.two_stage import TwoStagePipeline

    finish_swap(folder)
    folder = folder.resolve()
    _require_only_index(folder)
    growing, replaced = _beside(folder, "rebuilding"), _beside(folder, "replaced")
    with _locked(folder):
        for leftover in (growing, replaced):
            _remove(leftover)
        store = config.store.model_copy(update={"path": None})
        try:
            with TwoStagePipeline.open(growing, config.model_copy(update={"store": store})) as pipeline:
                result = fill(pipeline)
                complete = pipeline.manifest.state == "ready" and pipeline.manifest.passages > 0
            if complete:
                if folder.exists():
                    folder.rename(replaced)
                growing.rename(folder)
        finally:
            _remove(growing)
    _remove(replaced)
    return result


def finish_swap(folder: Path) -> None:
    """Put an index back in its place that a process killed between the two renames has left beside it."""
    replaced = _beside(folder, "replaced")
    if replaced.exists() and not folder.exists():
        replaced.rename(folder)


def _beside(folder: Path, state: str) -> Path:
    resolved = folder.resolve()
    return resolved.with_name(f".{resolved.name}.{state}")


def _require_only_index(folder: Path) -> None:
    """Whatever is in the folder is removed in the end, so nothing of the user's may be there."""
    foreign = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    foreign = [name for name in foreign if name.removesuffix(".new") not in _INDEX_FILES]
    if foreign:
        raise StoreError(
            f"{folder} holds {foreign[0]!r}, which is no part of an index, and a rebuild would remove it; "
            "choose another folder with --index"
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    from retrieval.stores.lock import IndexLock

    if not folder.exists():
        yield
        return
    lock = IndexLock(folder)
    try:
        yield
    finally:
        lock.release()


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
