"""What a store checks before its engine sees a point, with and without a copy."""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.config import parse_config
from retrieval.datatypes import Point, SparseVector
from retrieval.errors import StoreInputError
from retrieval.stores import open_store
from retrieval.stores.payloads import MAX_PAYLOAD_BYTES, MAX_PAYLOAD_DEPTH, checked_payload, is_plain
from retrieval.stores.points import checked_points

NAME = "00000000-0000-4000-8000-00000000000{}"


def dense(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def terms(*indices: int) -> SparseVector:
    return SparseVector(np.array(indices, np.uint32), np.ones(len(indices), np.float32))


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_what_is_as_it_should_be_comes_back_as_it_is() -> None:
    good = Point(NAME.format(1), dense(1, 0), terms(3, 5), {"text": "naïve", "run": 2, "headings": ["a"], "x": None})
    assert checked_points([good], 2, copy=False)[0] is good
    copied = checked_points([good], 2)[0]
    assert copied.payload == good.payload
    assert copied.payload is not good.payload
    assert not np.shares_memory(copied.dense, good.dense)
    assert not np.shares_memory(copied.sparse.indices, good.sparse.indices)


def test_both_ways_give_the_same_points() -> None:
    points = [
        Point(NAME.format(1), dense(1, 0), terms(), {"none": "of the terms"}),
        Point(NAME.format(2), None, terms(1), {"tuple": (1, 2), "nested": {"pair": ("a", "b")}}),
        Point(NAME.format(3), dense(0, 1), None, OrderedDict(text="a mapping")),
        Point(NAME.format(1), dense(0, 1), terms(7), {"text": "the last of its id"}),
    ]
    here, there = checked_points(points, 2, copy=False), checked_points(points, 2)
    assert [(each.id, each.payload) for each in here] == [(each.id, each.payload) for each in there]
    assert [each.id[-1] for each in here] == ["2", "3", "1"]
    assert here[0].payload == {"tuple": [1, 2], "nested": {"pair": ["a", "b"]}}
    assert type(here[1].payload) is dict
    assert here[2].dense is points[3].dense
    assert here[2].sparse is points[3].sparse
    # An empty sparse vector is none, so this point cannot stay as it is.
    assert checked_points(points[:1], 2, copy=False)[0].sparse is None


@pytest.mark.parametrize(
    "payload",
    [
        {"a": math.nan},
        {"a": [math.inf]},
        {"a": 2**63},
        {"a": "\ud800"},
        {"a": {"b": ["\udfff"]}},
        {"\ud800": "a"},
        {1: "a"},
        {"a": b"bytes"},
        {"a": {1, 2}},
        {"a": object()},
        {"a": nested(MAX_PAYLOAD_DEPTH)},
        {"a": "x" * MAX_PAYLOAD_BYTES},
        {"a": ["é" * (MAX_PAYLOAD_BYTES // 2)]},
        "text",
        None,
    ],
)
def test_what_is_refused_with_a_copy_is_refused_without(payload: Any) -> None:
    assert not is_plain(payload)
    refused = Point(NAME.format(1), dense(1, 0), None, payload)
    for copy in (True, False):
        with pytest.raises(StoreInputError):
            checked_points([refused], 2, copy=copy)


@pytest.mark.parametrize("vector", [dense(math.nan, 0), dense(2, 0), dense(1, 0, 0), np.array([1, 0])])
def test_vectors_are_checked_without_a_copy_too(vector: np.ndarray) -> None:
    for copy in (True, False):
        with pytest.raises(StoreInputError):
            checked_points([Point(NAME.format(1), vector, None, {})], 2, copy=copy)


def test_the_depth_that_is_allowed_is_plain() -> None:
    payload = {"a": nested(MAX_PAYLOAD_DEPTH - 1), "true": True, "half": 0.5}
    assert is_plain(payload)
    assert checked_payload(payload, 0, "") == payload


def test_the_engine_keeps_what_it_was_given_whatever_becomes_of_it(tmp_path: Path) -> None:
    vector, weights, payload = dense(1, 0, 0, 0), terms(4, 9), {"text": "before"}
    strided = np.repeat(dense(0, 1, 0, 0), 2)[::2]
    with open_store(parse_config({}), dim=4, path=tmp_path / "index") as store:
        store.upsert([Point(NAME.format(1), vector, weights, payload), Point(NAME.format(2), strided, None, {})])
        vector[:] = 0.5
        weights.indices[0] = 5
        payload["text"] = "after"
        first, second = store.get([NAME.format(1), NAME.format(2)], vectors=True)
    assert first.payload == {"text": "before"}
    assert first.dense.tolist() == [1, 0, 0, 0]
    assert first.sparse.indices.tolist() == [4, 9]
    assert second.dense.tolist() == [0, 1, 0, 0]
