"""Generated requests against every operation: no 500, and each answer is one that the OpenAPI document describes.

`benchmarks/service_schema.py` sends thousands; here a few dozen for each operation, the same in every run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.schemas import APIOperation, BaseSchema

from pipelines import TwoStagePipeline
from pipelines.service import ServiceConfig
from pipelines.service.config import KeyConfig, LimitsConfig
from tests.service_thread import running

OPERATIONS = [
    ("POST", "/v1/search"),
    ("GET", "/v1/fields"),
    ("POST", "/v1/ingest"),
    ("GET", "/v1/ingest/{job}"),
    ("GET", "/v1/ingest/{job}/events"),
    ("POST", "/v1/documents/delete"),
    ("GET", "/v1/documents/{id}"),
    ("DELETE", "/v1/documents/{id}"),
    ("POST", "/v1/admin/reload"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/rerank"),
    ("POST", "/v2/rerank"),
    ("GET", "/v1/models/{name}"),
]
WITHOUT_INPUT = [
    ("GET", "/v1/index"),
    ("GET", "/v1/models"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
]
KEY = "a-key-that-may-do-everything-0123456789"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseSchema]:
    pipeline = TwoStagePipeline.open(tmp_path_factory.mktemp("schema") / "index")
    pipeline.ingest([("pipe", "copper pipe leak repair"), ("bread", "sour bread dough flour")])
    # Small bounds, so that generated requests reach them.
    limits = LimitsConfig(rerank_documents=5, inputs=5, queries=3, ids=5, top_k=10)
    keys = (KeyConfig(env="KEY", scopes=("read", "write", "admin")),)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KEY", KEY)
        with running(pipeline, ServiceConfig(access_log=False, limits=limits, keys=keys)) as url:
            yield schemathesis.openapi.from_url(f"{url}/openapi.json")


def test_the_document_has_these_operations(api: BaseSchema) -> None:
    found = [result.ok() for result in api.get_all_operations()]
    assert sorted((operation.method.upper(), operation.path) for operation in found) == sorted(
        OPERATIONS + WITHOUT_INPUT
    )


@pytest.mark.parametrize(("method", "path"), OPERATIONS + WITHOUT_INPUT)
def test_what_is_right_is_answered_as_described(api: BaseSchema, method: str, path: str) -> None:
    check(api[path][method], GenerationMode.POSITIVE)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_what_is_wrong_is_refused_as_described(api: BaseSchema, method: str, path: str) -> None:
    check(api[path][method], GenerationMode.NEGATIVE)


def check(operation: APIOperation[Any, Any, Any], mode: GenerationMode) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=8,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def answers(case: schemathesis.Case) -> None:
        case.call_and_validate(headers={"Authorization": f"Bearer {KEY}"})

    answers()
