"""The service over a Qdrant server: the same answers, tenants in the index, and a server that fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from retrieval.config import Config, parse_config
from tests.conftest import paper_corpus
from tests.qdrant_double import QdrantDouble
from tests.service_app import bearer, client_of, service_config

A, B = "tenant-a-key-0123456789abcdef", "tenant-b-key-0123456789abcdef"


@pytest.fixture(scope="module")
def qdrant() -> Iterator[QdrantDouble]:
    with QdrantDouble() as qdrant:
        yield qdrant


def settings(qdrant: QdrantDouble, collection: str, **store: Any) -> Config:
    values = {"kind": "server", "url": qdrant.url, "collection": collection, "retries": 0, **store}
    return parse_config({"store": values})


@pytest.fixture(scope="module")
def client(qdrant: QdrantDouble) -> Iterator[httpx.Client]:
    with client_of(Path("unused"), paper_corpus(), service_config(), settings(qdrant, "search")) as client:
        yield client


def hits(client: httpx.Client, query: str, key: str | None = None) -> list[str]:
    body = {"query": query, "first_stage": "bm25", "rerank": False}
    response = client.post("/v1/search", json=body, headers={} if key is None else bearer(key))
    assert response.status_code == 200, response.text
    return [hit["document_id"] for hit in response.json()["hits"]]


def test_search_ingest_and_delete_go_to_the_server(client: httpx.Client) -> None:
    assert hits(client, "copper pipe leak plumber") == ["pipe-1", "pipe-2", "pipe-3", "pipe-4"]
    documents = [{"id": "a/b", "text": "okapi at dawn", "metadata": {"n": 1}}]
    added = client.post("/v1/ingest?wait=true", json={"documents": documents}).json()
    assert (added["state"], added["report"]["added"]) == ("done", 1)
    assert hits(client, "okapi") == ["a/b"]
    shown = client.get("/v1/documents/a%2Fb").json()
    assert (shown["text"], shown["metadata"], shown["source"]) == ("okapi at dawn", {"n": 1}, "upload:///id/a/b")
    assert client.delete("/v1/documents/a%2Fb").json() == {"removed": 1}
    assert hits(client, "okapi") == []


def test_a_server_that_fails_is_told_as_503_and_not_as_what_it_said(client: httpx.Client, qdrant: QdrantDouble) -> None:
    qdrant.fail(r"points/(query|search)", status=500, times=50)
    response = client.post("/v1/search", json={"query": "copper"})
    qdrant.faults.clear()
    assert (response.status_code, response.json()["code"]) == (503, "store_failed")
    assert int(response.headers["retry-after"]) >= 1
    assert qdrant.url not in response.text
    assert "fault on" not in response.text
    assert client.get("/ready").status_code == 200
    assert hits(client, "vanilla") == ["bread-4"]


def test_a_failed_ingest_is_told_and_done_again_when_it_is_sent_again(
    client: httpx.Client, qdrant: QdrantDouble
) -> None:
    body = {"documents": [{"id": f"w{number}", "text": f"walrus {number}"} for number in range(3)]}
    qdrant.fail(r"PUT .*/points", status=500, times=50)
    failed = client.post("/v1/ingest?wait=true", json=body)
    qdrant.faults.clear()
    assert (failed.status_code, failed.json()["code"]) == (503, "store_failed")
    job = client.get(failed.headers["location"]).json()
    assert (job["state"], job["error"]["status"]) == ("failed", 503)
    again = client.post("/v1/ingest?wait=true", json=body).json()
    assert again["report"]["added"] + again["report"]["unchanged"] == 3
    assert sorted(hits(client, "walrus")) == ["w0", "w1", "w2"]


def test_tenants_stand_in_the_field_that_the_store_indexes(
    qdrant: QdrantDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", A)
    monkeypatch.setenv("B_KEY", B)
    keys = [
        {"env": "A_KEY", "scopes": ["read", "write"], "tenant": "a"},
        {"env": "B_KEY", "scopes": ["read", "write"], "tenant": "b"},
    ]
    config = settings(qdrant, "tenants", tenant_field="metadata.access.team")
    with client_of(Path("unused"), (), service_config(keys=keys), config) as client:
        for key, animal in ((A, "zebra"), (B, "okapi")):
            body = {"documents": [{"id": "same", "text": f"{animal} plain"}]}
            assert client.post("/v1/ingest?wait=true", json=body, headers=bearer(key)).status_code == 200
        assert (hits(client, "plain zebra okapi", A), hits(client, "okapi", A)) == (["same"], [])
        shown = client.get("/v1/documents/same", headers=bearer(B)).json()
        assert (shown["text"], shown["metadata"]) == ("okapi plain", {"access": {"team": "b"}})
        assert client.delete("/v1/documents/same", headers=bearer(A)).json() == {"removed": 1}
        assert hits(client, "okapi", B) == ["same"]
