"""`/v1/rerank` and `/v2/rerank`: Cohere's own clients against a running service, and Jina's wire format."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cohere
import httpx
import numpy as np
import pytest

from pipelines import TwoStagePipeline
from pipelines.service import ServiceConfig
from pipelines.service.config import LimitsConfig
from pipelines.service.context import RequestContext
from pipelines.service.errors import ServiceError
from pipelines.service.routes.rerank import read_texts
from retrieval.config import Config, RerankConfig
from retrieval.models import find_model
from retrieval.rerankers import open_reranker
from tests.service_thread import running

QUERY = "how do I stop a leaking copper pipe"
DOCUMENTS = [
    "Knead the sour dough and let it rise over night.",
    "To stop a leaking copper pipe, solder the joint or put a clamp around it.",
    "A telescope gathers the light of distant galaxies.",
]
RERANKER = open_reranker(RerankConfig(), find_model("starter-reranker"))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> TwoStagePipeline:
    return TwoStagePipeline.open(tmp_path_factory.mktemp("rerank") / "index")


@pytest.fixture(scope="module")
def url(pipeline: TwoStagePipeline) -> Iterator[str]:
    limits = LimitsConfig(rerank_documents=40, document_characters=20_000, query_characters=100)
    config = ServiceConfig(access_log=False, rerank_names=("rerank-v3.5",), limits=limits)
    with running(pipeline, config) as address:
        yield address


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    # Cohere's clients leave their own connections open.
    with httpx.Client() as client:
        yield client


def probability(text: str) -> float:
    fitted = json.loads((find_model("starter-reranker") / "calibration.json").read_text())["passages"]
    logit = np.float64(RERANKER.score(QUERY, [text])[0])
    return float(1 / (1 + np.exp(-(fitted["slope"] * logit + fitted["intercept"]))))


def post(url: str, body: Any, path: str = "/v1/rerank") -> httpx.Response:
    return httpx.post(url + path, json=body)


def test_cohere_client_of_the_second_version(url: str, http: httpx.Client) -> None:
    client = cohere.ClientV2(api_key="none", base_url=url, httpx_client=http)
    answer = client.rerank(model="starter-reranker", query=QUERY, documents=DOCUMENTS, top_n=2)
    assert answer.results[0].index == 1
    assert len(answer.results) == 2
    for result in answer.results:
        assert result.relevance_score == pytest.approx(probability(DOCUMENTS[result.index]), abs=1e-6)
    assert answer.results[0].relevance_score > 0.5 > answer.results[1].relevance_score
    assert answer.id
    assert answer.meta is not None
    assert answer.meta.api_version is not None
    assert answer.meta.billed_units is not None
    assert (answer.meta.api_version.version, answer.meta.billed_units.search_units) == ("2", 1)


def test_cohere_client_of_the_first_version_with_objects(url: str, http: httpx.Client) -> None:
    client = cohere.Client(api_key="none", base_url=url, httpx_client=http)
    documents = [{"title": "Repair", "body": text} for text in DOCUMENTS]
    answer = client.rerank(
        model="rerank-v3.5", query=QUERY, documents=documents, rank_fields=["body"], return_documents=True
    )
    assert sorted(result.index for result in answer.results) == [0, 1, 2]
    assert answer.results[0].index == 1
    assert answer.results[0].relevance_score == pytest.approx(probability(DOCUMENTS[1]), abs=1e-6)
    both = client.rerank(query=QUERY, documents=documents, rank_fields=["title", "missing", "body"])
    assert both.results[0].relevance_score == pytest.approx(probability(f"Repair\n{DOCUMENTS[1]}"), abs=1e-6)


def test_cohere_client_sees_the_reason_of_a_refusal(url: str, http: httpx.Client) -> None:
    client = cohere.ClientV2(api_key="none", base_url=url, httpx_client=http)
    with pytest.raises(cohere.NotFoundError, match="'other' is not served here; served: 'starter-reranker', 'rerank"):
        client.rerank(model="other", query=QUERY, documents=DOCUMENTS)
    with pytest.raises(cohere.UnprocessableEntityError, match="at least 1 item"):
        client.rerank(model="starter-reranker", query=QUERY, documents=[])


def test_jinas_wire_format(url: str) -> None:
    asked = {"model": "starter-reranker", "query": QUERY, "documents": [*DOCUMENTS, {"text": "Pipe"}], "top_n": 3}
    answer = post(url, asked).json()
    assert answer["model"] == "starter-reranker"
    assert answer["object"] == "list"
    assert [set(result) for result in answer["results"]] == [{"index", "relevance_score", "document"}] * 3
    assert answer["results"][0]["document"] == {"text": DOCUMENTS[1]}
    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 4 * 8
    bare = post(url, {**asked, "return_documents": False}).json()
    assert [set(result) for result in bare["results"]] == [{"index", "relevance_score"}] * 3


def test_equal_documents_keep_their_order_and_more_is_not_made_up(url: str) -> None:
    results = post(url, {"query": QUERY, "documents": ["same", "same", DOCUMENTS[1], "same"], "top_n": 99}).json()
    assert [result["index"] for result in results["results"]] == [2, 0, 1, 3]


def test_batches_change_nothing(url: str) -> None:
    documents = [f"{text} {number}" for number in range(13) for text in DOCUMENTS]
    results = post(url, {"query": QUERY, "documents": documents}).json()["results"]
    assert len(results) == len(documents) == 39
    for result in (results[0], results[20], results[-1]):
        assert result["relevance_score"] == pytest.approx(probability(documents[result["index"]]), abs=1e-6)


def test_the_closest_stretch_of_a_long_document_is_read(url: str) -> None:
    padding = "The telescope gathers light from a galaxy. " * 120
    long = f"{padding}{DOCUMENTS[1]} {padding}"
    found, beginning = post(url, {"query": QUERY, "documents": [long, padding]}).json()["results"]
    assert found["index"] == 0
    assert found["relevance_score"] > 0.2 > beginning["relevance_score"]
    few = post(url, {"query": QUERY, "documents": [long], "max_tokens_per_doc": 2}).json()
    assert few["results"][0]["relevance_score"] < found["relevance_score"]
    assert few["usage"]["total_tokens"] <= len(QUERY.split()) + 4


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 422, "query"),
        ({"query": "", "documents": ["a"]}, 422, "at least 1 character"),
        ({"query": QUERY, "documents": []}, 422, "at least 1 item"),
        ({"query": QUERY, "documents": "text"}, 422, "valid list"),
        ({"query": QUERY, "documents": [1]}, 422, "valid string"),
        ({"query": QUERY, "documents": ["a"], "top_n": 0}, 422, "greater than or equal to 1"),
        ({"query": QUERY, "documents": ["a"], "unknown": 1}, 422, "unknown"),
        ({"query": QUERY, "documents": ["a"], "model": "x"}, 404, "'x' is not served here"),
        ({"query": "q" * 101, "documents": ["a"]}, 422, "101 is more than 100"),
        ({"query": QUERY, "documents": ["a"] * 41}, 422, "41 is more than 40"),
        ({"query": QUERY, "documents": ["a", "b" * 20_001]}, 422, "20,001 characters is more than 20,000"),
    ],
)
def test_what_cannot_be_reranked_is_said(url: str, path: str, body: Any, status: int, said: str) -> None:
    answer = post(url, body, path)
    assert answer.status_code == status, answer.text
    assert said in answer.text


def test_objects_have_a_text_unless_other_fields_are_named(url: str) -> None:
    answer = post(url, {"query": QUERY, "documents": [{"title": "a"}]})
    assert answer.status_code == 422
    assert "no field 'text'; rank_fields names others" in answer.text
    assert post(url, {"query": QUERY, "documents": [{"text": "a"}]}, "/v2/rerank").status_code == 422
    named = {"query": QUERY, "documents": [{"title": "a"}, {"body": DOCUMENTS[1]}], "rank_fields": ["body"]}
    best, empty = post(url, named).json()["results"]
    assert (best["index"], best["document"]) == (1, {"body": DOCUMENTS[1]})
    assert empty["relevance_score"] == pytest.approx(probability(""), abs=1e-6)


def test_reading_ends_when_the_time_is_over(pipeline: TwoStagePipeline) -> None:
    over = RequestContext("id", deadline=time.monotonic() - 1)
    with pytest.raises(ServiceError, match="0 of 3 documents") as caught:
        read_texts(pipeline, QUERY, DOCUMENTS, None, over)
    assert caught.value.status_code == 504


def test_without_a_calibration_the_score_is_the_sigmoid(tmp_path: Path) -> None:
    shutil.copytree(find_model("starter-reranker"), tmp_path / "model", ignore=lambda *_: ["calibration.json"])
    config = Config(rerank=RerankConfig(model=str(tmp_path / "model")))
    with TwoStagePipeline.open(tmp_path / "index", config) as pipeline:
        read = read_texts(pipeline, QUERY, DOCUMENTS, None, RequestContext("r", time.monotonic() + 60))
    logits = np.float64(RERANKER.score(QUERY, DOCUMENTS))
    assert read.scores == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-6)
