"""Any filter finds the same points in every store; what is not usable is refused by all of them, and changes none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.filter_trees import filter_of, point_id
from benchmarks.fuzz.target import require_short
from benchmarks.fuzz.target_filters import library, require_same
from retrieval.config import parse_config
from retrieval.datatypes import Point, SearchRequest, SparseVector
from retrieval.errors import StoreInputError
from retrieval.protocols import Store
from retrieval.stores import open_store
from retrieval.stores.filters import parse_filter
from retrieval.stores.memory import MemoryStore
from tests.properties import JSON, budget
from tests.qdrant_double import QdrantDouble
from tests.store_folders import quick_folder

FILTERS = st.binary(max_size=160).map(lambda data: filter_of(Choices(data)))


def filled(store: Store) -> Store:
    store.upsert(library())
    return store


@pytest.fixture(scope="module")
def stores() -> Iterator[Mapping[str, Store]]:
    """The embedded engine, and a server over the double that stands in for one, with the same points."""
    with quick_folder() as folder, ExitStack() as stack:
        qdrant = stack.enter_context(QdrantDouble())
        server = {"kind": "server", "url": qdrant.url, "collection": "properties"}
        yield {
            name: filled(
                stack.enter_context(closing(open_store(parse_config({"store": settings}), dim=4, path=folder)))
            )
            for name, settings in {"edge": {"kind": "edge", "min_free_mb": 0}, "server": server}.items()
        }


@pytest.fixture(scope="module")
def oracle() -> Store:
    return filled(MemoryStore(4))


@budget(100)
@given(where=FILTERS)
def test_a_filter_finds_the_same_points_in_every_store(
    where: dict[str, Any], oracle: Store, stores: Mapping[str, Store]
) -> None:
    require_same(where, oracle, stores)


@budget(40)
@given(where=FILTERS, key=st.sampled_from(["a", "b", "tags", "n", "box.a", "list[].b"]))
def test_counts_and_facets_are_the_same(
    where: dict[str, Any], key: str, oracle: Store, stores: Mapping[str, Store]
) -> None:
    wanted = oracle.facet(key, 30, where)
    for store in stores.values():
        assert store.count(where) == oracle.count(where)
        found = store.facet(key, 30, where)
        assert [(type(value), value, times) for value, times in found] == [
            (type(value), value, times) for value, times in wanted
        ]


@budget(80)
@given(where=JSON)
def test_json_is_a_filter_or_refused_and_no_engine_disagrees(where: Any, stores: Mapping[str, Store]) -> None:
    try:
        parse_filter(where)
    except StoreInputError as error:
        require_short(error, 5_000)
        for store in stores.values():
            if where is not None:
                with pytest.raises(StoreInputError):
                    store.count(where)
        return
    for store in stores.values():
        store.count(where)


VALUES = st.one_of(st.floats(), st.floats(width=32), st.sampled_from([0.0, 1.0, 0.5, math.nan, math.inf, 1e308]))
VECTORS = st.one_of(
    st.lists(VALUES, min_size=3, max_size=5).map(lambda values: np.array(values, np.float64)),
    st.lists(st.integers(-9, 9), min_size=4, max_size=4).map(np.array),
    st.just(np.array([1, 0, 0, 0], np.float32)),
    st.none(),
)
SPARSE = st.one_of(
    st.none(),
    st.builds(
        lambda indices, values: SparseVector(np.array(indices), np.array(values)),  # type: ignore[arg-type]
        st.lists(st.integers(-1, 2**32), max_size=3),
        st.lists(VALUES, max_size=3),
    ),
)
POINTS = st.builds(Point, st.sampled_from([point_id(500), point_id(501), "x", "5"]), VECTORS, SPARSE, JSON)


def rounded(value: Any) -> Any:
    """Floats to 15 digits: the embedded engine reads a seventeenth as another one (docs/limits.md)."""
    if isinstance(value, float):
        return float(f"{value:.14e}")
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list) else value


@budget(60)
@given(points=st.lists(POINTS, max_size=3))
def test_points_are_written_by_all_stores_or_by_none(
    points: list[Point], oracle: Store, stores: Mapping[str, Store]
) -> None:
    ids = [point_id(500), point_id(501)]
    outcomes = {}
    for name, store in {"memory": oracle, **stores}.items():
        try:
            store.upsert(points)
            outcomes[name] = "written"
        except StoreInputError as error:
            outcomes[name] = f"refused: {error}"
        held = store.get(ids)
        if outcomes[name] != "written":
            assert held == [], f"{name} holds a point of a batch that it refused"
        outcomes[name] += f" {[(each.id, rounded(each.payload)) for each in held]}"
        store.delete(ids)
    assert len(set(outcomes.values())) == 1, outcomes


@budget(80)
@given(vector=st.one_of(VECTORS, SPARSE), limit=st.one_of(st.integers(-1, 50), JSON), where=st.none() | FILTERS)
def test_a_search_is_answered_by_all_stores_or_by_none(
    vector: Any, limit: Any, where: dict[str, Any] | None, oracle: Store, stores: Mapping[str, Store]
) -> None:
    outcomes = set()
    for store in (oracle, *stores.values()):
        try:
            (found,) = store.search([SearchRequest(vector, limit, where)])
            outcomes.add(f"{len(found)} hits")
        except StoreInputError as error:
            outcomes.add(f"refused: {error}")
    assert len(outcomes) == 1, outcomes
