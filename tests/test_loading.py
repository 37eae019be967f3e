"""Payloads of a search that nobody reads: as few as fill the result, whatever document the best passages are of."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as engine

from pipelines import TwoStagePipeline
from pipelines.hits import Fetched
from retrieval.config import parse_config
from retrieval.datatypes import ArmScore, Candidate, Point, SearchRequest, StoredPoint
from retrieval.errors import StoreCorruptError
from retrieval.ordering import Candidates
from retrieval.protocols import Store
from retrieval.stores.edge import EdgeStore
from retrieval.stores.edge_records import _NAME, hit_names
from retrieval.stores.memory import MemoryStore
from retrieval.stores.searching import Query

NAMES = [str(uuid.UUID(int=number)) for number in range(100, 160)]


class Noting:
    """A store that notes what is read of it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.reads: list[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, ids: Sequence[str], **wanted: Any) -> list[StoredPoint]:
        self.reads.append(list(ids))
        return self._store.get(ids, **wanted)


def holding(documents: Sequence[str]) -> Noting:
    """A store with a passage of each of these, in their order."""
    store = MemoryStore(dim=2)
    vector = np.array([1, 0], np.float32)
    rest = {"document_id": "", "text": "", "title": "", "start": 0, "end": 0, "source": ""}
    points = zip(NAMES, documents, strict=False)
    store.upsert([Point(name, vector, None, {"document": one, **rest}) for name, one in points])
    return Noting(store)


def fetched(count: int) -> Fetched:
    scores = [1 - place / 100 for place in range(count)]
    arms = [(-score, name) for score, name in zip(scores, NAMES, strict=False)]
    candidates = Candidates(NAMES[:count], scores, range(1, count + 1), {"dense": arms})
    return Fetched(candidates, np.zeros(2, np.float32), [])


def documents_of(found: Fetched) -> list[str]:
    return [payload["document"] for payload in found.payloads]


def test_different_documents_need_one_payload_each() -> None:
    store, found = holding([f"d{number}" for number in range(30)]), fetched(30)
    found.load_groups(store, 4, "document")
    assert store.reads == [NAMES[:4]]
    assert documents_of(found) == ["d0", "d1", "d2", "d3"]


def test_a_document_with_many_passages_at_the_top_makes_more_be_read_in_growing_steps() -> None:
    store, found = holding(["long"] * 11 + ["b", "c", "d", "e"] + ["f"] * 15), fetched(30)
    found.load_groups(store, 4, "document")
    # Four, then the three that are lacking, then four, twice as many as half of four.
    assert [len(read) for read in store.reads] == [4, 3, 4, 8]
    assert [name for read in store.reads for name in read] == NAMES[:19]
    assert sorted(set(documents_of(found))) == ["b", "c", "d", "e", "f", "long"]


def test_all_is_read_where_there_are_fewer_documents_than_wanted() -> None:
    store, found = holding(["a"] * 20 + ["b"] * 20), fetched(40)
    found.load_groups(store, 3, "document")
    assert len(found.payloads) == 40
    assert len(store.reads) <= 6


def test_passages_fill_a_result_by_themselves() -> None:
    store, found = holding(["a"] * 30), fetched(30)
    found.load_groups(store, 7, "passage")
    assert store.reads == [NAMES[:7]]


def test_what_was_deleted_since_is_left_out_and_made_up_for() -> None:
    store, found = holding([f"d{number}" for number in range(30)]), fetched(30)
    store.delete([NAMES[0], NAMES[2], NAMES[3]])
    found.load_groups(store, 4, "document")
    assert documents_of(found)[:4] == ["d1", "d4", "d5", "d6"]
    assert list(found.candidates.ids[:2]) == [NAMES[1], NAMES[4]]
    # Ranks and scores stay those of the first stage.
    assert found.candidates[1] == Candidate(NAMES[4], 5, 0.96, {"dense": ArmScore(5, 0.96)})


def test_nothing_is_read_where_nothing_was_found() -> None:
    store, found = holding([]), fetched(0)
    found.load_groups(store, 4, "document")
    assert store.reads == []


def test_all_deleted_leaves_nothing() -> None:
    store, found = holding([]), fetched(9)
    found.load_groups(store, 4, "document")
    assert len(found.candidates) == len(found.payloads) == 0


@pytest.fixture(params=["memory", "edge"])
def pipeline(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TwoStagePipeline]:
    config = parse_config({"store": {"kind": request.param}})
    with TwoStagePipeline.open(tmp_path / "index", config) as opened:
        yield opened


def test_a_long_document_at_the_top_does_not_shorten_the_result(pipeline: TwoStagePipeline) -> None:
    line = "A leaking pipe under the sink is sealed with epoxy putty. The pipe leaks where the putty ends. "
    texts = [
        (f"short-{number}", f"Pipe {number} is made of copper and lies in cellar {number}.") for number in range(9)
    ]
    pipeline.ingest([("long", line * 400), *texts])
    passages = pipeline.search("seal a leaking pipe with putty", 100, rerank=False, group_by="passage")
    assert [hit.document_id for hit in passages[:12]] == ["long"] * 12
    search = pipeline._switch.serving.search
    store = Noting(search._store)
    search._store = store  # type: ignore[assignment]
    found = pipeline.search("seal a leaking pipe with putty", 8, rerank=False)
    best = {hit.document_id: hit for hit in reversed(list(passages))}
    expected = sorted(best.values(), key=lambda hit: hit.rank)[:8]
    assert [(hit.passage_id, hit.score, hit.arms) for hit in found] == [
        (hit.passage_id, hit.score, hit.arms) for hit in expected
    ]
    assert len(found) == 8
    assert len(store.reads) > 1


def test_a_result_of_single_passages_reads_no_more_than_it_shows(pipeline: TwoStagePipeline) -> None:
    pipeline.ingest([(f"d{number}", f"Pipe {number} is made of copper.") for number in range(30)])
    search = pipeline._switch.serving.search
    store = Noting(search._store)
    search._store = store  # type: ignore[assignment]
    found = pipeline.search("copper pipe", 5, rerank=False)
    assert store.reads == [[hit.passage_id for hit in found]]


def test_candidates_are_a_sequence_of_what_they_hold() -> None:
    candidates = fetched(3).candidates
    assert [one.id for one in candidates] == NAMES[:3]
    assert candidates[-1] == Candidate(NAMES[2], 3, 0.98, {"dense": ArmScore(3, 0.98)})
    assert candidates[1:] == [candidates[1], candidates[2]]
    assert candidates == list(candidates)
    assert candidates != candidates.without({NAMES[0]})
    assert candidates.without({NAMES[0]}) == [candidates[1], candidates[2]]


class Hit:
    """A hit that prints in another way than those of the engine."""

    def __init__(self, name: str) -> None:
        self.id = uuid.UUID(name)

    def __repr__(self) -> str:
        return f"Point {self.id} of the engine"


def test_names_do_not_depend_on_how_the_engine_prints_hits(tmp_path: Path) -> None:
    assert hit_names([Hit(name) for name in NAMES]) == NAMES
    assert hit_names([]) == []
    config = parse_config({"store": {"kind": "edge", "path": str(tmp_path / "index")}})
    with EdgeStore(config, dim=2) as store:
        store.upsert([Point(name, np.array([1, 0], np.float32), None, {}) for name in NAMES])
        (hits,) = store._ask([Query(np.array([1, 0], np.float32), None, 60, exact=True, window=60)])
        assert sorted(hit_names(hits)) == NAMES
        # The quick way is the one taken.
        assert [repr(hit)[_NAME] for hit in hits] == [str(hit.id) for hit in hits]


def test_a_number_among_the_ids_is_named_wherever_it_stands(tmp_path: Path) -> None:
    config = parse_config({"store": {"kind": "edge", "path": str(tmp_path / "index")}})
    request = SearchRequest(np.array([1, 0], np.float32), 10)
    with EdgeStore(config, dim=2) as store:
        near = np.array([0.96, 0.28], np.float32)
        store.upsert([Point(NAMES[0], np.array([1, 0], np.float32), None, {}), Point(NAMES[2], near, None, {})])
        assert [point.id for point in store.search([request])[0]] == [NAMES[0], NAMES[2]]
        foreign = engine.Point(7, {"dense": [1.0, 0.1]}, {})
        store._update("write", engine.UpdateOperation.upsert_points([foreign]))
        with pytest.raises(StoreCorruptError, match="holds a point with the id 7, which this project has not written"):
            store.search([request])


def test_a_passage_that_lacks_what_a_hit_shows_is_named(tmp_path: Path) -> None:
    with TwoStagePipeline.open(tmp_path / "index") as pipeline:
        pipeline.ingest([("moon", "The moon causes the tides.")])
        (point,) = pipeline.store.scan(vectors=True)
        payload = {name: value for name, value in point.payload.items() if name not in {"document", "title"}}
        pipeline.store.upsert([Point(point.id, point.dense, point.sparse, payload)])
        for rerank in (False, True):
            with pytest.raises(StoreCorruptError, match=rf"passage {point.id} of .* has no document, title: "):
                pipeline.search("tides", rerank=rerank)
