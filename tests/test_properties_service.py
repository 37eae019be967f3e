"""Any body to any path of the service gets an answer below 500, in this process and without a socket."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.target_service import Client, require_answer
from pipelines import TwoStagePipeline
from pipelines.service import create_app
from retrieval.config import parse_config
from tests.properties import JSON, budget
from tests.service_app import service_config

HEADERS = [(b"host", b"localhost"), (b"content-type", b"application/json")]
PATHS = ("/v1/search", "/v1/embeddings", "/v1/rerank", "/v2/rerank", "/v1/documents/delete", "/v1/ingest")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    pipeline = TwoStagePipeline.open(config=parse_config({"store": {"kind": "memory"}}))
    pipeline.ingest([("pipe", "copper pipe leak repair"), ("bread", "sour bread dough flour")])
    made = Client(create_app(pipeline, service_config()))
    yield made
    made.close()


def test_what_is_right_is_answered(client: Client) -> None:
    body = b'{"query": "copper", "rerank": false}'
    status, answer = client.ask("POST", "/v1/search", b"", body, [*HEADERS, (b"content-length", b"%d" % len(body))])
    assert (status, json.loads(answer)["hits"][0]["document_id"]) == (200, "pipe")


@budget(120)
@given(path=st.sampled_from(PATHS), value=JSON)
def test_json_of_any_shape(path: str, value: object, client: Client) -> None:
    body = json.dumps(value).encode()
    status, answer = client.ask("POST", path, b"", body, [*HEADERS, (b"content-length", b"%d" % len(body))])
    assert 400 <= status < 500, f"{status} for {body!r}"
    assert "code" in json.loads(answer)


@budget(250)
@given(data=st.binary(max_size=300))
def test_requests_that_are_nearly_right_or_not_at_all(data: bytes, client: Client) -> None:
    require_answer(client, Choices(data))
