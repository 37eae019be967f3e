"""Searching an index that another process may have open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.two_stage import TwoStagePipeline
from retrieval.errors import StoreBusyError, StoreError, StoreFullError
from retrieval.stores.lock import is_writable

if TYPE_CHECKING:
    from retrieval.config import Config
    from retrieval.protocols import Reranker


def open_beside(
    path: Path, config: Config, second_stage: Callable[[], Reranker] | None, tell: Callable[[str], None]
) -> TwoStagePipeline:
    """Open an index for searching: as it is, or a copy of its last complete state where it cannot be had.

    That is where another process has it open, or where nothing can be written to its folder.

    Args:
        path: Folder of the index.
        config: Settings.
        second_stage: As for `TwoStagePipeline.open`.
        tell: Told which state it is, where it is not the index itself.

    Raises:
        StoreBusyError: Another process has it open and has published no state that could be read.
        RetrievalError: As for `TwoStagePipeline.open`.
    """
    try:
        return TwoStagePipeline.open(path, config, second_stage=second_stage)
    except (StoreBusyError, StoreFullError) as error:
        return open_published(path, config, second_stage, error, tell)
    except StoreError as error:
        if is_writable(path):
            raise
        return open_published(path, config, second_stage, error, tell)


def open_published(
    path: Path,
    config: Config,
    second_stage: Callable[[], Reranker] | None,
    refused: StoreError,
    tell: Callable[[str], None],
) -> TwoStagePipeline:
    """Open a copy of the last complete state of an index.

    Args:
        path: Folder of the index.
        config: Settings.
        second_stage: As for `TwoStagePipeline.open`.
        refused: Why the index itself could not be opened.
        tell: Told which state it is.

    Raises:
        StoreError: There is no such state, or it cannot be copied; this is ``refused``.
    """
    try:
        pipeline = TwoStagePipeline.open(path, config, second_stage=second_stage, read_only=True)
    except StoreError as error:
        raise refused from error
    manifest = pipeline.manifest
    if isinstance(refused, StoreBusyError):
        reason = "another process has the index open"
    elif isinstance(refused, StoreFullError):
        reason = "the disk of the index is full"
    else:
        reason = "the folder of the index cannot be written to"
    tell(f"{reason}; searching a copy of its state of {manifest.updated} with {manifest.passages:,} passages")
    return pipeline
