"""Compressing a collection of a server, which does it in the background, later, or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import TwoStagePipeline
from pipelines.quantization import quantize
from retrieval.config import Config, parse_config
from retrieval.datatypes import Point, Quantization, SearchRequest
from retrieval.stores.edge import EdgeStore
from retrieval.stores.server import indexing
from tests import qdrant_double
from tests.adapt_corpus import DIM, documents, write_model
from tests.qdrant_double import QdrantDouble
from tests.qdrant_double_engine import Engine
from tests.store_folders import quick_folder
from tests.test_cli import run

PASSAGES = 200
TURBO = Quantization("turbo", 2)
BUSY = 3


class CompressingEngine(Engine):
    """The double, with dense vectors compressed by the embedded engine some questions after that was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self._folder = self._stack.enter_context(quick_folder())
        self._compressed: EdgeStore | None = None
        self._busy = 0

    def close(self) -> None:
        self._forget()
        self._stack.close()
        super().close()

    def update(self, name: str, body: dict[str, Any]) -> bool:
        if "quantization_config" in body:
            self._forget()
            self._busy = BUSY
        return super().update(name, body)

    def info(self, name: str) -> dict[str, Any]:
        found = super().info(name)
        if self._busy:
            self._busy -= 1
            return {**found, "status": "yellow"}
        if found["config"]["quantization_config"] is not None and self._compressed is None:
            self._compress(name, json.loads(found["config"]["metadata"]["quantization"]))
        return found

    def query_batch(self, name: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        answers = []
        for asked in body["searches"]:
            given = (asked.get("params") or {}).get("quantization") or {}
            if asked["using"] != "dense" or given.get("ignore") or self._compressed is None:
                answers += super().query_batch(name, {"searches": [asked]})
                continue
            assert (given["rescore"], given["oversampling"]) in {(True, 3.0), (False, 3.0)}
            vector = np.array(asked["query"]["nearest"], np.float32)
            request = SearchRequest(vector, asked["limit"], asked.get("filter"), rescore=given["rescore"])
            points = self._compressed.search([request])[0]
            answers.append({"points": [{"id": one.id, "score": one.score, "version": 0} for one in points]})
        return answers

    def _compress(self, name: str, quantization: dict[str, Any]) -> None:
        config = parse_config({"quantization": quantization})
        self._compressed = EdgeStore(config, dim=DIM, path=self._folder, fresh=True)
        points = self.scroll(name, {"limit": 10_000, "with_vector": ["dense"]})["points"]
        self._compressed.upsert(
            [Point(point["id"], np.array(point["vector"]["dense"], np.float32), None, {}) for point in points]
        )

    def _forget(self) -> None:
        if self._compressed is not None:
            self._compressed.close()
        self._compressed = None


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    made: list[float] = []
    monkeypatch.setattr(indexing, "_sleep", made.append)
    monkeypatch.setattr(quantize, "_sleep", made.append)
    return made


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[QdrantDouble]:
    monkeypatch.setattr(qdrant_double, "Engine", CompressingEngine)
    with QdrantDouble() as double:
        yield double


def settings(server: QdrantDouble, model: Path) -> Config:
    store = {"kind": "server", "url": server.url, "collection": "books"}
    return parse_config({"encoder": {"model": str(model)}, "store": store})


def scores(pipeline: TwoStagePipeline, **arguments: Any) -> Any:
    """Ids and scores of a dense search, to be compared up to the noise of float32."""
    (vector,) = pipeline.encoder.encode_queries([documents(PASSAGES)[3][1]])
    found = pipeline.store.search([SearchRequest(vector, 50, **arguments)])[0]
    return pytest.approx({one.id: one.score for one in found}, abs=1e-6)


def test_a_collection_is_compressed_once_the_server_has_done_it(
    server: QdrantDouble, model: Path, tmp_path: Path, pauses: list[float]
) -> None:
    config = settings(server, model)
    with TwoStagePipeline.open(config=config) as pipeline, TwoStagePipeline.open(config=config) as elsewhere:
        pipeline.ingest(documents(PASSAGES))
        exact = scores(pipeline, exact=True)
        report = pipeline.quantize(sample=10)
        assert (report.outcome, report.quantization) == ("kept", TURBO)
        assert report.after is not None
        assert (report.after.in_effect, report.after.bytes_per_passage) == (1.0, 16)
        assert report.after.overlap > 0.98
        # The first answer that was not green went to a question about metadata.
        assert len(pauses) == BUSY - 1
        assert scores(pipeline, rescore=False).expected != exact
        # A process that opened the collection before goes on as it was: it does not know how to rescore.
        assert elsewhere.store.quantization.kind == "none"
        assert scores(elsewhere).expected == exact
    file = tmp_path / "server.yaml"
    file.write_text(json.dumps(config.model_dump(mode="json", exclude_unset=True)))
    assert json.loads(run("info", "--config", file, "--json").out)["quantization"]["kind"] == "turbo"
    lost = run("quantize", "--config", file, "--kind", "binary", "--no-rescore", "--sample", 5)
    assert (lost.code, "it was taken back" in lost.err) == (1, True)
    with TwoStagePipeline.open(config=config) as pipeline:
        assert pipeline.store.quantization == TURBO
        assert pipeline.quantize(Quantization()).outcome == "off"
        assert scores(pipeline).expected == exact
    assert json.loads(run("info", "--config", file, "--json").out)["quantization"]["kind"] == "none"


def test_a_server_that_compresses_nothing_is_found_out(model: Path, pauses: list[float]) -> None:
    with QdrantDouble() as server, TwoStagePipeline.open(config=settings(server, model)) as pipeline:
        pipeline.ingest(documents(50))
        report = pipeline.quantize(sample=10)
        assert (report.outcome, report.quantization.kind) == ("not in effect", "none")
        assert "(hnsw.threshold), and the index has 50" in report.reason
        assert pauses.count(quantize._PAUSE_S) == quantize._ROUNDS


def test_a_process_that_dies_leaves_what_the_server_has(server: QdrantDouble, model: Path) -> None:
    config = settings(server, model)
    with TwoStagePipeline.open(config=config) as pipeline:
        pipeline.ingest(documents(PASSAGES))
        exact = scores(pipeline, exact=True)
        # As a kill right after the request: nobody waits, measures or decides.
        pipeline.store.set_quantization(TURBO)
    with TwoStagePipeline.open(config=config) as pipeline:
        assert pipeline.store.quantization == TURBO
        pipeline.store.optimize()
        assert scores(pipeline, rescore=False).expected != exact
        assert pipeline.quantize(sample=10).outcome == "kept"
        assert pipeline.quantize(Quantization()).outcome == "off"
        assert scores(pipeline).expected == exact
