"""A temporary index with given texts, and other documents among which they have to be found."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path

from pipelines.progress import StepCallback
from pipelines.two_stage import TwoStagePipeline
from retrieval.config import Config, EdgeStoreConfig
from retrieval.datatypes import Document, IngestProgress
from retrieval.encoders import Bm25Encoder
from retrieval.evaluation import BeirCollection
from retrieval.models import open_encoder
from retrieval.protocols import Encoder, Reranker
from retrieval.stores import open_store


@contextmanager
def open_haystack(
    needles: Mapping[str, str],
    config: Config,
    reranker: Callable[[], Reranker],
    *,
    index: str | Path | None = None,
    distractors: str | Path | None = None,
    on_progress: StepCallback,
) -> Iterator[TwoStagePipeline]:
    """A pipeline over a temporary embedded index, erased at the end.

    Args:
        needles: Id of each text.
        config: Settings; the store that it names is neither read nor written.
        reranker: Gives the cross-encoder.
        index: Folder of an embedded index whose passages become distractors and whose encoder, adapted or not, and
            weights of the fusion are used; it is not changed. ``None`` for none.
        distractors: A BEIR folder whose documents become distractors; ``None`` for none.
        on_progress: Called while ingesting.

    Raises:
        DocumentError: The collection is missing or malformed.
        ValueError: One of the texts cannot be indexed.
        RetrievalError: As for `TwoStagePipeline.open`.
    """
    with ExitStack() as opened:
        others: list[Iterator[Document]] = []
        encoder: Encoder
        if distractors is not None:
            others.append(BeirCollection(Path(distractors), "", {}, {}).documents())
        if index is not None:
            source = opened.enter_context(TwoStagePipeline.open(index, config))
            encoder, config = source.encoder, _with_weight_of(source, config)
            others.append(_passages(source))
        else:
            encoder = open_encoder(config.encoder)
        config = config.model_copy(update={"store": EdgeStoreConfig()})
        folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="retrieval-haystack-"))
        haystack = opened.enter_context(_open(Path(folder), config, encoder, reranker))
        _ingest(haystack, needles, chain.from_iterable(others), on_progress)
        yield haystack


def _open(folder: Path, config: Config, encoder: Encoder, reranker: Callable[[], Reranker]) -> TwoStagePipeline:
    store = open_store(config, dim=encoder.dim, path=folder)
    try:
        return TwoStagePipeline(
            config, encoder=encoder, sparse=Bm25Encoder(config.bm25), store=store, open_reranker=reranker
        )
    except BaseException:
        store.close()
        raise


def _ingest(
    haystack: TwoStagePipeline, needles: Mapping[str, str], others: Iterator[Document], on_progress: StepCallback
) -> None:
    def show(progress: IngestProgress) -> None:
        on_progress(f"ingest: {progress.stage}", progress.documents, 0)

    own = (Document(id=name, text=text) for text, name in needles.items())
    report = haystack.ingest(chain(own, others), on_progress=show)
    names = {name: text for text, name in needles.items()}
    for rejected in report.rejected:
        if rejected.source in names:
            raise ValueError(f"the text {names[rejected.source][:60]!r} cannot be indexed: {rejected.reason}")


def _passages(pipeline: TwoStagePipeline) -> Iterator[Document]:
    """The passages of an index, each a document of its own."""
    for point in pipeline.store.scan(payload=["text", "title"]):
        yield Document(id=point.id, text=str(point.payload["text"]), title=str(point.payload["title"]))


def _with_weight_of(pipeline: TwoStagePipeline, config: Config) -> Config:
    """The settings with the weight of the dense arm that was chosen for an index, unless they have their own."""
    first_stage = config.first_stage
    if first_stage.dense_weight is not None or pipeline.manifest.dense_weight is None:
        return config
    weighed = first_stage.model_copy(update={"dense_weight": pipeline.manifest.dense_weight})
    return config.model_copy(update={"first_stage": weighed})
