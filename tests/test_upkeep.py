"""When an embedded index is put in order by itself, what it then has, and that searches find the same as before."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.config import Config, parse_config
from retrieval.datatypes import Point, Quantization, ScoredPoint, SearchRequest, SparseVector
from retrieval.errors import StoreBusyError, StoreInputError
from retrieval.stores import upkeep
from retrieval.stores.edge import EdgeStore
from retrieval.stores.generation_settings import Settings
from retrieval.stores.memory import MemoryStore

DIM = 16
ROOT = Path(__file__).parents[1]
TURBO = Quantization("turbo", 2, oversampling=4.0)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_LEAST_WRITTEN", 100)


def points(first: int, last: int) -> list[Point]:
    vectors = np.random.default_rng(4).normal(size=(3_000, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    terms = SparseVector(np.array([1], np.uint32), np.ones(1, np.float32))
    names = [f"00000000-0000-4000-8000-{number:012d}" for number in range(last)]
    return [Point(names[number], vectors[number], terms, {"n": number}) for number in range(first, last)]


def settings(*, threshold: int | None = None, **quantization: Any) -> Config:
    sections: dict[str, Any] = {"store": {"kind": "edge"}, "quantization": quantization}
    return parse_config(sections | ({} if threshold is None else {"hnsw": {"threshold": threshold}}))


def opened(path: Path, config: Config | None = None) -> EdgeStore:
    return EdgeStore(config or settings(), dim=DIM, path=path, verify=False)


def opened_soon(path: Path, config: Config) -> EdgeStore:
    """The store, once the process that builds has ended with its parent."""
    for _ in range(100):
        with contextlib.suppress(StoreBusyError):
            return opened(path, config)
        time.sleep(0.1)
    raise AssertionError("the process that builds did not end with its parent")


def grow(store: EdgeStore, first: int, last: int) -> bool:
    """Write points in one block and tell whether it ended with work for the search."""
    told: list[None] = []
    with store.bulk(lambda: told.append(None)):
        store.upsert(points(first, last))
    return bool(told)


def remembered(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "generations" / "1" / "store.json").read_text())
    return found


def segments(path: Path) -> list[tuple[str, int | None]]:
    """Index and links of the dense vectors of each segment that points cannot be added to."""
    files = (path / "generations" / "1" / "engine" / "segments").glob("*/segment.json")
    indexes = [json.loads(file.read_text())["config"]["vector_data"]["dense"]["index"] for file in files]
    return [(one["type"], one["options"]["m"]) for one in indexes if one["type"] != "plain"]


def best(store: EdgeStore | MemoryStore, **arguments: Any) -> list[list[ScoredPoint]]:
    return store.search(
        [SearchRequest(point.dense, 10, **arguments) for point in points(0, 20) if point.dense is not None]
    )


@pytest.mark.parametrize(
    ("passages", "written", "graph", "due"),
    [
        (50, 50, False, False),
        (100, 100, False, True),
        (900, 99, False, False),
        (2_000, 199, False, False),
        (2_000, 200, False, True),
        (5_000, 0, False, True),
        (5_000, 499, True, False),
        (5_000, 500, True, True),
    ],
)
def test_it_is_due_after_a_tenth_or_where_a_graph_is_missing(
    passages: int, written: int, graph: bool, due: bool
) -> None:
    remembers = Settings(Quantization(), graph=graph, written=written)
    assert upkeep.is_due(settings(threshold=5_000), remembers, passages) is due


def test_codes_are_for_those_who_have_not_said() -> None:
    automatic = Settings(Quantization(), automatic=True)
    assert upkeep.wants_codes(settings(auto_from=10), automatic, 10)
    assert not upkeep.wants_codes(settings(auto_from=10), automatic, 9)
    assert not upkeep.wants_codes(settings(kind="none", auto_from=10), automatic, 10)
    assert not upkeep.wants_codes(settings(auto_from=10), replace(automatic, automatic=False), 10)
    assert not upkeep.wants_codes(settings(auto_from=10), replace(automatic, quantization=TURBO), 10)


def test_few_points_are_left_as_they_are(quick_path: Path) -> None:
    with opened(quick_path) as store:
        assert not grow(store, 0, 60)
        assert not segments(quick_path)
    assert (remembered(quick_path)["written"], remembered(quick_path)["graph"]) == (60, False)
    with opened(quick_path) as store:
        assert grow(store, 60, 100)
    assert remembered(quick_path)["written"] == 0


def test_one_segment_without_a_graph_finds_what_exact_search_finds(quick_path: Path) -> None:
    oracle = MemoryStore(DIM)
    oracle.upsert(points(0, 300))
    with opened(quick_path) as store:
        assert grow(store, 0, 300)
        assert segments(quick_path) == [("hnsw", 0)]
        for ours, true in zip(best(store), best(oracle), strict=True):
            assert [hit.id for hit in ours] == [hit.id for hit in true]
            assert [hit.score for hit in ours] == pytest.approx([hit.score for hit in true], abs=1e-6)


def test_a_graph_from_the_threshold_on_and_appended_points_do_not_rebuild_it(quick_path: Path) -> None:
    config = settings(threshold=1_000)
    with opened(quick_path, config) as store:
        assert grow(store, 0, 900)
        assert segments(quick_path) == [("hnsw", 0)]
        assert grow(store, 900, 1_000)  # not a tenth of them, but the first graph
        assert segments(quick_path) == [("hnsw", 16)]
        (built,) = (quick_path / "generations" / "1" / "engine" / "segments").glob("*/vector_index-dense/graph.bin")
        assert not grow(store, 1_000, 1_090)
        assert built.exists()
        assert remembered(quick_path)["written"] == 90
        found = best(store)
        assert [hits[0].id for hits in found] == [point.id for point in points(0, 20)]
        # What came since is found as well.
        late = points(1_089, 1_090)[0]
        assert late.dense is not None
        assert store.search([SearchRequest(late.dense, 1)])[0][0].id == late.id
        assert grow(store, 1_090, 1_200)
        assert not built.exists()
        assert (remembered(quick_path)["graph"], remembered(quick_path)["written"]) == (True, 0)
        assert store.count() == 1_200


def test_codes_from_a_size_on_score_as_before_after_rescoring(quick_path: Path) -> None:
    with opened(quick_path, settings(auto_from=200)) as store:
        grow(store, 0, 199)
        assert store.quantization == Quantization()
        exact = best(store)
        grow(store, 199, 200)
        assert store.quantization == TURBO
        coded = best(store)
        assert [hits[0].id for hits in coded] == [hits[0].id for hits in exact]
        unscored = best(store, rescore=False)
        assert [[hit.score for hit in hits] for hits in unscored] != [[hit.score for hit in hits] for hits in coded]
    assert remembered(quick_path)["automatic"]
    with opened(quick_path) as store:
        assert store.quantization == TURBO


def test_what_was_said_stays(quick_path: Path) -> None:
    said = quick_path / "said"
    with opened(said, settings(kind="none", auto_from=100)) as store:
        assert grow(store, 0, 300)
        assert store.quantization == Quantization()
    with opened(said, settings(auto_from=100)) as store:
        assert grow(store, 300, 600)
        assert store.quantization == Quantization()
    later = quick_path / "later"
    with opened(later, settings(auto_from=1_000)) as store:
        grow(store, 0, 300)
        store.set_quantization(Quantization())
    with opened(later, settings(auto_from=100)) as store:
        assert grow(store, 300, 600)
        assert store.quantization == Quantization()
        store.set_quantization(Quantization("binary", 1))
        assert grow(store, 600, 900)
        assert store.quantization == Quantization("binary", 1)


def test_a_copy_of_an_index_goes_on_choosing(quick_path: Path) -> None:
    with opened(quick_path, settings(auto_from=200)) as store:
        grow(store, 0, 250)
        with store.start_generation(DIM) as target:
            assert target.quantization == Quantization()
            assert grow(target, 0, 250)
            assert target.quantization == TURBO
            target.abandon()


def test_changed_points_count_and_the_dead_are_dropped(quick_path: Path) -> None:
    with opened(quick_path) as store:
        grow(store, 0, 200)
        with store.bulk():
            store.upsert(points(0, 60))
        assert remembered(quick_path)["has_deletes"]
        assert remembered(quick_path)["written"] == 60
        with store.bulk():
            store.upsert(points(60, 120))
        assert (remembered(quick_path)["has_deletes"], remembered(quick_path)["written"]) == (False, 0)
        assert store.count() == 200


def test_only_the_outermost_block_ends_with_work_and_only_a_good_one(quick_path: Path) -> None:
    with opened(quick_path) as store:
        with store.bulk():
            grow(store, 0, 200)
            assert not segments(quick_path)
        assert segments(quick_path) == [("hnsw", 0)]
        with pytest.raises(StoreInputError), store.bulk():  # noqa: PT012
            store.upsert(points(200, 400))
            store.delete(["not a name"])
        assert store.count() == 400
        assert grow(store, 400, 401)


def test_where_it_fails_the_index_is_complete_and_the_next_block_tries_again(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(quick_path, settings(threshold=150)) as store:
        with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
            patched.setattr(sys, "executable", "/bin/false")
            assert grow(store, 0, 200)
        assert "the index is complete, but it was not put in order for fast search" in caplog.text
        assert store.count() == 200
        assert [hits[0].id for hits in best(store)] == [point.id for point in points(0, 20)]
        assert not segments(quick_path)
        assert grow(store, 200, 201)
        assert segments(quick_path) == [("hnsw", 16)]


def test_without_links_there_is_no_graph_at_any_size(quick_path: Path) -> None:
    config = parse_config({"store": {"kind": "edge"}, "hnsw": {"m": 0, "threshold": 100}})
    with opened(quick_path, config) as store:
        assert grow(store, 0, 300)
        assert segments(quick_path) == [("hnsw", 0)]
        assert not remembered(quick_path)["graph"]
        # A graph that will never be is not missed either.
        assert not grow(store, 300, 301)
        assert [hits[0].id for hits in best(store)] == [point.id for point in points(0, 20)]


def test_searches_of_other_threads_wait_and_find_everything(quick_path: Path) -> None:
    names = [point.id for point in points(0, 20)]
    found: list[list[str]] = []
    ended = threading.Event()

    def search(store: EdgeStore) -> None:
        while not ended.is_set() or len(found) < 2:
            found.append([hits[0].id for hits in best(store)])

    with opened(quick_path, settings(threshold=1_000, auto_from=500)) as store:
        thread = threading.Thread(target=search, args=(store,))
        try:
            with store.bulk(thread.start):
                store.upsert(points(0, 1_500))
        finally:
            ended.set()
        thread.join()
        assert segments(quick_path) == [("hnsw", 16)]
        assert store.quantization == TURBO
    assert len(found) >= 2
    assert all(one == names for one in found)


def test_a_process_that_is_killed_meanwhile_loses_nothing(quick_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom tests.test_upkeep import *\n"
        "store = opened(Path(sys.argv[1]), settings(threshold=1_500))\n"
        "with store.bulk(lambda: print('building', flush=True)):\n"
        "    store.upsert(points(0, 2_000))\n    store.flush()\n"
    )
    command = [sys.executable, "-c", program, str(quick_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "building\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    with opened_soon(quick_path, settings(threshold=1_500)) as store:
        assert store.count() == 2_000
        assert [hits[0].id for hits in best(store)] == [point.id for point in points(0, 20)]
        assert grow(store, 2_000, 2_001)
        assert segments(quick_path) == [("hnsw", 16)]
        assert [hits[0].id for hits in best(store)] == [point.id for point in points(0, 20)]
