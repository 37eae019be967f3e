"""Random lives of an embedded index beside the exact store in memory, which says what is right.

With ``PROPERTIES=N`` in the environment they are longer and more, and the process that writes is killed now and then.
"""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from retrieval.datatypes import Point, Quantization, ScoredPoint, SearchRequest
from retrieval.errors import StoreInputError
from retrieval.protocols import Store
from retrieval.stores import open_store
from retrieval.stores.memory import MemoryStore
from tests.properties import TIMES, budget
from tests.store_operations import DIM, Operation, config, name, point

ROOT = Path(__file__).parents[1]
_MEMORY = Path("/dev/shm")

NUMBERS = st.integers(0, 11)
TERMS = st.dictionaries(st.integers(0, 4), st.sampled_from([0.5, 1.0, 2.0]), max_size=3)
PAYLOADS = st.fixed_dictionaries(
    {}, optional={"a": st.sampled_from([1, 2, "x", True, None, [1, "x"]]), "n": st.integers(0, 3)}
)
POINTS = st.lists(st.builds(point, NUMBERS, st.integers(0, 3), TERMS, PAYLOADS), max_size=8)
FILTERS = st.sampled_from(
    [
        {"must": [{"key": "a", "match": {"value": 1}}]},
        {"must": [{"key": "n", "range": {"gte": 2}}]},
        {"must_not": [{"key": "a", "match": {"value": "x"}}]},
        {"should": [{"key": "a", "match": {"value": True}}, {"is_empty": {"key": "n"}}]},
        {"must": [{"has_id": [name(1), name(2), name(5)]}]},
        {"must": [{"key": "a", "values_count": {"gte": 2}}]},
    ]
)
QUANTIZATIONS = st.sampled_from(
    [Quantization(), Quantization("turbo", 2), Quantization("binary", 1, 8), Quantization("scalar")]
)


def contents(store: Store) -> list[tuple[str, Mapping[str, Any], Any, Any]]:
    """Everything in a store, as values that can be compared."""
    return [
        (
            each.id,
            dict(each.payload),
            None if each.dense is None else [round(value, 5) for value in each.dense.tolist()],
            None if each.sparse is None else (each.sparse.indices.tolist(), each.sparse.values.tolist()),
        )
        for each in store.scan(vectors=True, batch=5)
    ]


def require_same_hits(found: list[ScoredPoint], wanted: list[ScoredPoint]) -> None:
    """Fail unless both lists have the same scores, and where scores are not within rounding also the same ids."""
    assert len(found) == len(wanted), f"{len(found)} hits, not {len(wanted)}"
    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in wanted], rel=1e-4, abs=1e-5)
    for place, (one, other) in enumerate(zip(found, wanted, strict=True)):
        near = [hit.id for hit in wanted if abs(hit.score - one.score) < 1e-4]
        assert one.id == other.id or (one.id in near or place >= len(wanted) - len(near)), (
            f"hit {place}: {one}, {other}"
        )


class IndexLife(RuleBasedStateMachine):
    """An embedded index and the oracle, through the same operations."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="life-", dir=_MEMORY if _MEMORY.is_dir() else None))
        self.oracle: Store = MemoryStore(DIM)
        self.store: Store = open_store(config(), dim=DIM, path=self.folder / "index")
        self.grown: tuple[Store, Store] | None = None
        self.manifest: dict[str, Any] = {"schema_version": 1, "generation": 1, "previous": None}

    @initialize(points=POINTS)
    def begin(self, points: list[Point]) -> None:
        self.change(Operation("upsert", points=points))

    def change(self, operation: Operation) -> None:
        assert operation.apply(self.store) == operation.apply(self.oracle)

    @rule(points=POINTS)
    def upsert(self, points: list[Point]) -> None:
        self.change(Operation("upsert", points=points))

    @rule(numbers=st.lists(NUMBERS, max_size=4))
    def delete(self, numbers: list[int]) -> None:
        self.change(Operation("delete", ids=[name(number) for number in numbers]))

    @rule(where=FILTERS)
    def delete_where(self, where: dict[str, Any]) -> None:
        self.change(Operation("delete_where", where=where))

    @rule(points=POINTS)
    def refuse(self, points: list[Point]) -> None:
        bad = Point(name(3), np.full(DIM, np.nan, np.float32), None, {})
        for store in (self.store, self.oracle):
            with pytest.raises(StoreInputError):
                store.upsert([*points, bad])

    @rule(kind=st.sampled_from(["flush", "optimize"]))
    def settle(self, kind: str) -> None:
        self.change(Operation(kind))

    @rule(quantization=QUANTIZATIONS)
    def quantize(self, quantization: Quantization) -> None:
        self.change(Operation("set_quantization", quantization=quantization))
        assert self.store.quantization == quantization

    @rule()
    def reopen(self) -> None:
        self.give_up()
        self.commit()
        quantization = self.store.quantization
        self.store.close()
        self.store = open_store(config(), dim=DIM, path=self.folder / "index")
        assert self.store.quantization == quantization

    @rule(axis=st.integers(0, 3), limit=st.integers(1, 14), where=st.none() | FILTERS)
    def search_dense(self, axis: int, limit: int, where: dict[str, Any] | None) -> None:
        vector = point(0, axis, {}, {}).dense
        assert vector is not None
        request = SearchRequest(vector, limit, where, exact=True)
        (found,), (wanted,) = self.store.search([request]), self.oracle.search([request])
        require_same_hits(found, wanted)
        (roughly,) = self.store.search([SearchRequest(vector, limit, where)])
        assert len(roughly) == len(wanted)
        assert {hit.id for hit in roughly} <= {each.id for each in self.oracle.scan(where, payload=False)}

    @rule(terms=TERMS, limit=st.integers(1, 14), where=st.none() | FILTERS)
    def search_bm25(self, terms: dict[int, float], limit: int, where: dict[str, Any] | None) -> None:
        sparse = point(0, 0, terms, {}).sparse
        assume(sparse is not None)
        assert sparse is not None
        request = SearchRequest(sparse, limit, where)
        (found,), (wanted,) = self.store.search([request, request])[:1], self.oracle.search([request])
        require_same_hits(found, wanted)

    @rule(where=st.none() | FILTERS, key=st.sampled_from(["a", "n"]))
    def count(self, where: dict[str, Any] | None, key: str) -> None:
        assert self.store.count(where) == self.oracle.count(where)
        found, wanted = self.store.facet(key, 20, where), self.oracle.facet(key, 20, where)
        assert [(type(value), value, times) for value, times in found] == [
            (type(value), value, times) for value, times in wanted
        ]

    @rule(numbers=st.lists(NUMBERS, max_size=4))
    def get(self, numbers: list[int]) -> None:
        ids = [name(number) for number in dict.fromkeys(numbers)]
        found, wanted = self.store.get(ids), self.oracle.get(ids)
        assert [(each.id, each.payload) for each in found] == [(each.id, each.payload) for each in wanted]

    @rule()
    def commit(self) -> None:
        """Write the manifest, which has to name the number of points where an index is opened."""
        self.manifest = {**self.manifest, "passages": self.oracle.count()}
        for store in (self.store, self.oracle):
            store.flush()
            store.write_manifest(self.manifest)

    @precondition(lambda self: self.grown is None)
    @rule(points=POINTS)
    def grow(self, points: list[Point]) -> None:
        self.grown = self.store.start_generation(DIM), self.oracle.start_generation(DIM)
        for store in self.grown:
            store.upsert(points)

    @precondition(lambda self: self.grown is not None)
    @rule()
    def make_live(self) -> None:
        assert self.grown is not None
        self.manifest = {**self.manifest, "passages": self.grown[1].count(), "previous": None}
        for new in self.grown:
            new.make_live(self.manifest)
        self.manifest["generation"] = self.grown[0].generation
        old, (self.store, self.oracle), self.grown = self.store, self.grown, None
        old.close()
        self.store.tidy()

    @precondition(lambda self: self.grown is not None)
    @rule()
    def give_up(self) -> None:
        if self.grown is not None:
            for store in self.grown:
                store.abandon()
            self.grown = None

    @precondition(lambda self: TIMES > 1)
    @rule(
        points=POINTS,
        numbers=st.lists(NUMBERS, max_size=3),
        kind=st.sampled_from(["upsert", "delete"]),
        ms=st.integers(0, 30),
    )
    def killed(self, points: list[Point], numbers: list[int], kind: str, ms: int) -> None:
        """Another process does it and is killed with -9; what it had said is done stays, what it had begun may."""
        self.give_up()
        self.commit()
        self.store.close()
        before = contents(self.oracle)
        operation = Operation(kind, points=points, ids=[name(number) for number in numbers])
        acknowledged = carried_out(self.folder / "index", operation, ms / 1000)
        operation.apply(self.oracle)
        self.store = open_store(config(), dim=DIM, path=self.folder / "index", verify=False)
        found = contents(self.store)
        if acknowledged:
            assert found == contents(self.oracle), "what was acknowledged is not there"
        else:
            either = before + contents(self.oracle)
            assert all(each in either for each in found), "a point that nobody wrote"
            operation.apply(self.store)

    @invariant()
    def holds_the_same(self) -> None:
        assert contents(self.store) == contents(self.oracle)
        stored = self.store.read_manifest()
        assert stored is None or dict(stored) == self.manifest

    def teardown(self) -> None:
        self.give_up()
        self.store.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def carried_out(folder: Path, operation: Operation, seconds: float) -> bool:
    """Let another process carry out an operation, kill it so much later, and say whether it had finished."""
    command = [sys.executable, "-m", "tests.store_operations", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        pickle.dump(operation, process.stdin)
        process.stdin.flush()
        assert process.stdout.readline() == b"begin\n"
        time.sleep(seconds)
        process.kill()
        return b"done\n" in process.stdout.read()


def test_an_index_lives_as_the_oracle_does() -> None:
    run_state_machine_as_test(IndexLife, settings=budget(6, stateful_step_count=20 if TIMES == 1 else 40))


def test_what_is_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    """The long run does this between all other operations."""
    folder = tmp_path / "index"
    with_points = [point(number, number, {1: 1.0}, {"n": number}) for number in range(6)]
    open_store(config(), dim=DIM, path=folder).close()
    assert carried_out(folder, Operation("upsert", points=with_points), 1.0)
    store = open_store(config(), dim=DIM, path=folder, verify=False)
    assert [each[0] for each in contents(store)] == [name(number) for number in range(6)]
    store.close()


def test_what_killed_processes_leave_is_not_taken_for_damage(tmp_path: Path) -> None:
    """The engine rewrites a file as it opens an index after this; the seal has to be of the file as it is then."""
    folder = tmp_path / "index"

    def opened() -> Store:
        return open_store(config(), dim=DIM, path=folder, verify=False)

    def closed(store: Store) -> None:
        store.flush()
        store.write_manifest({"schema_version": 1, "generation": 1, "previous": None, "passages": store.count()})
        store.close()

    store = opened()
    store.upsert([point(0, 0, {}, {})])
    for number, numbers in enumerate([(0, 4, 3, 11, 8), (9,)]):
        closed(store)
        points = [point(each, each + number, {1: 1.0}, {"n": 1}) for each in numbers]
        assert carried_out(folder, Operation("upsert", points=points), 1.0)
        store = opened()
    store.upsert([point(1, 3, {}, {})])
    store.set_quantization(Quantization("scalar"))
    store.delete([name(9)])
    closed(store)
    store = opened()
    store.upsert([point(10, 1, {}, {})])
    assert store.count() == 7
    store.close()
