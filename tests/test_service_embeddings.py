"""`/v1/embeddings` and `/v1/models`: OpenAI's own client against a running service, and the edges of the format."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from pipelines import TwoStagePipeline
from pipelines.service import ServiceConfig
from pipelines.service.config import KeyConfig, LimitsConfig
from pipelines.service.routes.embeddings import INLINE_CHARACTERS
from retrieval.config import EncoderConfig
from retrieval.models import open_encoder
from tests.service_thread import running

TEXTS = ["pipe not broken but leaking", "sour bread dough", "Ünïcödé \U0001f600 \x00 nul"]
READ, WRITE = "a-key-that-reads-0123456789", "a-key-that-writes-0123456789"
ENCODER = open_encoder(EncoderConfig())


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("embeddings")
    config = ServiceConfig(
        access_log=False,
        embedding_names=("text-embedding-3-small",),
        limits=LimitsConfig(inputs=300, input_characters=5_000),
    )
    with running(TwoStagePipeline.open(folder / "index"), config) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as one:
        yield one


def post(url: str, body: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"{url}/v1/embeddings", content=content, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_openai_client_gets_the_vectors_of_the_encoder(client: openai.OpenAI, encoding: Any) -> None:
    arguments = {} if encoding is None else {"encoding_format": encoding}
    answer = client.embeddings.create(model="starter-static", input=TEXTS, **arguments)
    assert [one.index for one in answer.data] == [0, 1, 2]
    vectors = [one.embedding for one in answer.data]
    if encoding == "base64":
        # Asked for by name, the client hands it over as it came.
        vectors = [np.frombuffer(base64.b64decode(str(one)), "<f4").tolist() for one in vectors]
    np.testing.assert_array_equal(np.array(vectors, np.float32), ENCODER.encode_documents(TEXTS))
    assert answer.model == "starter-static"
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(map(ENCODER.count_tokens, TEXTS))


def test_one_text_and_the_same_in_a_list_are_the_same(url: str) -> None:
    [alone, listed] = [post(url, {"input": text, "model": "starter-static"}) for text in (TEXTS[0], TEXTS[:1])]
    assert alone.status_code == 200
    assert alone.headers["content-type"] == "application/json"
    assert alone.content == listed.content
    assert alone.headers["x-request-id"]
    assert alone.headers["x-content-type-options"] == "nosniff"


def test_numbers_on_the_wire_are_the_shortest_that_give_the_same_float32(url: str) -> None:
    [entry] = post(url, {"input": TEXTS[0]}).json()["data"]
    np.testing.assert_array_equal(np.array(entry["embedding"], np.float32), ENCODER.encode_queries(TEXTS[:1])[0])
    assert max(len(repr(number)) for number in entry["embedding"]) < 18


@pytest.mark.parametrize("dimensions", [1, 64, 256])
def test_dimensions_are_the_first_ones_at_unit_length(client: openai.OpenAI, dimensions: int) -> None:
    answer = client.embeddings.create(model="starter-static", input=TEXTS, dimensions=dimensions)
    vectors = np.array([one.embedding for one in answer.data], np.float32)
    assert vectors.shape == (3, dimensions)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    cut = open_encoder(EncoderConfig(dimensions=dimensions)).encode_documents(TEXTS)
    np.testing.assert_allclose(vectors, cut, atol=1e-6)


def test_texts_for_the_worker_and_for_the_event_loop_get_the_same_vectors(client: openai.OpenAI) -> None:
    many = [f"{text} {number}" for number in range(80) for text in TEXTS]
    assert sum(map(len, many)) > INLINE_CHARACTERS
    together = client.embeddings.create(model="starter-static", input=many)
    alone = client.embeddings.create(model="starter-static", input=many[7])
    np.testing.assert_array_equal([one.embedding for one in together.data], ENCODER.encode_documents(many))
    assert together.data[7].embedding == alone.data[0].embedding


def test_a_text_without_a_known_word_has_a_vector_of_zeros(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="starter-static", input=" \u16a0\u16b1 ", dimensions=3)
    assert answer.data[0].embedding == [0.0, 0.0, 0.0]


def test_another_model_is_refused_and_further_names_are_not(client: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.NotFoundError, match=r"'ada' is not served here; served: 'starter-static'") as caught:
        client.embeddings.create(model="ada", input="text")
    assert caught.value.code == "model_not_found"
    assert client.embeddings.create(model="text-embedding-3-small", input="text").model == "starter-static"
    assert post(url, {"input": "text"}).status_code == 200


@pytest.mark.parametrize("tokens", [[1, 2, 3], [[1, 2], [3]]])
def test_token_numbers_are_refused_with_the_remedy(client: openai.OpenAI, tokens: Any) -> None:
    with pytest.raises(openai.BadRequestError, match=r"not token numbers.*check_embedding_ctx_length=False"):
        client.embeddings.create(model="starter-static", input=tokens)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b'{"input": "\xff"}', 400, "not JSON"),
        (b'{"input": "\\ud800"}', 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b'{"input": NaN}', 400, "not JSON"),
        ([], 422, "body"),
        ({}, 422, "input"),
        ({"input": None}, 422, "input"),
        ({"input": ""}, 422, "at least 1 character"),
        ({"input": []}, 422, "at least 1 item"),
        ({"input": ["a", ""]}, 422, "at least 1 character"),
        ({"input": ["a", 1]}, 422, "valid string"),
        ({"input": {"a": "b"}}, 422, "valid list"),
        ({"input": "a", "dimensions": 0}, 422, "greater than or equal to 1"),
        ({"input": "a", "dimensions": True}, 422, "dimensions"),
        ({"input": "a", "dimensions": 257}, 400, "dimensions is 1 to 256 for starter-static, not 257"),
        ({"input": "a", "encoding_format": "hex"}, 422, "encoding_format"),
        ({"input": "a", "unknown": 1}, 422, "unknown"),
        ({"input": ["a"] * 301}, 422, "301 is more than 300"),
        ({"input": "a" * 5_001}, 422, "5,001 is more than 5,000"),
        ({"input": ["b", "a" * 5_001]}, 422, "5,001 is more than 5,000"),
    ],
)
def test_what_cannot_be_encoded_is_said(url: str, body: Any, status: int, said: str) -> None:
    answer = post(url, body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.text


def test_limits_count_each_text_and_not_their_sum(url: str) -> None:
    assert len(post(url, {"input": ["a" * 5_000] * 3, "dimensions": 2.0}).json()["data"]) == 3


def test_the_body_never_comes_back_in_an_error(url: str) -> None:
    assert "secret" not in post(url, {"input": {"secret": "secret"}}).text
    assert "secret" not in post(url, b'{"input": "secret').text


def test_keys_and_scopes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_READ", READ)
    monkeypatch.setenv("KEY_WRITE", WRITE)
    keys = (KeyConfig(env="KEY_READ"), KeyConfig(env="KEY_WRITE", scopes=("write",)))
    pipeline = TwoStagePipeline.open(tmp_path / "index")
    with running(pipeline, ServiceConfig(access_log=False, keys=keys)) as url:

        def ask(key: str) -> int:
            with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
                return len(client.embeddings.create(model="starter-static", input="text").data)

        assert ask(READ) == 1
        with pytest.raises(openai.PermissionDeniedError, match="may not read"):
            ask(WRITE)
        with pytest.raises(openai.AuthenticationError, match="not known"):
            ask("another-key-0123456789")
        assert post(url, {"input": "text"}).status_code == 401


def test_models_are_listed_with_their_further_names(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["starter-static", "text-embedding-3-small", "starter-reranker"]
    assert client.models.retrieve("starter-reranker").object == "model"
    with pytest.raises(openai.NotFoundError, match="'some/model' is not served here"):
        client.models.retrieve("some/model")


def test_all_ways_come_to_the_same_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies: list[Any] = [
        {"input": TEXTS, "dimensions": 5},
        {"input": "text", "encoding_format": "base64"},
        {"input": ["long " * 1000]},
        {"input": [1]},
        {"input": ""},
        {"input": "text", "model": "ada"},
        b"{",
    ]
    with running(TwoStagePipeline.open(tmp_path / "shortcut")) as url:
        shortcut = [post(url, body) for body in bodies]
    with running(TwoStagePipeline.open(tmp_path / "door"), http="httptools") as url:
        door = [post(url, body) for body in bodies]
    monkeypatch.setattr("pipelines.service.app._FAST", {})
    with running(TwoStagePipeline.open(tmp_path / "route"), http="httptools") as url:
        route = [post(url, body) for body in bodies]
    assert [answer.status_code for answer in shortcut] == [200, 200, 200, 400, 422, 404, 400]
    for first, second, third in zip(shortcut, door, route, strict=True):
        assert comparable(first) == comparable(second) == comparable(third)


def comparable(answer: httpx.Response) -> tuple[Any, ...]:
    assert len(answer.headers.pop("x-request-id")) == 32
    answer.headers.pop("date")
    return answer.status_code, dict(answer.headers), {**answer.json(), "request_id": ""}
