"""Build an index anew beside the old one and let it take its place only when it is complete.

The new index grows as the next generation in the folder of the old one, which stays live until one rename switches.
A process killed at any moment leaves one complete index.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipelines.opening import names_base_of
from retrieval.encoders import Bm25Encoder, StaticEncoder
from retrieval.errors import StoreError
from retrieval.manifest import manifest_to_json
from retrieval.models import find_model, open_encoder
from retrieval.rerankers import open_reranker
from retrieval.stores import StoredIndex, grow_store, peek_index

if TYPE_CHECKING:
    from pipelines.two_stage import TwoStagePipeline
    from retrieval.config import Config

Result = TypeVar("Result")
_logger = logging.getLogger(__name__)


def rebuild_index(folder: Path, config: Config, fill: Callable[[TwoStagePipeline], Result]) -> Result:
    """Fill a new embedded index and put it in the place of the old one, which is locked meanwhile.

    An index with an encoder that was adapted to its documents keeps that encoder and its fusion weight, as long as the
    configuration names the same model as before. The generation before it is gone then.

    Args:
        folder: Folder of the index; need not exist, and its files may be damaged.
        config: Settings of the new index; its ``store.path`` is not used.
        fill: Ingests into the new index. If the index is still empty afterwards, or ``fill`` raises, the old one stays.

    Returns:
        What ``fill`` returned.

    Raises:
        StoreBusyError: The old index is open elsewhere.
        StoreFullError: Too little disk is left.
        ModelError: The encoder cannot be opened.
    """
    from pipelines.two_stage import TwoStagePipeline

    adapted = _adapted_index(config, folder)
    encoder = open_encoder(config.encoder) if adapted is None else StaticEncoder.open(adapted[1])
    store = grow_store(config, dim=encoder.dim, path=folder)
    try:
        pipeline = TwoStagePipeline(
            config,
            encoder=encoder,
            sparse=Bm25Encoder(config.bm25),
            store=store,
            open_reranker=lambda: open_reranker(config.rerank, find_model(config.rerank.model)),
        )
        result = fill(pipeline)
        manifest = pipeline.manifest
        if manifest.state != "ready" or not manifest.passages:
            store.abandon()
            return result
        if adapted is not None:
            old = adapted[0].manifest
            shutil.copytree(adapted[1], store.encoder_folder())
            manifest = replace(manifest, adapted_from=old.adapted_from, dense_weight=old.dense_weight)
        store.make_live(manifest_to_json(manifest))
    except BaseException:
        store.abandon()
        raise
    try:
        store.tidy()
    finally:
        pipeline.close()
    return result


def _adapted_index(config: Config, folder: Path) -> tuple[StoredIndex, Path] | None:
    """The old index and the folder of its adapted encoder, where there is one that the new index can have."""
    try:
        stored = peek_index(config, folder)
    except StoreError:
        return None
    if stored is None or stored.manifest.adapted_from is None or not names_base_of(config, stored.manifest):
        return None
    if stored.encoder_folder is None or not stored.encoder_folder.is_dir():
        _logger.warning("the adapted encoder of %s is gone; the new index has the one it was adapted from", folder)
        return None
    return stored, stored.encoder_folder
