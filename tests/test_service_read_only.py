"""A service that only reads: it searches beside the process that writes, follows it, and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from pipelines import TwoStagePipeline
from pipelines.render.serve import Started, render_started
from retrieval.datatypes import Document
from tests.service_app import ADMIN, KEY_CONFIG, KEYS, READ, WRITE, Process, bearer, service_config, small_config
from tests.service_thread import running
from tests.test_service_process import found, until

CHANGES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/v1/ingest", {"json": {"documents": [{"id": "a", "text": "copper"}]}}),
    ("POST", "/v1/ingest?wait=true", {"files": {"files": ("a.txt", b"copper")}}),
    ("POST", "/v1/documents/delete", {"json": {"ids": ["old"]}}),
    ("DELETE", "/v1/documents/old", {}),
]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[TwoStagePipeline]:
    """The pipeline that has the index open."""
    with TwoStagePipeline.open(tmp_path / "index", small_config()) as pipeline:
        pipeline.ingest([Document("old", "copper pipe of old")])
        pipeline.publish()
        yield pipeline


@pytest.fixture
def client(writer: TwoStagePipeline) -> Iterator[httpx.Client]:
    """A client of a service that reads beside the writer."""
    reader = TwoStagePipeline.open(writer.store.location, small_config(), read_only=True)
    with (
        running(reader, service_config(read_only=True)) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        yield client


def test_it_follows_the_process_that_writes(writer: TwoStagePipeline, client: httpx.Client) -> None:
    assert found(client, "copper") == ["old"]
    writer.ingest([Document("new", "copper pipe of new")])
    until(lambda: sorted(found(client, "copper")) == ["new", "old"])
    writer.delete(["old"])
    until(lambda: found(client, "copper") == ["new"])
    index = client.get("/v1/index").json()
    assert (index["documents"], index["scopes"]) == (1, ["admin", "read"])
    assert client.get("/v1/documents/new").json()["text"] == "copper pipe of new"
    assert client.get("/v1/documents/old").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "request_"), CHANGES, ids=[f"{change[0]} {change[1]}" for change in CHANGES]
)
def test_nothing_can_be_changed(client: httpx.Client, method: str, path: str, request_: dict[str, Any]) -> None:
    answer = client.request(method, path, **request_)
    assert (answer.status_code, answer.json()["code"]) == (403, "read_only")
    assert answer.json()["detail"] == (
        "this service only reads its index; send changes to the process that writes to it"
    )
    assert client.get("/v1/index").json()["documents"] == 1


def test_two_services_beside_one_that_writes(tmp_path: Path) -> None:
    """Three processes over one folder, from its first document on; keys keep what they may do, but for writing."""
    index = tmp_path / "index"
    settings = tmp_path / "service.yaml"
    settings.write_text(json.dumps({"service": {"keys": KEY_CONFIG}}), encoding="utf-8")
    options: tuple[Any, ...] = ("--config", settings)
    with (
        Process(index, *options, errors=tmp_path / "writer.log", environment=KEYS) as writer,
        Process(index, *options, "--read-only", errors=tmp_path / "1.log", environment=KEYS) as first,
        Process(index, *options, "--read-only", errors=tmp_path / "2.log", environment=KEYS) as second,
    ):
        assert [each.started["read_only"] for each in (writer, first, second)] == [False, True, True]
        stored = []
        for name in ("old", "new"):
            body = {"documents": [{"id": name, "text": f"copper pipe of {name}"}]}
            refused = first.client.post("/v1/ingest", json=body, headers=bearer(WRITE))
            assert (refused.status_code, refused.json()["code"]) == (403, "read_only")
            added = writer.client.post("/v1/ingest?wait=true", json=body, headers=bearer(WRITE))
            assert added.json()["report"]["added"] == 1
            stored.append(name)
            for reader in (first, second):
                until(lambda reader=reader: sorted(found(reader.client, "copper", **bearer(READ))) == sorted(stored))
        reloaded = first.client.post("/v1/admin/reload", json={}, headers=bearer(ADMIN))
        assert (reloaded.status_code, reloaded.json()["documents"]) == (200, 2)
        assert sorted(found(first.client, "copper", **bearer(READ))) == ["new", "old"]
        # The one that writes ends; those that read go on.
        assert writer.end() == 0
        assert sorted(found(second.client, "copper", **bearer(READ))) == ["new", "old"]
        assert first.end() == second.end() == 0


def test_the_console_says_that_it_only_reads(capsys: pytest.CaptureFixture[str]) -> None:
    started = Started(
        url="http://127.0.0.1:8000",
        playground=None,
        pid=1,
        index="index",
        documents=3,
        passages=4,
        updated="2026-11-22T09:00:00+00:00",
        encoder="starter-static@8060bde22c9a",
        reranker="off",
        workers=2,
        queue=64,
        keys=0,
        uploads="spool-folder",
        keeps_uploads=False,
        read_only=True,
    )
    render_started(Console(width=80), started)
    shown = " ".join(capsys.readouterr().out.split())
    assert "index: 3 documents, 4 passages, read-only as of 2026-11-22T09:00:00+00:00" in shown
    assert "whoever reaches the port may search" in shown
    assert "ingest" not in shown
    assert "spool-folder" not in shown
    assert "DELETE" not in shown
