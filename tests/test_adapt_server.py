"""Adapting a collection: the client's in-process mode stands for the server, with everything else as it is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient

from pipelines import TwoStagePipeline
from pipelines.doctor import examine
from retrieval.config import Config, parse_config
from retrieval.errors import ConfigError, ModelError, StoreError
from retrieval.stores.server import connection as server_connection
from tests.adapt_corpus import documents, word, write_model
from tests.test_adapt import adapt, require_vectors_of_its_encoder, synonyms_found


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[QdrantClient]:
    """One server for every connection of a test, which outlives them."""
    made = QdrantClient(":memory:")
    close = made.close
    monkeypatch.setattr(made, "close", lambda: None)
    monkeypatch.setattr(server_connection, "open_client", lambda config: made)
    yield made
    close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


def config(model: Path, models: Path | None, **sections: Any) -> Config:
    store = {"kind": "server", "collection": "books", "models": None if models is None else str(models)}
    return parse_config({"encoder": {"model": str(model)}, "store": store, **sections})


def aliases(client: QdrantClient) -> dict[str, str]:
    return {alias.alias_name: alias.collection_name for alias in client.get_aliases().aliases}


def test_a_collection_is_adapted_reopened_and_rolled_back(client: QdrantClient, model: Path, tmp_path: Path) -> None:
    settings = config(model, tmp_path / "models")
    with TwoStagePipeline.open(config=settings) as pipeline:
        pipeline.ingest(documents())
        report = adapt(pipeline)
        assert (report.switched, report.generation, report.previous) == (True, 2, 1)
        assert synonyms_found(pipeline) > 0.6
        assert pipeline.search(word(3, 0), 5, rerank=False)
    assert aliases(client) == {"books": "books-g2"}
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["books-g2"]
    with TwoStagePipeline.open(config=settings) as pipeline:
        assert synonyms_found(pipeline) > 0.6
        assert pipeline.ingest([*documents(), ("new", word(3, 0))]).added == 1
        require_vectors_of_its_encoder(pipeline)
        assert pipeline.rollback().encoded == 241
        assert aliases(client) == {"books": "books-g3"}
        assert synonyms_found(pipeline) < 0.3
        require_vectors_of_its_encoder(pipeline)
        assert pipeline.rollback().encoded == 0
        assert aliases(client) == {"books": "books-g2"}
        assert synonyms_found(pipeline) > 0.6
        assert pipeline.discard_previous() == 3
    assert [found.name for found in client.get_collections().collections] == ["books-g2"]


def test_a_machine_without_the_encoder_is_told_what_is_missing(
    client: QdrantClient, model: Path, tmp_path: Path
) -> None:
    with TwoStagePipeline.open(config=config(model, tmp_path / "models")) as pipeline:
        pipeline.ingest(documents())
        adapt(pipeline)
    with pytest.raises(ModelError, match=r"set store\.models to the folder with it"):
        TwoStagePipeline.open(config=config(model, None))
    with pytest.raises(ModelError, match=r"it is not in .*elsewhere/books-g2; copy that folder"):
        TwoStagePipeline.open(config=config(model, tmp_path / "elsewhere"))
    shutil.copytree(tmp_path / "models", tmp_path / "elsewhere")
    with TwoStagePipeline.open(config=config(model, tmp_path / "elsewhere")) as pipeline:
        assert synonyms_found(pipeline) > 0.6
    checks = {check.name: check for check in examine(config(model, tmp_path / "models"), None)}
    assert checks["encoder"].detail.startswith("tiny-adapted@")
    assert checks["encoding"].ok is True


def test_without_a_folder_for_the_encoder_nothing_is_trained(client: QdrantClient, model: Path, tmp_path: Path) -> None:
    with TwoStagePipeline.open(config=config(model, None)) as pipeline:
        pipeline.ingest(documents())
        stages: list[str] = []
        with pytest.raises(ConfigError, match=r"name one in store\.models"):
            adapt(pipeline, on_progress=lambda progress: stages.append(progress.stage))
        assert not stages
        assert adapt(pipeline, dry_run=True).accepted
    assert [found.name for found in client.get_collections().collections] == ["books-g1"]


def test_a_failed_switch_leaves_the_old_generation_serving(
    client: QdrantClient, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TwoStagePipeline.open(config=config(model, tmp_path / "models")) as pipeline:
        pipeline.ingest(documents())
        with monkeypatch.context() as broken:
            broken.setattr(client, "update_collection_aliases", _refuse)
            with pytest.raises(StoreError, match="not today"):
                adapt(pipeline)
        assert synonyms_found(pipeline) < 0.3
        assert pipeline.search(word(3, 0), 5, rerank=False)
        assert pipeline.ingest([("new", word(3, 0))]).added == 1
        assert [found.name for found in client.get_collections().collections] == ["books-g1"]
        assert not list((tmp_path / "models").iterdir())
        assert adapt(pipeline).encoded == 241


def _refuse(*_: object, **__: object) -> None:
    raise ValueError("not today")
