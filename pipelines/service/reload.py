"""Another index or other models in the place of those in use, without a request that notices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipelines.opening import open_index_encoder
from pipelines.service.holder import PipelineHolder
from pipelines.two_stage import TwoStagePipeline
from retrieval.config import Config, EdgeStoreConfig
from retrieval.encoders import Bm25Encoder
from retrieval.models import find_model
from retrieval.rerankers import open_reranker
from retrieval.stores import peek_index

Resolve = Callable[[str | None], tuple[Config, Path | None]]
"""Gives the settings as they stand now, and the folder of the embedded index: the configured one, or one by name."""


def reload_pipeline(
    holder: PipelineHolder, config: Config, folder: Path | None, *, read_only: bool = False
) -> TwoStagePipeline:
    """Open what the settings describe, warm it up, and let it serve; call it where nothing writes meanwhile.

    An embedded index that is open already stays open and gets a new pipeline around it, since only one handle may have
    it. Requests that have begun end with the pipeline that they have begun with.

    Args:
        holder: Holds the pipeline in use.
        config: Settings of the next one.
        folder: Folder of an embedded index; ``None`` for other stores.
        read_only: As for `TwoStagePipeline.open`; then an index that is open already is opened once more.

    Returns:
        The pipeline that serves now.

    Raises:
        RetrievalError: It cannot be opened; the old one goes on serving.
    """
    with holder.use() as current:
        shared = not read_only and _is_open_in(current, config, folder)
        following = (
            _around(current, config, folder)
            if shared
            else TwoStagePipeline.open(folder or Path(), config, read_only=read_only)
        )
        try:
            warm_up(following)
        except BaseException:
            if not shared:
                following.close()
            raise
        holder.replace(following, close_before=current.retire if shared else None)
    return following


def warm_up(pipeline: TwoStagePipeline) -> None:
    """Open what a pipeline opens at its first search, so that nobody has to wait for it, or find out that it cannot.

    Raises:
        ModelError: The cross-encoder is missing or malformed.
        StoreError: The store cannot be searched.
    """
    pipeline.search("warm up", 1)
    if pipeline.config.rerank.enabled:
        pipeline.reranker().score("warm", ["up"])


def _is_open_in(current: TwoStagePipeline, config: Config, folder: Path | None) -> bool:
    if isinstance(config.store, EdgeStoreConfig) and isinstance(current.config.store, EdgeStoreConfig):
        return folder is not None and Path(current.store.location).resolve() == folder.resolve()
    return config.store.kind == "memory" == current.config.store.kind


def _around(current: TwoStagePipeline, config: Config, folder: Path | None) -> TwoStagePipeline:
    """A pipeline with other settings over the store that is open; the constructor compares encoder and index."""
    encoder = open_index_encoder(config, peek_index(config, folder)) if folder is not None else current.encoder
    return TwoStagePipeline(
        config,
        encoder=encoder,
        sparse=Bm25Encoder(config.bm25),
        store=current.store,
        open_reranker=lambda: open_reranker(config.rerank, find_model(config.rerank.model)),
    )
