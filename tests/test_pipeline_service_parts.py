"""What a service needs of the pipeline: deletion by filter, reading what serves, another pipeline over its store."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import TwoStagePipeline
from retrieval.config import parse_config
from retrieval.datatypes import Document
from retrieval.encoders import Bm25Encoder
from retrieval.errors import StoreInputError

CONFIG = parse_config({"store": {"min_free_mb": 0}, "chunking": {"max_tokens": 32, "overlap_tokens": 8}})
LONG = " ".join(f"word{number}" for number in range(120))


def test_a_filter_on_passages_removes_documents_as_a_whole(tmp_path: Path) -> None:
    with TwoStagePipeline.open(tmp_path, CONFIG) as pipeline:
        pipeline.ingest([Document("long", LONG), Document("short", "copper pipe", metadata={"n": 1})])
        assert pipeline.manifest.passages > 3
        assert pipeline.delete_where({"must": [{"key": "index", "range": {"gte": 2}}]}) == 1
        assert (pipeline.manifest.documents, pipeline.manifest.passages) == (1, 1)
        assert [hit.document_id for hit in pipeline.search("copper")] == ["short"]
        assert pipeline.delete_where({"must": [{"key": "metadata.n", "match": {"value": 2}}]}) == 0
        assert pipeline.delete_where({"must": [{"key": "metadata.n", "match": {"value": 1}}]}) == 1
        assert pipeline.manifest.state == "ready"
    with TwoStagePipeline.open(tmp_path, CONFIG) as pipeline:
        assert pipeline.manifest.documents == 0


@pytest.mark.parametrize("where", [{}, {"must": []}, {"should": [{"must": []}]}])
def test_a_filter_that_matches_everything_deletes_nothing(tmp_path: Path, where: dict[str, object]) -> None:
    with TwoStagePipeline.open(tmp_path, CONFIG) as pipeline:
        pipeline.ingest([Document("short", "copper pipe")])
        with pytest.raises(StoreInputError, match="matches everything"):
            pipeline.delete_where(where)
        assert pipeline.manifest.documents == 1


def test_another_pipeline_goes_on_with_the_store_of_a_retired_one(tmp_path: Path) -> None:
    first = TwoStagePipeline.open(tmp_path, CONFIG)
    first.ingest([Document("short", "copper pipe")])
    with first.reading() as serving:
        assert serving.store is first.store
        assert serving.store.count() == 1
    second = TwoStagePipeline(
        CONFIG,
        encoder=first.encoder,
        sparse=Bm25Encoder(CONFIG.bm25),
        store=first.store,
        open_reranker=first.reranker,
    )
    first.retire()
    with second:
        second.ingest([Document("next", "copper valve")])
        assert sorted(hit.document_id for hit in second.search("copper")) == ["next", "short"]
        assert second.manifest.documents == 2
        assert second.reranker() is second.reranker()
