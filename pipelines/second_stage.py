"""The cross-encoder of a configuration: opened at the first search that reads, or begun beside all else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from retrieval.config import Config
from retrieval.models import find_model
from retrieval.protocols import Reranker
from retrieval.rerankers import open_reranker


def open_second_stage(config: Config) -> Reranker:
    """The cross-encoder that a configuration names; its weights are loaded when it is first used.

    Raises:
        ModelError: It is not found or its folder is incomplete.
    """
    return open_reranker(config.rerank, find_model(config.rerank.model))


def begin_second_stage(config: Config) -> Callable[[], Reranker] | None:
    """Load the cross-encoder in a thread of its own, for whoever is about to search once.

    Most of that needs no Python, so that it goes on while an index is opened.

    Returns:
        Waits for the cross-encoder, or raises why there is none; ``None`` where the configuration has nobody read.
    """
    if not (config.rerank.enabled and config.rerank.depth):
        return None
    made: Future[Reranker] = Future()

    def load() -> None:
        try:
            reranker = open_second_stage(config)
            reranker.score("", [""])
            made.set_result(reranker)
        except BaseException as error:
            made.set_exception(error)

    threading.Thread(target=load, name="retrieval-second-stage").start()
    return made.result
