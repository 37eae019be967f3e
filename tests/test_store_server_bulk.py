"""Indexing that is put off while many points come: which requests go out, in which order, and what a failure leaves."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import TwoStagePipeline
from retrieval.config import Config, parse_config
from retrieval.datatypes import IngestProgress, Point
from retrieval.errors import StoreError
from retrieval.protocols import Store
from retrieval.stores import open_store
from retrieval.stores.server import ServerStore, indexing
from retrieval.stores.server import connection as server_connection
from tests.adapt_corpus import write_model
from tests.qdrant_double import QdrantDouble
from tests.qdrant_stub import Qdrant, running

UNIT = np.array([1, 0, 0, 0], np.float32)
COLLECTION = "/collections/books"


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses of both kinds, recorded and not made; an ingest counts as large from four points."""
    made: list[float] = []
    monkeypatch.setattr(server_connection, "_sleep", made.append)
    monkeypatch.setattr(indexing, "_sleep", made.append)
    monkeypatch.setattr(indexing, "BULK_POINTS", 4)
    return made


@pytest.fixture
def qdrant() -> Iterator[Qdrant]:
    with running(Qdrant()) as script:
        script.results["/points/count"] = {"count": 0}
        yield script


def settings(url: str, **store: Any) -> Config:
    return parse_config(
        {"store": {"kind": "server", "url": url, "collection": "books", "batch_size": 2, "retries": 1, **store}}
    )


def open_books(qdrant: Qdrant, **store: Any) -> ServerStore:
    opened = ServerStore(settings(qdrant.url, **store), dim=4)
    qdrant.sent.clear()
    return opened


def numbered(count: int) -> list[Point]:
    return [Point(f"00000000-0000-4000-8000-{number:012d}", UNIT, None, {}) for number in range(count)]


def changes(qdrant: Qdrant) -> list[str]:
    """Writes of points and changes of the threshold, in the order in which they were sent."""
    said = []
    for sent in qdrant.sent:
        if sent.method == "PATCH":
            said.append(f"threshold {sent.body['optimizers_config']['indexing_threshold']}")
        elif sent.path.endswith("/points"):
            said.append(f"{len(sent.body['points'])} points")
    return said


def note(qdrant: Qdrant) -> dict[str, int]:
    found: dict[str, int] = json.loads(qdrant.metadata.get("deferred_indexing", "{}"))
    return found


def test_a_first_ingest_is_indexed_once_at_its_end(qdrant: Qdrant) -> None:
    with open_books(qdrant) as store, store.bulk():
        store.upsert(numbered(3))
        store.upsert(numbered(4))
        assert note(qdrant) == {"indexing_threshold": 20_000}
        qdrant.status = ["yellow", "yellow", "green"]
    assert changes(qdrant) == ["2 points", "1 points", "threshold 0", "2 points", "2 points", "threshold 20000"]
    assert note(qdrant) == {}
    deferred, resumed = qdrant.to("PATCH", "/books")
    # The note goes with the change, so that none is there without the other.
    assert json.loads(deferred.body["metadata"]["deferred_indexing"]) == {"indexing_threshold": 20_000}
    assert deferred.query == resumed.query == "timeout=600"


def test_the_end_waits_until_the_collection_is_green_twice(qdrant: Qdrant, pauses: list[float]) -> None:
    with open_books(qdrant) as store:
        with store.bulk():
            store.upsert(numbered(4))
            # The first answer is read with the note. Green once is not enough: other nodes may not have begun.
            qdrant.status = ["yellow", "green", "yellow", "yellow", "green"]
        assert pauses == [0.5] * 4
        assert qdrant.lines()[-6:] == [f"PATCH {COLLECTION}", *[f"GET {COLLECTION}"] * 5]


def test_few_points_change_nothing(qdrant: Qdrant) -> None:
    with open_books(qdrant) as store, store.bulk():
        store.upsert(numbered(3))
    assert changes(qdrant) == ["2 points", "1 points"]
    assert not qdrant.to("POST", "/points/count")


def test_a_collection_that_others_search_keeps_its_index(qdrant: Qdrant) -> None:
    qdrant.results["/points/count"] = {"count": 100}
    with open_books(qdrant) as store, store.bulk():
        store.upsert(numbered(8))
    assert changes(qdrant) == ["2 points"] * 4
    assert len(qdrant.to("POST", "/points/count")) == 1


@pytest.mark.parametrize(
    ("when", "expected"), [(True, ["threshold 0", "1 points", "threshold 20000"]), (False, ["1 points"])]
)
def test_the_configuration_decides(qdrant: Qdrant, when: bool, expected: list[str]) -> None:
    qdrant.results["/points/count"] = {"count": 100}
    with open_books(qdrant, bulk=when) as store, store.bulk():
        store.upsert(numbered(1))
    assert changes(qdrant) == expected


def test_without_a_block_nothing_is_put_off(qdrant: Qdrant) -> None:
    with open_books(qdrant, bulk=True) as store:
        store.upsert(numbered(8))
    assert changes(qdrant) == ["2 points"] * 4


def test_a_block_inside_a_block_does_nothing(qdrant: Qdrant) -> None:
    with open_books(qdrant, bulk=True) as store, store.bulk():
        with store.bulk():
            store.upsert(numbered(1))
        store.upsert(numbered(1))
    assert changes(qdrant) == ["threshold 0", "1 points", "1 points", "threshold 20000"]


def test_what_a_killed_run_has_left_is_taken_over(qdrant: Qdrant) -> None:
    qdrant.metadata["deferred_indexing"] = json.dumps({"indexing_threshold": 777})
    qdrant.optimizers["indexing_threshold"] = 0
    qdrant.results["/points/count"] = {"count": 100}
    with open_books(qdrant) as store, store.bulk():
        store.upsert(numbered(1))
    assert changes(qdrant) == ["1 points", "threshold 777"]
    assert note(qdrant) == {}


def test_optimize_takes_up_what_a_killed_run_has_left(qdrant: Qdrant) -> None:
    qdrant.metadata["deferred_indexing"] = json.dumps({"indexing_threshold": 777})
    with open_books(qdrant) as store:
        store.optimize()
    assert changes(qdrant) == ["threshold 777"]


def test_indexing_that_somebody_has_switched_off_stays_off(qdrant: Qdrant) -> None:
    qdrant.optimizers["indexing_threshold"] = 0
    with open_books(qdrant, bulk=True) as store, store.bulk():
        store.upsert(numbered(2))
    assert changes(qdrant) == ["2 points"]


def test_a_threshold_that_the_server_does_not_know_is_that_of_the_configuration(qdrant: Qdrant) -> None:
    qdrant.optimizers["indexing_threshold"] = None
    with open_books(qdrant, bulk=True, optimizers={"indexing_threshold_kb": 333}) as store, store.bulk():
        store.upsert(numbered(2))
    assert changes(qdrant) == ["threshold 0", "2 points", "threshold 333"]


def fill_and_fail(store: ServerStore, qdrant: Qdrant) -> None:
    with store.bulk():
        store.upsert(numbered(2))
        qdrant.status = ["yellow"]
        raise KeyError("the source")


def test_a_failure_resumes_indexing_and_does_not_wait(qdrant: Qdrant, pauses: list[float]) -> None:
    with open_books(qdrant, bulk=True) as store:
        with pytest.raises(KeyError, match="the source"):
            fill_and_fail(store, qdrant)
        assert changes(qdrant) == ["threshold 0", "2 points", "threshold 20000"]
        assert pauses == []
        # The next block starts afresh.
        qdrant.status = ["green"]
        qdrant.sent.clear()
        with store.bulk():
            store.upsert(numbered(2))
        assert changes(qdrant) == ["threshold 0", "2 points", "threshold 20000"]


def fill_and_lose_the_server(store: ServerStore, qdrant: Qdrant) -> None:
    with store.bulk():
        store.upsert(numbered(2))
        qdrant.fail("PUT /points", 500, 500)
        qdrant.fail("GET /", 500, 500)
        store.upsert(numbered(2))


def test_a_server_that_is_gone_does_not_hide_the_failure(qdrant: Qdrant, caplog: pytest.LogCaptureFixture) -> None:
    with open_books(qdrant, bulk=True) as store, caplog.at_level(logging.WARNING):
        with pytest.raises(StoreError, match="upsert failed"):
            fill_and_lose_the_server(store, qdrant)
        assert "indexing of books stays off until the next ingest" in caplog.text
    assert note(qdrant) == {"indexing_threshold": 20_000}


def test_several_writers_put_it_off_and_take_it_up_by_hand(qdrant: Qdrant) -> None:
    with open_books(qdrant) as store:
        store.defer_indexing()
        store.defer_indexing()
        store.upsert(numbered(2))
        store.resume_indexing()
        store.resume_indexing()
    assert changes(qdrant) == ["threshold 0", "2 points", "threshold 20000"]


@pytest.mark.parametrize("kind", ["memory", "edge"])
def test_the_other_stores_have_the_block_and_put_nothing_off(kind: str, tmp_path: Path) -> None:
    store: Store = open_store(parse_config({"store": {"kind": kind}}), dim=4, path=tmp_path / "index")
    with store.bulk():
        store.upsert(numbered(3))
        with store.bulk():
            store.upsert(numbered(4))
    assert store.count() == 4
    store.close()


def test_an_ingest_puts_it_off_until_its_manifest_is_written(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny")
    seen: list[tuple[str, str, Any]] = []
    with QdrantDouble() as double:
        config = parse_config(
            {"encoder": {"model": str(model)}, "store": {"kind": "server", "url": double.url, "collection": "books"}}
        )
        with TwoStagePipeline.open(config=config) as pipeline:
            store = pipeline.store
            assert isinstance(store, ServerStore)

            def look(progress: IngestProgress) -> None:
                info = store._collection.info()
                state = json.loads((info.config.metadata or {})["manifest"])["state"]
                seen.append((progress.stage, state, info.config.optimizer_config.indexing_threshold))

            pipeline.ingest([(f"d{number}", f"word{number} and some others") for number in range(20)], on_progress=look)
            info = store._collection.info()
            assert info.config.optimizer_config.indexing_threshold != 0
            assert store.count() == 20
            assert pipeline.manifest.state == "ready"
    assert ("reading", "ingesting", 0) in seen
    assert ("committing", "ingesting", 0) in seen
    # Then the manifest is complete, and only after that the server is waited for.
    stage, state, threshold = seen[-1]
    assert (stage, state) == ("indexing", "ready")
    assert threshold != 0
