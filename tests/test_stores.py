"""One contract for every store; the exact in-memory store is the oracle."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.config import parse_config
from retrieval.datatypes import Point, Quantization, ScoredPoint, SearchRequest, SparseVector
from retrieval.errors import IndexMismatchError, StoreError, StoreInputError
from retrieval.protocols import Store
from retrieval.stores import open_store
from retrieval.stores.memory import MemoryStore
from tests.live_server import LIVE_KINDS, live_config
from tests.qdrant_double import QdrantDouble
from tests.qdrant_grpc_double import grpc_double
from tests.store_folders import quick_folder

DIM = 4
KINDS = ["memory", "edge", "server-in-process", "server-over-http", "server-over-grpc", *LIVE_KINDS]
OpenStore = Callable[..., Store]


def name(number: int) -> str:
    """UUIDs whose order is that of the numbers."""
    return f"00000000-0000-4000-8000-{number:012d}"


def numbers(points: Any) -> list[int]:
    return [int(point.id[-12:]) for point in points]


def dense(*values: float) -> np.ndarray:
    vector = np.zeros(DIM, dtype=np.float32)
    vector[: len(values)] = values
    return vector


def sparse(weights: Mapping[int, float]) -> SparseVector:
    return SparseVector(np.array(list(weights), dtype=np.uint32), np.array(list(weights.values()), dtype=np.float32))


def point(number: int, vector: Any = None, terms: Mapping[int, float] | None = None, **payload: Any) -> Point:
    return Point(name(number), vector, None if terms is None else sparse(terms), payload)


def new_store(kind: str, folder: Path, dim: int, stack: ExitStack) -> Store:
    if kind == "memory":
        return stack.enter_context(closing(open_store(parse_config({"store": {"kind": "memory"}}), dim=dim)))
    if kind == "edge":
        return stack.enter_context(closing(open_store(parse_config({}), dim=dim, path=folder)))
    if kind in LIVE_KINDS:
        return stack.enter_context(closing(open_store(live_config(kind, stack), dim=dim)))
    if kind == "server-over-http":
        store = {"kind": "server", "url": stack.enter_context(QdrantDouble()).url, "collection": "books"}
        return stack.enter_context(closing(open_store(parse_config({"store": store}), dim=dim)))
    if kind == "server-over-grpc":
        port = stack.enter_context(grpc_double()).port
        store = {"kind": "server", "url": "http://127.0.0.1:1", "prefer_grpc": True, "grpc_port": port}
        return stack.enter_context(closing(open_store(parse_config({"store": store}), dim=dim)))
    from qdrant_client import QdrantClient

    from retrieval.stores.server import ServerStore

    client = QdrantClient(":memory:")
    stack.callback(client.close)
    config = parse_config({"store": {"kind": "server", "collection": "books"}})
    return stack.enter_context(closing(ServerStore(config, dim=dim, client=client)))


@pytest.fixture(params=KINDS)
def open_empty(request: pytest.FixtureRequest) -> Iterator[OpenStore]:
    with quick_folder() as folder, ExitStack() as stack:
        yield lambda dim=DIM: new_store(request.param, folder / "index", dim, stack)


@pytest.fixture
def store(open_empty: OpenStore) -> Store:
    return open_empty()


LIBRARY: dict[int, dict[str, Any]] = {
    1: {
        "document": "a",
        "source": "shelf/a.md",
        "text": "The quick brown fox",
        "metadata": {
            "year": 1999,
            "tags": ["red", "green"],
            "lang": "en",
            "draft": False,
            "rating": 4.5,
            "when": "2024-01-10T00:00:00Z",
            "authors": [{"name": "Ann", "age": 40}, {"name": "Bob", "age": 30}],
        },
    },
    2: {
        "document": "a",
        "source": "shelf/a.md",
        "text": "Lazy dogs sleep",
        "metadata": {
            "year": 2005,
            "tags": ["green"],
            "lang": "de",
            "draft": True,
            "rating": 3,
            "when": "2024-02-10",
            "authors": [{"name": "Ann", "age": 30}],
        },
    },
    3: {
        "document": "b",
        "source": "shelf/b.md",
        "text": "A fox, quick!",
        "metadata": {"year": 2010, "tags": [], "lang": "en", "when": "2024-02-10T12:00:00+02:00", "authors": []},
    },
    4: {"document": "c", "metadata": {"year": "2010", "tags": "blue", "lang": ["en", "fr"], "draft": None}},
    5: {"document": "c", "metadata": {"year": 2020.0, "tags": [None, "red"]}, "two words": {"a.b": 1}},
    6: {"document": "ünï 語", "metadata": {}},
    7: {},
    8: {"document": "d", "metadata": {"year": 2020, "matrix": [[1, 2], [3]], "tags": ["green", "red", "blue"]}},
}


def field(key: str, **condition: Any) -> dict[str, Any]:
    return {"key": key, **condition}


def match(key: str, value: Any) -> dict[str, Any]:
    return field(key, match={"value": value})


FILTERS: dict[str, tuple[dict[str, Any], list[int]]] = {
    "empty filter": ({}, [1, 2, 3, 4, 5, 6, 7, 8]),
    "empty lists": ({"must": [], "should": [], "must_not": []}, [1, 2, 3, 4, 5, 6, 7, 8]),
    "string": ({"must": [match("document", "a")]}, [1, 2]),
    "condition without a list": ({"must": match("document", "a")}, [1, 2]),
    "unicode": ({"must": [match("document", "ünï 語")]}, [6]),
    "integer, not the string": ({"must": [match("metadata.year", 2010)]}, [3]),
    "string, not the integer": ({"must": [match("metadata.year", "2010")]}, [4]),
    "integer, not the float": ({"must": [match("metadata.year", 2020)]}, [8]),
    "true": ({"must": [match("metadata.draft", True)]}, [2]),
    "false": ({"must": [match("metadata.draft", False)]}, [1]),
    "one of an array": ({"must": [match("metadata.tags", "red")]}, [1, 5, 8]),
    "any": ({"must": [field("metadata.year", match={"any": [1999, 2005, 7]})]}, [1, 2]),
    "any of nothing": ({"must": [field("metadata.year", match={"any": []})]}, []),
    "except": ({"must": [field("metadata.lang", match={"except": ["en"]})]}, [2, 4]),
    "words": ({"must": [field("text", match={"text": "QUICK fox"})]}, [1, 3]),
    "words that are not there": ({"must": [field("text", match={"text": "quick dogs"})]}, []),
    "range": ({"must": [field("metadata.year", range={"gte": 2005, "lt": 2020})]}, [2, 3]),
    "range of integers and floats": ({"must": [field("metadata.year", range={"gt": 2010})]}, [5, 8]),
    "range with fractions": ({"must": [field("metadata.rating", range={"gt": 3, "lte": 4.5})]}, [1]),
    "datetime with offset": ({"must": [field("metadata.when", range={"gte": "2024-02-10T10:00:00Z"})]}, [3]),
    "date": ({"must": [field("metadata.when", range={"gte": "2024-01-10", "lt": "2024-02-10T01:00:00Z"})]}, [1, 2]),
    "paths into objects of an array": (
        {"must": [match("metadata.authors[].name", "Ann"), match("metadata.authors[].age", 30)]},
        [1, 2],
    ),
    "nested: one object has both": (
        {
            "must": [
                {"nested": {"key": "metadata.authors", "filter": {"must": [match("name", "Ann"), match("age", 30)]}}}
            ]
        },
        [2],
    ),
    "nested: one object has not": (
        {"must": [{"nested": {"key": "metadata.authors[]", "filter": {"must_not": [match("name", "Ann")]}}}]},
        [1],
    ),
    "arrays in arrays": ({"must": [match("metadata.matrix[]", 3)]}, [8]),
    "position in an array": ({"must": [match("metadata.tags[0]", "green")]}, [2, 8]),
    "quoted keys": ({"must": [match('"two words"."a.b"', 1)]}, [5]),
    "is_empty": ({"must": [{"is_empty": {"key": "metadata.tags"}}]}, [3, 6, 7]),
    "is_empty of a field": ({"must": [field("metadata.tags", is_empty=True)]}, [3, 6, 7]),
    "is_empty false": ({"must": [field("metadata.tags", is_empty=False)]}, [1, 2, 4, 5, 8]),
    "is_null": ({"must": [{"is_null": {"key": "metadata.draft"}}]}, [4]),
    "is_null in an array": ({"must": [field("metadata.tags", is_null=True)]}, [5]),
    "is_null false": ({"must": [field("metadata.tags", is_null=False)]}, [1, 2, 3, 4, 6, 7, 8]),
    "values_count": ({"must": [field("metadata.tags", values_count={"gte": 2})]}, [1, 5, 8]),
    "values_count of nothing": ({"must": [field("metadata.tags", values_count={"lt": 1})]}, [3, 6, 7]),
    "has_id": ({"must": [{"has_id": [name(7), name(1), name(99)]}]}, [1, 7]),
    "has_id of nothing": ({"must": [{"has_id": []}]}, []),
    "should": ({"should": [match("metadata.lang", "de"), match("metadata.tags", "blue")]}, [2, 4, 8]),
    "must_not": ({"must_not": [match("metadata.lang", "en"), {"is_empty": {"key": "metadata.lang"}}]}, [2]),
    "must and must_not": ({"must": [match("document", "a")], "must_not": [match("metadata.draft", True)]}, [1]),
    "min_should": (
        {
            "min_should": {
                "conditions": [
                    match("document", "a"),
                    match("metadata.tags", "red"),
                    field("metadata.year", range={"gt": 0}),
                ],
                "min_count": 2,
            }
        },
        [1, 2, 5, 8],
    ),
    "min_should of zero": ({"min_should": {"conditions": [match("document", "a")], "min_count": 0}}, list(range(1, 9))),
    "min_should of nothing": ({"min_should": {"conditions": [], "min_count": 1}}, []),
    "min_should of nothing beside ids": (
        {"must": [{"has_id": [name(7), name(1)]}], "min_should": {"conditions": [], "min_count": 1}},
        [],
    ),
    "min_should of nothing, at least none": (
        {"must": [{"has_id": [name(7), name(1)]}], "min_should": {"conditions": [], "min_count": 0}},
        [1, 7],
    ),
    "min_should of nothing in a nested filter": (
        {
            "must_not": [
                {"nested": {"key": "metadata.authors", "filter": {"min_should": {"conditions": [], "min_count": 1}}}}
            ]
        },
        list(range(1, 9)),
    ),
    "filter in a filter": (
        {
            "must": [
                {
                    "should": [
                        match("document", "b"),
                        {"must": [match("document", "a")], "must_not": [match("metadata.lang", "de")]},
                    ]
                }
            ]
        },
        [1, 3],
    ),
    "contradiction": ({"must": [match("document", "a"), match("document", "b")]}, []),
}


@pytest.fixture(scope="module", params=KINDS)
def library(request: pytest.FixtureRequest) -> Iterator[Store]:
    with quick_folder() as folder, ExitStack() as stack:
        filled = new_store(request.param, folder / "index", DIM, stack)
        filled.upsert([point(number, dense(1), {1: 1}, **payload) for number, payload in LIBRARY.items()])
        yield filled


@pytest.mark.parametrize("case", FILTERS)
def test_filters_select_the_points_that_a_person_would(library: Store, case: str) -> None:
    where, expected = FILTERS[case]
    assert numbers(library.scan(where)) == expected
    assert library.count(where) == len(expected)
    by_dense, by_terms = library.search([SearchRequest(v, 10, where) for v in (dense(1), sparse({1: 1}))])
    assert numbers(by_dense) == numbers(by_terms) == expected


BAD_FILTERS: dict[str, tuple[Any, str]] = {
    "not a mapping": (["must"], r"filter is a mapping, not \['must'\]"),
    "unknown clause": ({"musst": []}, "musst is not supported here; known: min_should, must, must_not, should"),
    "condition is a string": ({"must": ["a"]}, r"filter.must\[0\] is a mapping, not 'a'"),
    "clause is a string": ({"must": "a"}, "filter.must is a list of conditions"),
    "no condition": ({"must": [{"key": "a"}]}, "exactly one of .* for 'a', found none"),
    "two conditions": ({"must": [field("a", match={"value": 1}, range={"gt": 1})]}, "found match and range"),
    "unknown condition": ({"must": [field("a", geo_radius={})]}, "geo_radius is not supported"),
    "bad position": ({"must": [match("a[18446744073709551616]", 1)]}, r"key is not a payload path: 'a\[1844"),
    "position in other digits": ({"must": [match("a[\u0663]", 1)]}, r"key is not a payload path: 'a\[\u0663\]'"),
    "long path": ({"must": [match("a" * 501, 1)]}, r"key is a payload path of 501 characters, more than 500"),
    "bad path": ({"must": [match("a..b", 1)]}, r"filter.must\[0\].key is not a payload path: 'a..b'"),
    "path with a space": ({"must": [match("a b", 1)]}, "quotes around unusual keys"),
    "float match": ({"must": [match("a", 1.5)]}, "use range for fractions"),
    "match nothing": ({"must": [field("a", match={})]}, "needs exactly one of value, any, except, text"),
    "mixed any": ({"must": [field("a", match={"any": [1, "1"]})]}, "list of strings or of integers"),
    "any of bools": ({"must": [field("a", match={"any": [True]})]}, "list of strings or of integers"),
    "any is a string": ({"must": [field("a", match={"any": "abc"})]}, "list of strings or of integers"),
    "huge integer": ({"must": [match("a", 2**64)]}, "beyond 64 bits"),
    "half a surrogate": ({"must": [match("a", "\ud800")]}, "surrogate"),
    "range of NaN": ({"must": [field("a", range={"gt": math.nan})]}, "finite number"),
    "range of a bool": ({"must": [field("a", range={"gt": True})]}, "finite number"),
    "range of words": ({"must": [field("a", range={"gt": "tomorrow"})]}, "not an RFC 3339 datetime: 'tomorrow'"),
    "range of both": ({"must": [field("a", range={"gt": 1, "lt": "2024-01-01"})]}, "like the other bounds"),
    "has_id of a word": ({"must": [{"has_id": ["seven"]}]}, "not a UUID"),
    "has_id of a string": ({"must": [{"has_id": name(1)}]}, "list of UUID strings"),
    "has_id in nested": (
        {"must": [{"nested": {"key": "a", "filter": {"must": [{"has_id": []}]}}}]},
        "has_id asks about points",
    ),
    "negative count": ({"must": [field("a", values_count={"gt": -1})]}, "whole numbers from 0"),
    "is_empty of a word": ({"must": [field("a", is_empty="yes")]}, "is true or false, not 'yes'"),
    "min_should without conditions": ({"min_should": {"min_count": 0}}, "min_should.conditions is a list"),
    "min_should without count": ({"min_should": {"conditions": []}}, "min_count is a whole number"),
}


def _deep(levels: int) -> dict[str, Any]:
    where: dict[str, Any] = {}
    for _ in range(levels):
        where = {"must": [where]}
    return where


@pytest.mark.parametrize("case", [*BAD_FILTERS, "too deep"])
def test_unusable_filters_are_refused_with_the_place(library: Store, case: str) -> None:
    where, message = BAD_FILTERS.get(case, (_deep(100), "nested more than 32 deep"))
    with pytest.raises(StoreInputError, match=message):
        library.count(where)
    with pytest.raises(StoreInputError, match=message):
        library.delete_where(where)
    assert library.count() == 8


@pytest.mark.parametrize(
    "where",
    [{}, {"must": []}, {"must": [{}]}, {"should": [{"must": []}, match("document", "a")]}, {"must": {"must": [{}]}}],
    ids=str,
)
def test_a_deletion_that_excludes_nothing_is_refused(library: Store, where: dict[str, Any]) -> None:
    with pytest.raises(StoreInputError, match="would delete every point"):
        library.delete_where(where)
    assert library.count() == 8


def test_facets_count_points_per_value(library: Store) -> None:
    assert library.facet("document") == [("a", 2), ("c", 2), ("b", 1), ("d", 1), ("ünï 語", 1)]
    assert library.facet("document", 3) == [("a", 2), ("c", 2), ("b", 1)]
    assert library.facet("metadata.tags") == [("green", 3), ("red", 3), ("blue", 2)]
    assert library.facet("metadata.lang", where={"must": [match("document", "a")]}) == [("de", 1), ("en", 1)]
    assert library.facet("metadata.draft") == [(False, 1), (True, 1)]
    assert library.facet("metadata.year") == [(1999, 1), (2005, 1), (2010, 1), (2020, 1), ("2010", 1)]
    assert library.facet("nowhere") == []


@pytest.mark.parametrize("key", ["", "a..b", None, 3])
def test_facets_of_something_that_is_no_path_are_refused(library: Store, key: Any) -> None:
    with pytest.raises(StoreInputError, match="not a payload path"):
        library.facet(key)


def test_dense_scores_are_dot_products(store: Store) -> None:
    store.upsert(
        [
            point(1, dense(1)),
            point(2, dense(0.6, 0.8)),
            point(3, dense(0, 1)),
            point(4, dense(-1)),
            point(5, dense()),
            point(6, None, {1: 1}),
        ]
    )
    (found,) = store.search([SearchRequest(dense(1), 10)])
    # Equal scores come in the order of their ids; what has no dense vector is not found.
    assert numbers(found) == [1, 2, 3, 5, 4]
    assert [hit.score for hit in found] == pytest.approx([1, 0.6, 0, 0, -1], abs=1e-6)


def test_bm25_scores_are_weights_times_idf(store: Store) -> None:
    store.upsert(
        [
            point(1, None, {7: 2.0, 8: 1.0}),
            point(2, None, {7: 1.0}),
            point(3, None, {9: 1.0}),
            # No terms: not a document of the BM25 arm.
            point(4, dense(1), {}),
            point(5, dense(1)),
        ]
    )
    found = store.search([SearchRequest(sparse(query), 10) for query in ({7: 1.0}, {8: 2.0, 9: 1.0}, {5: 1.0}, {})])
    # N = 3: a term in one document ln((3 - 1 + 0.5) / 1.5 + 1), in two ln((3 - 2 + 0.5) / 2.5 + 1).
    one, two = 0.9808293, 0.4700036
    assert [numbers(points) for points in found] == [[1, 2], [1, 3], [], []]
    assert [hit.score for hit in found[0]] == pytest.approx([2 * two, two], abs=1e-5)
    assert [hit.score for hit in found[1]] == pytest.approx([2 * one, one], abs=1e-5)


def test_bm25_counts_the_living(store: Store, request: pytest.FixtureRequest) -> None:
    if "server-at-url" in request.node.name:
        pytest.skip("a server counts deleted points until its optimizer has dropped them")
    store.upsert([point(number, None, {1 if number <= 3 else 2: 1.0}) for number in range(1, 7)])
    store.delete([name(1), name(4)])
    store.upsert([point(5, None, {3: 1.0})])
    for _ in range(2):
        (found,) = store.search([SearchRequest(sparse({1: 1.0}), 10)])
        assert numbers(found) == [2, 3]
        # Points 2, 3, 5 and 6 are left; two have the term: ln((4 - 2 + 0.5) / 2.5 + 1).
        assert found[0].score == pytest.approx(0.6931472, abs=1e-5)
        store.optimize()


def test_ties_are_ordered_by_id_also_at_the_cut(store: Store) -> None:
    order = np.random.default_rng(3).permutation(200) + 1
    store.upsert([point(int(number), dense(0, 1), {1: 1.0}) for number in order])
    store.upsert([point(300, dense(1), {1: 2.0}), point(301, dense(0, 1), {1: 1.0})])
    for vector in (dense(0.6, 0.8), sparse({1: 1.0})):
        ten, fifty = store.search([SearchRequest(vector, 10), SearchRequest(vector, 50)])
        first = [] if isinstance(vector, np.ndarray) else [300]
        assert numbers(fifty) == (first + list(range(1, 51)))[:50]
        assert numbers(ten) == numbers(fifty)[:10]


def test_a_batch_answers_each_request_in_its_place(store: Store) -> None:
    store.upsert([point(1, dense(1), {1: 1.0}, k="x"), point(2, dense(0, 1), {2: 1.0}, k="y")])
    requests = [
        SearchRequest(sparse({2: 1.0}), 5),
        SearchRequest(dense(), 5),
        SearchRequest(dense(1), 1),
        SearchRequest(sparse({}), 5),
        SearchRequest(dense(1), 5, {"must": [match("k", "y")]}, exact=True),
    ]
    assert [numbers(found) for found in store.search(requests)] == [[2], [], [1], [], [2]]
    assert store.search([]) == []


def test_an_empty_store_answers_everything(store: Store) -> None:
    assert store.search([SearchRequest(dense(1), 5), SearchRequest(sparse({1: 1.0}), 5)]) == [[], []]
    assert (store.count(), list(store.scan()), store.get([name(1)]), store.facet("document")) == (0, [], [], [])
    assert store.delete_where({"must": [match("a", 1)]}) == 0
    store.delete([name(1)])
    store.delete([])
    store.upsert([])
    store.flush()
    store.optimize()
    assert store.count() == 0


def test_upsert_replaces_a_point_as_a_whole(store: Store) -> None:
    store.upsert([point(1, dense(1), {1: 1.0}, a=1, b=2)])
    store.upsert([point(1, dense(0, 1), None, c=3)])
    (found,) = store.get([name(1)], vectors=True)
    assert (store.count(), found.payload) == (1, {"c": 3})
    assert found.dense is not None
    assert found.dense.tolist() == [0, 1, 0, 0]
    assert store.search([SearchRequest(sparse({1: 1.0}), 5)]) == [[]]


def test_the_last_of_equal_ids_in_a_batch_wins(store: Store) -> None:
    store.upsert([point(1, dense(1), a="first"), point(2, dense(1)), point(1, dense(1), a="last")])
    assert [dict(found.payload) for found in store.get([name(1)])] == [{"a": "last"}]
    assert store.count() == 2


def test_get_keeps_the_order_asked_for_and_leaves_out_the_unknown(store: Store) -> None:
    store.upsert([point(number, dense(1), n=number, m={"x": number}, **{"a.b": number}) for number in (1, 2, 3)])
    assert numbers(store.get([name(3), name(9), name(1)])) == [3, 1]
    assert [found.payload for found in store.get([name(2)], payload=["m", "a.b", "absent"])] == [
        {"m": {"x": 2}, "a.b": 2}
    ]
    assert [(found.payload, found.dense) for found in store.get([name(2)], payload=False)] == [({}, None)]
    assert store.get([name(2)], payload=[])[0].payload == {}
    assert store.get([]) == []


def test_scan_is_complete_and_stable_in_any_batch(store: Store) -> None:
    order = np.random.default_rng(5).permutation(50) + 1
    store.upsert([point(int(number), dense(1), parity=int(number) % 2) for number in order])
    assert numbers(store.scan(batch=7)) == numbers(store.scan()) == list(range(1, 51))
    odd = {"must": [match("parity", 1)]}
    assert numbers(store.scan(odd, batch=3, payload=False)) == list(range(1, 51, 2))
    vectors = [found.dense for found in store.scan(vectors=True, batch=20)]
    assert all(
        vector is not None and vector.dtype == np.float32 and vector.tolist() == [1, 0, 0, 0] for vector in vectors
    )


def test_deletions(store: Store) -> None:
    store.upsert([point(number, dense(1), parity=number % 2) for number in range(1, 11)])
    store.delete([name(1), name(2), name(99)])
    assert store.delete_where({"must": [match("parity", 1)]}) == 4
    assert numbers(store.scan()) == [4, 6, 8, 10]
    assert numbers(store.search([SearchRequest(dense(1), 20)])[0]) == [4, 6, 8, 10]


def test_payloads_come_back_as_they_were(store: Store) -> None:
    payload = {
        "text": "naïve 語 🎈 \u0000 \n \u2028",
        "ключ": {"deep": [{"a": [1, -1, 0.5, 1e-300, True, None, ""]}]},
        "big": 2**53 + 1,
        "edges": [2**63 - 1, -(2**63)],
        "empty": [{}, [], ""],
    }
    store.upsert([point(1, dense(1), **payload), point(2, None, None)])
    assert [found.payload for found in store.get([name(1), name(2)])] == [payload, {}]


def test_a_stored_payload_is_not_the_callers(store: Store) -> None:
    mine = {"tags": ["a"]}
    store.upsert([Point(name(1), dense(1), None, mine)])
    mine["tags"].append("b")
    store.get([name(1)])[0].payload["tags"].append("c")
    assert store.get([name(1)])[0].payload == {"tags": ["a"]}


def _nested_list(levels: int) -> list[Any]:
    return [] if levels == 0 else [_nested_list(levels - 1)]


BAD_POINTS: dict[str, tuple[Callable[[], Any], str]] = {
    "not a point": (lambda: {"id": name(2)}, "point 1 is a dict"),
    "id is a word": (lambda: Point("two", dense(1), None, {}), "point 1: id: 'two' is not a UUID"),
    "id in capitals": (lambda: Point(str(uuid.UUID(int=10**38)).upper(), dense(1), None, {}), "canonical form"),
    "id is a number": (lambda: Point(2, dense(1), None, {}), "id: 2 is not a UUID"),  # type: ignore[arg-type]
    "too few dimensions": (lambda: point(2, np.ones(3, np.float32)), r"dense has shape \(3,\).* 4 dimensions"),
    "a matrix": (lambda: point(2, np.ones((1, 4), np.float32)), "dense has shape"),
    "NaN": (lambda: point(2, dense(math.nan)), "NaN or infinite"),
    "infinity": (lambda: point(2, dense(math.inf)), "NaN or infinite"),
    "beyond float32": (lambda: point(2, np.array([1e300, 0, 0, 0])), "has length inf"),
    "not of unit length": (lambda: point(2, dense(1, 1)), "has length 1.41421; it must be of unit length"),
    "integers": (lambda: point(2, np.array([1, 0, 0, 0])), "has dtype int64"),
    "objects": (lambda: point(2, ["a", "b", "c", "d"]), "dense has dtype"),
    "sparse is a dict": (lambda: Point(name(2), None, {1: 1.0}, {}), "sparse is a dict"),  # type: ignore[arg-type]
    "lengths differ": (
        lambda: Point(name(2), None, SparseVector(np.array([1], np.uint32), np.ones(2, np.float32)), {}),
        "sparse has .* indices and .* values",
    ),
    "index twice": (
        lambda: Point(name(2), None, SparseVector(np.array([4, 4], np.uint32), np.ones(2, np.float32)), {}),
        "sparse names index 4 twice",
    ),
    "negative index": (
        lambda: Point(name(2), None, SparseVector(np.array([-1]), np.ones(1, np.float32)), {}),  # type: ignore[arg-type]
        "from 0 to",
    ),
    "huge index": (
        lambda: Point(name(2), None, SparseVector(np.array([2**32]), np.ones(1, np.float32)), {}),  # type: ignore[arg-type]
        "from 0 to",
    ),
    "sparse NaN": (lambda: point(2, None, {1: math.nan}), "negative, NaN or infinite"),
    "sparse beyond float32": (
        lambda: Point(name(2), None, SparseVector(np.array([1]), np.array([3.4028236e38])), {}),
        "has values beyond float32",
    ),
    "negative weight": (lambda: point(2, None, {1: -1.0}), "negative, NaN or infinite"),
    "payload is a list": (lambda: Point(name(2), dense(1), None, [1]), "payload is a list"),  # type: ignore[arg-type]
    "payload NaN": (lambda: point(2, dense(1), a={"b": [math.nan]}), r"payload.a.b\[0\] is nan"),
    "payload bytes": (lambda: point(2, dense(1), a=b"x"), "payload.a is a bytes"),
    "payload set": (lambda: point(2, dense(1), a={1}), "payload.a is a set"),
    "payload array": (lambda: point(2, dense(1), a=np.ones(2)), "payload.a is a ndarray"),
    "payload numpy integer": (lambda: point(2, dense(1), a=np.int64(1)), "payload.a is a int64"),
    "huge integer": (lambda: point(2, dense(1), a=2**63), "payload.a is an integer beyond 64 bits"),
    "integer key": (lambda: point(2, dense(1), a={1: 1}), "payload.a has the key 1"),
    "half a surrogate": (lambda: point(2, dense(1), a="\udc00"), "payload.a holds half of a surrogate pair"),
    "half a surrogate as key": (lambda: point(2, dense(1), a={"\udc00": 1}), "payload.a holds half"),
    "too deep": (lambda: point(2, dense(1), a=_nested_list(40)), "nested more than 32 deep"),
    "too large": (lambda: point(2, dense(1), a="x" * (16 * 2**20 + 1)), "the limit is 16777216"),
}


@pytest.mark.parametrize("case", BAD_POINTS)
def test_one_unusable_point_refuses_the_whole_batch(library: Store, case: str) -> None:
    make, message = BAD_POINTS[case]
    with pytest.raises(StoreInputError, match=message):
        library.upsert([point(1000, dense(1)), make(), point(1001, dense(1))])
    assert library.count() == 8


BAD_REQUESTS: dict[str, tuple[Callable[[], SearchRequest], str]] = {
    "limit zero": (lambda: SearchRequest(dense(1), 0), "request 1: limit is a whole number from 1"),
    "limit is a bool": (lambda: SearchRequest(dense(1), True), "limit is a whole number"),
    "limit is huge": (lambda: SearchRequest(dense(1), 10**9), "limit is a whole number"),
    "dimensions": (lambda: SearchRequest(np.ones(5, np.float32), 1), "request 1: vector has shape"),
    "NaN": (lambda: SearchRequest(dense(math.nan), 1), "NaN"),
    "length": (lambda: SearchRequest(dense(2), 1), "has length 2"),
    "a list": (lambda: SearchRequest([1, 0, 0, 0], 1), "dtype int64"),  # type: ignore[arg-type]
    "a text": (lambda: SearchRequest("fox", 1), "dtype"),  # type: ignore[arg-type]
    "sparse NaN": (lambda: SearchRequest(sparse({1: math.nan}), 1), "NaN"),
    "filter": (lambda: SearchRequest(dense(1), 1, {"mist": []}), "mist is not supported"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_unusable_requests_are_refused(library: Store, case: str) -> None:
    make, message = BAD_REQUESTS[case]
    with pytest.raises(StoreInputError, match=message):
        library.search([SearchRequest(dense(1), 1), make()])


@pytest.mark.parametrize("ids", ["x", name(1), ["x"], [None], [1]], ids=str)
def test_unusable_ids_are_refused(library: Store, ids: Any) -> None:
    for use in (library.get, library.delete):
        with pytest.raises(StoreInputError, match="UUID"):
            use(ids)
    assert library.count() == 8


def test_unusable_selections_are_refused(library: Store) -> None:
    with pytest.raises(StoreInputError, match="list of top-level keys, not 'text'"):
        library.get([name(1)], payload="text")
    with pytest.raises(StoreInputError, match="batch is a whole number"):
        library.scan(batch=0)
    with pytest.raises(StoreInputError, match="limit is a whole number"):
        library.facet("document", 0)


def test_the_manifest_comes_back_as_it_was_written(store: Store) -> None:
    assert store.read_manifest() is None
    first = {"schema_version": 1, "state": "ingesting", "nested": {"a": 1, "gone": [1.5, None, "ü"]}}
    store.write_manifest(first)
    assert store.read_manifest() == first
    store.write_manifest({"schema_version": 1, "nested": {"a": 2}})
    assert store.read_manifest() == {"schema_version": 1, "nested": {"a": 2}}
    store.upsert([point(1, dense(1))])
    assert (numbers(store.scan()), store.count()) == ([1], 1)


@pytest.mark.parametrize("manifest", [{"a": math.nan}, {"a": {1, 2}}, {"a": "\ud800"}], ids=["NaN", "set", "surrogate"])
def test_a_manifest_that_is_not_json_is_refused(store: Store, manifest: dict[str, Any]) -> None:
    store.write_manifest({"a": 1})
    with pytest.raises(StoreInputError, match="JSON values only"):
        store.write_manifest(manifest)
    assert store.read_manifest() == {"a": 1}


def test_a_manifest_of_the_future_is_refused(store: Store) -> None:
    with pytest.raises(IndexMismatchError, match="schema version 99, this installation reads up to 1; upgrade"):
        store.write_manifest({"schema_version": 99})


def test_a_closed_store_says_so(store: Store) -> None:
    store.upsert([point(1, dense(1))])
    scan = store.scan()
    store.close()
    store.close()
    uses: list[Callable[[], object]] = [
        lambda: store.upsert([point(2, dense(1))]),
        lambda: store.search([SearchRequest(dense(1), 1)]),
        lambda: store.search([]),
        lambda: store.get([name(1)]),
        lambda: store.scan(),
        lambda: next(scan),
        lambda: store.delete([name(1)]),
        lambda: store.delete_where({"must": [match("a", 1)]}),
        store.count,
        lambda: store.facet("document"),
        lambda: store.set_quantization(Quantization("turbo")),
        store.optimize,
        store.flush,
        store.read_manifest,
        lambda: store.write_manifest({}),
    ]
    for use in uses:
        with pytest.raises(StoreError, match="closed"):
            use()
    assert store.location


def test_quantization_is_switched_on_changed_and_off(store: Store) -> None:
    directions = [dense(math.cos(angle), math.sin(angle)) for angle in np.linspace(0, 1.5, 40)]
    store.upsert([point(number, vector) for number, vector in enumerate(directions, start=1)])
    for quantization in (Quantization("turbo", 2), Quantization("binary", 1, query_bits=8), Quantization()):
        store.set_quantization(quantization)
        rescored, exact = store.search([SearchRequest(dense(1), 40), SearchRequest(dense(1), 5, exact=True)])
        # Everything is fetched and scored again with the original vectors, so the order is exact.
        assert numbers(rescored) == list(range(1, 41))
        assert numbers(exact) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        (Quantization("binary", 4), "binary quantization has 1 or 1.5 or 2 bits, not 4"),
        (Quantization("turbo", 3), "turbo quantization has"),
        (Quantization("turbo", 2, query_bits=8), "query_bits is 4 or 8 with binary"),
        (Quantization("product"), "is one of none, scalar, binary, turbo, not 'product'"),  # type: ignore[arg-type]
        (Quantization("turbo", 2, oversampling=0.5), "oversampling is from 1 to 100"),
    ],
    ids=["binary-4", "turbo-3", "query-bits", "product", "oversampling"],
)
def test_a_quantization_that_does_not_exist_is_refused(
    library: Store, quantization: Quantization, message: str
) -> None:
    with pytest.raises(StoreInputError, match=message):
        library.set_quantization(quantization)


def _random_point(chosen: np.random.Generator, number: int, dim: int) -> Point:
    vector = chosen.normal(size=dim).astype(np.float32)
    terms = np.unique(chosen.integers(0, 300, 15))
    weights = chosen.uniform(0.1, 2.0, len(terms))
    payload = {"year": int(chosen.integers(2000, 2010)), "tags": [f"t{i}" for i in chosen.integers(0, 5, 2)]}
    unit = vector / np.linalg.norm(vector)
    return point(number, unit, dict(zip(terms.tolist(), weights.tolist(), strict=True)), **payload)


def _random_requests(chosen: np.random.Generator, dim: int) -> list[SearchRequest]:
    where = {"must": [field("year", range={"gte": 2004})], "must_not": [match("tags", "t1")]}
    requests = []
    for number in range(20):
        vector = chosen.normal(size=dim).astype(np.float32)
        terms = dict.fromkeys(chosen.choice(300, 6, replace=False).tolist(), 1.0)
        asked = where if number % 3 == 0 else None
        requests.append(SearchRequest(vector / np.linalg.norm(vector), 100, asked))
        requests.append(SearchRequest(sparse(terms), 100, asked))
    return requests


def _assert_same(found: list[list[ScoredPoint]], expected: list[list[ScoredPoint]]) -> None:
    assert [numbers(points) for points in found] == [numbers(points) for points in expected]
    for points, oracle in zip(found, expected, strict=True):
        assert [hit.score for hit in points] == pytest.approx([hit.score for hit in oracle], abs=1e-5)


def test_random_points_agree_with_the_oracle(open_empty: OpenStore, request: pytest.FixtureRequest) -> None:
    chosen = np.random.default_rng(17)
    store, oracle = open_empty(16), MemoryStore(16)
    points = [_random_point(chosen, number, 16) for number in range(2000)]
    requests = _random_requests(chosen, 16)
    for one in (store, oracle):
        one.upsert(points)
    _assert_same(store.search(requests), oracle.search(requests))
    if "server-at-url" in request.node.name:
        return
    changed = [_random_point(chosen, number, 16) for number in range(100, 200)]
    for one in (store, oracle):
        one.delete([point.id for point in points[:150]])
        one.upsert(changed)
    _assert_same(store.search(requests), oracle.search(requests))
    assert store.facet("tags", 3) == oracle.facet("tags", 3)
    assert store.facet("year", 20) == oracle.facet("year", 20)


def test_bm25_of_the_oracle_is_the_textbook_formula() -> None:
    oracle = MemoryStore(DIM)
    oracle.upsert([point(number, None, {1: 1.0}) for number in range(1, 4)])
    oracle.upsert([point(number, None, {2: 1.0}) for number in range(4, 11)])
    ((best, *_),) = oracle.search([SearchRequest(sparse({1: 3.0}), 10)])
    assert best.score == pytest.approx(3 * math.log((10 - 3 + 0.5) / (3 + 0.5) + 1))
