"""The contents of an index, carried from one store to another as they are."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pipelines.progress import StepCallback
from retrieval.datatypes import Point, StoredPoint
from retrieval.protocols import Store

_POINTS_PER_BATCH = 512
_POINTS_PER_FLUSH = 32_768
_IDS_PER_BATCH = 4096


def copy_points(source: Store, target: Store, passages: int, on_progress: StepCallback) -> tuple[int, int]:
    """Write every point of the source that the target lacks, with vectors, weights and payload as they are stored.

    Args:
        source: Open store, whose points do not change meanwhile.
        target: Store that holds nothing but points of the source.
        passages: How many there are, for the progress.
        on_progress: Called after every batch.

    Returns:
        How many were written, and how many were there.

    Raises:
        StoreError: One of the stores failed; the next call goes on from what was written.
        StoreFullError: Too little disk is left.
    """
    there = target.count()
    written = known = unflushed = 0
    batches = _missing(source, target) if there else _all(source)
    with target.bulk():
        for points, present in batches:
            target.upsert([Point(point.id, point.dense, point.sparse, point.payload) for point in points])
            written += len(points)
            known += present
            unflushed += len(points)
            if unflushed >= _POINTS_PER_FLUSH:
                target.flush()
                unflushed = 0
            on_progress("copying", written + known, passages)
        target.flush()
    return written, known


def copy_encoder(source: Path, target: Path) -> None:
    """Copy the folder of an adapted encoder; what is at the target is replaced when the copy is complete."""
    growing = target.with_name(f"{target.name}.new")
    for folder in (growing, target):
        if folder.exists():
            shutil.rmtree(folder)
    shutil.copytree(source, growing)
    growing.rename(target)


def _all(source: Store) -> Iterator[tuple[list[StoredPoint], int]]:
    points = source.scan(vectors=True, batch=_POINTS_PER_BATCH)
    while batch := list(islice(points, _POINTS_PER_BATCH)):
        yield batch, 0


def _missing(source: Store, target: Store) -> Iterator[tuple[list[StoredPoint], int]]:
    """Ids are cheap to read: of the points that the target has nothing else is."""
    points = source.scan(payload=False, batch=_IDS_PER_BATCH)
    while ids := [point.id for point in islice(points, _IDS_PER_BATCH)]:
        present = {point.id for point in target.get(ids, payload=False)}
        missing = [point_id for point_id in ids if point_id not in present]
        yield [], len(present)
        for start in range(0, len(missing), _POINTS_PER_BATCH):
            yield source.get(missing[start : start + _POINTS_PER_BATCH], vectors=True), 0
