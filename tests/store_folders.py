"""Where the tests of stores put their indexes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipelines import TwoStagePipeline

_MEMORY = Path("/dev/shm")
_ENOUGH = 4 * 2**30


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A temporary folder, in memory where there is room: on a busy disk these tests would mostly wait for fsync."""
    in_memory = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ENOUGH
    with tempfile.TemporaryDirectory(prefix="stores-", dir=_MEMORY if in_memory else None) as folder:
        yield Path(folder)


def closed_index(folder: Path, documents: Sequence[tuple[str, str]]) -> Path:
    """An index of these documents in a folder, which nobody has open."""
    path = folder / "index"
    with TwoStagePipeline.open(path) as pipeline:
        pipeline.ingest(documents)
    return path
