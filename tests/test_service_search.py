"""Search over HTTP: the same as the pipeline's, strict about what it takes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines import TwoStagePipeline
from retrieval.models import find_model
from tests.conftest import paper_corpus
from tests.service_app import client_of, service_config, small_config

DOCUMENTS = paper_corpus()
QUERY = "copper pipe leak plumber"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    index = tmp_path_factory.mktemp("search") / "index"
    with client_of(index, DOCUMENTS, service_config(limits={"queries": 3, "query_characters": 100})) as client:
        yield client


def search(client: httpx.Client, **body: Any) -> dict[str, Any]:
    response = client.post("/v1/search", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def problem(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert body["status"] == response.status_code
    assert body["request_id"] == response.headers["x-request-id"]
    return body["status"], body["code"]


def test_the_order_is_that_of_bm25_when_asked_for(client: httpx.Client) -> None:
    answer = search(client, query=QUERY, first_stage="bm25", rerank=False)
    assert [hit["document_id"] for hit in answer["hits"]] == ["pipe-1", "pipe-2", "pipe-3", "pipe-4"]
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3, 4]
    assert [hit["first_stage_rank"] for hit in answer["hits"]] == [1, 2, 3, 4]
    assert all(hit["rerank_score"] is None and hit["read"] is None for hit in answer["hits"])
    assert (answer["stopped"], answer["reranked"], answer["candidates"]) == ("off", 0, 4)
    assert [set(hit["arms"]) for hit in answer["hits"]] == [{"bm25"}] * 4


def test_the_answer_is_the_pipeline_s_own(tmp_path: Path) -> None:
    with TwoStagePipeline.open(tmp_path / "index", small_config()) as pipeline:
        pipeline.ingest(DOCUMENTS)
        expected = pipeline.search(QUERY, 3)
    with client_of(tmp_path / "index") as client:
        answer = search(client, query=QUERY, top_k=3)
    assert answer["query"] == QUERY
    assert answer["reranked"] == expected.reranked
    for hit, wanted in zip(answer["hits"], expected, strict=True):
        assert hit["document_id"] == wanted.document_id
        assert hit["score"] == pytest.approx(wanted.score)
        assert hit["rerank_score"] == pytest.approx(wanted.rerank_score)
        assert hit["text"] == wanted.text
        assert hit["metadata"] == dict(wanted.metadata)
        assert hit["read"] == list(wanted.read or ())
    assert set(answer["timings"]) == {"encode", "retrieve", "rerank", "total"}


def test_several_queries_are_answered_in_their_order(client: httpx.Client) -> None:
    queries = ["vanilla", "submarine", QUERY]
    answer = search(client, queries=queries, first_stage="bm25", rerank=False, top_k=1)
    assert [results["query"] for results in answer["results"]] == queries
    assert [[hit["document_id"] for hit in results["hits"]] for results in answer["results"]] == [
        ["bread-4"],
        [],
        ["pipe-1"],
    ]


def test_a_filter_keeps_to_what_matches(client: httpx.Client) -> None:
    where = {"must": [{"key": "metadata.year", "range": {"gte": 2003}}]}
    answer = search(client, query=QUERY, first_stage="bm25", rerank=False, where=where)
    assert [hit["document_id"] for hit in answer["hits"]] == ["pipe-3", "pipe-4"]


def test_min_score_leaves_out_what_is_worse(client: httpx.Client) -> None:
    everything = search(client, query=QUERY, top_k=4)["hits"]
    bound = (everything[0]["probability"] + everything[1]["probability"]) / 2
    assert [hit["document_id"] for hit in search(client, query=QUERY, top_k=4, min_score=bound)["hits"]] == ["pipe-1"]


def test_a_hit_says_how_sure_it_is_and_a_result_whether_it_is_settled(client: httpx.Client) -> None:
    answer = search(client, query=QUERY, top_k=4)
    logits = [hit["rerank_score"] for hit in answer["hits"]]
    fitted = json.loads((find_model("starter-reranker") / "calibration.json").read_text())["passages"]
    expected = [1 / (1 + math.exp(-(fitted["slope"] * logit + fitted["intercept"]))) for logit in logits]
    assert [hit["probability"] for hit in answer["hits"]] == pytest.approx(expected)
    assert (answer["settled"], answer["answered"]) == (True, None)
    assert search(client, query=QUERY, exact=True)["hits"] == search(client, query=QUERY)["hits"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"min_score": "auto"}, "'retrieval calibrate' stores one"),
        ({"min_score": 0.5, "rerank": False}, "leave min_score out, or let it rerank"),
    ],
)
def test_a_threshold_that_is_not_there_is_refused_with_the_remedy(
    client: httpx.Client, body: dict[str, Any], words: str
) -> None:
    response = client.post("/v1/search", json={"query": QUERY, **body})
    assert problem(response) == (409, "not_possible")
    assert words in response.text


def test_an_empty_query_is_answered_with_a_warning(client: httpx.Client) -> None:
    answer = search(client, query="")
    assert answer["hits"] == []
    assert answer["warnings"] == ["the query is empty"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, ["body", "query"]),
        ({"query": 5}, ["body", "query"]),
        ({"query": "a\0b"}, ["body", "query"]),
        ({"query": "x", "queries": ["y"]}, ["body", "query"]),
        ({"query": "x", "top_k": "5"}, ["body", "top_k"]),
        ({"query": "x", "top_k": 0}, ["body", "top_k"]),
        ({"query": "x", "top_k": True}, ["body", "top_k"]),
        ({"query": "x", "top_k": 101}, ["body", "top_k"]),
        ({"query": "x", "candidates": 1001}, ["body", "candidates"]),
        ({"query": "x", "depth": -1}, ["body", "depth"]),
        ({"query": "x", "depth": 201}, ["body", "depth"]),
        ({"query": "x", "budget_ms": 0}, ["body", "budget_ms"]),
        ({"query": "x", "first_stage": "sparse"}, ["body", "first_stage"]),
        ({"query": "x", "min_score": "often"}, ["body", "min_score"]),
        ({"query": "x", "min_score": 1.5}, ["body", "min_score"]),
        ({"query": "x", "exact": "yes"}, ["body", "exact"]),
        ({"query": "x", "unknown": 1}, ["body", "unknown"]),
        ({"query": "x" * 101}, ["body", "query"]),
        ({"queries": []}, ["body", "queries"]),
        ({"queries": ["a", "b", "c", "d"]}, ["body", "queries"]),
        ({"queries": ["a", "x" * 101]}, ["body", "queries"]),
        ({"query": "x", "where": {"must": [{"key": "a b", "match": {"value": 1}}]}}, ["body", "where"]),
        ({"query": "x", "where": {"must": [{"key": "metadata.year", "match": {"value": 1.5}}]}}, ["body", "where"]),
    ],
)
def test_what_is_not_as_described_is_refused_by_name(
    client: httpx.Client, body: dict[str, Any], field: list[str]
) -> None:
    response = client.post("/v1/search", json=body)
    assert problem(response)[0] == 422
    assert [entry["loc"] for entry in response.json()["errors"]] == [field]


def test_five_point_zero_is_the_integer_that_json_schema_says_it_is(client: httpx.Client) -> None:
    answer = client.post(
        "/v1/search", content=b'{"query": "bread", "top_k": 2.0}', headers={"Content-Type": "application/json"}
    )
    assert len(answer.json()["hits"]) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"query": NaN}',
        b'{"query": "x", "min_score": Infinity}',
        b'{"query": "x", "min_score": -Infinity}',
        b'{"query": "\\ud800"}',
        b'{"query": "x", "where": ' + b"[" * 300,
        b'{"query": "x"} {"query": "y"}',
    ],
)
def test_what_is_no_json_is_refused(client: httpx.Client, body: bytes) -> None:
    response = client.post("/v1/search", content=body, headers={"Content-Type": "application/json"})
    assert problem(response) == ((422, "invalid_request") if not body else (400, "malformed_json"))


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_a_number_beyond_floats_is_refused(client: httpx.Client, number: str) -> None:
    body = f'{{"query": "x", "min_score": {number}}}'
    response = client.post("/v1/search", content=body, headers={"Content-Type": "application/json"})
    assert problem(response)[0] in {400, 422}


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "multipart/form-data"])
def test_a_body_of_another_type_is_refused(client: httpx.Client, content_type: str) -> None:
    response = client.post("/v1/search", content=b'{"query": "x"}', headers={"Content-Type": content_type})
    assert problem(response) == (415, "unsupported_media_type")


def test_a_filter_nested_too_deep_is_refused(client: httpx.Client) -> None:
    where: dict[str, Any] = {"must": [{"key": "metadata.year", "match": {"value": 2001}}]}
    for _ in range(40):
        where = {"must": [where]}
    response = client.post("/v1/search", json={"query": "x", "where": where})
    assert problem(response) == (422, "invalid_request")
    assert "deep" in response.json()["errors"][0]["message"]


def test_stages_are_counted(client: httpx.Client) -> None:
    def count() -> float:
        page = client.get("/metrics").text
        line = next(
            line for line in page.splitlines() if line.startswith('retrieval_stage_seconds_count{stage="rerank"}')
        )
        return float(line.split()[-1])

    before = count()
    search(client, query=QUERY)
    search(client, queries=["a", "b"])
    assert count() - before == 3
