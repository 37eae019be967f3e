"""Keys and passwords stand in no message, log line or ``--json``, whatever goes wrong with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from pipelines.cli import build_app
from retrieval.config import parse_config
from retrieval.errors import ConfigError, StoreError
from retrieval.stores.server import ServerStore
from tests.conftest import paper_corpus
from tests.qdrant_stub import Qdrant, running
from tests.service_app import Process

SECRET = "hunter2-correct-horse-battery"
OTHER = "another-secret-0123456789"


@pytest.fixture
def qdrant() -> Iterator[Qdrant]:
    with running(Qdrant()) as server:
        yield server


def run(*words: object) -> str:
    """Everything that a command writes, which has to be something."""
    result = CliRunner().invoke(build_app(), [str(word) for word in words])
    assert result.output
    return result.output


def cause_of(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ({"url": f"https://me:{SECRET}@qdrant.example"}, r"store\.url: holds a name or a password; .*api_key_env$"),
        ({"url": f"https://{SECRET}@qdrant.example:6333/x"}, r"store\.url: holds a name or a password"),
        ({"api_key_env": SECRET}, r"store\.api_key_env: not the name of an environment variable; .*its name here$"),
        ({"tls_key_env": f"-----BEGIN {SECRET}"}, r"store\.tls_key_env: not the name of an environment variable"),
        ({"api_key": SECRET}, r"unknown key store\.api_key; allowed here: api_key_env"),
    ],
)
def test_a_secret_in_the_configuration_is_refused_and_not_repeated(store: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_config({"store": {"kind": "server", **store}})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("url", ["http://localhost:6333", "https://h/@path", "https://qdrant.example:443"])
def test_a_plain_url_is_taken(url: str) -> None:
    store = parse_config({"store": {"kind": "server", "url": url, "api_key_env": "QDRANT_API_KEY"}}).store
    assert (store.kind, getattr(store, "url", None)) == ("server", url)


def test_a_service_key_written_into_the_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "service.yaml"
    file.write_text(f"service:\n  keys:\n    - env: {SECRET}\n")
    output = run("serve", "--config", file, "--index", tmp_path / "index", "--json")
    assert "not the name of an environment variable" in output
    assert SECRET not in output


@pytest.mark.parametrize("words", [["doctor"], ["search", "tides"], ["info"], ["push"], ["snapshot", "list"]])
@pytest.mark.parametrize("json_too", [False, True])
def test_a_server_that_repeats_the_key_is_not_quoted(
    qdrant: Qdrant, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], json_too: bool
) -> None:
    monkeypatch.setenv("BOOKS_KEY", SECRET)
    for path in ("GET /aliases", "GET /", "GET /collections", "GET /collections/books/aliases", "GET /snapshots"):
        qdrant.fail(path, *[401] * 9, body=f"key {SECRET} is not known".encode())
    file = tmp_path / "server.yaml"
    file.write_text(f"store: {{kind: server, url: '{qdrant.url}', collection: books, api_key_env: BOOKS_KEY}}\n")
    extra: list[object] = ["--index", tmp_path / "index"] if words == ["push"] else []
    output = run(*words, "--config", file, *extra, *(["--json"] if json_too else []))
    assert SECRET not in output


def test_what_the_server_repeats_is_told_by_the_name_of_the_variable(
    qdrant: Qdrant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOKS_KEY", SECRET)
    qdrant.fail("GET /aliases", 401, body=f"key {SECRET} is not known".encode())
    store = {"kind": "server", "url": qdrant.url, "collection": "books", "api_key_env": "BOOKS_KEY"}
    with pytest.raises(StoreError, match=r"key \$BOOKS_KEY is not known") as caught:
        ServerStore(parse_config({"store": store}), dim=4)
    assert SECRET not in str(caught.value)


def test_a_service_writes_its_keys_nowhere(tmp_path: Path) -> None:
    config = tmp_path / "service.yaml"
    config.write_text("service:\n  keys:\n    - {env: BOOKS_READ, scopes: [read, write, admin]}\n")
    environment = {"BOOKS_READ": SECRET}
    errors = tmp_path / "log"
    with Process(tmp_path / "index", "--config", config, errors=errors, environment=environment) as service:
        heads: list[dict[str, str]] = [
            {"Authorization": f"Bearer {SECRET}"},
            {"Authorization": f"Bearer {OTHER}"},
            {"Authorization": f"Basic {SECRET}"},
            {"X-Request-Id": SECRET + "!", "Authorization": f"Bearer {SECRET}"},
        ]
        answers: list[httpx.Response] = []
        for head in heads:
            documents = [{"id": document.id, "text": document.text} for document in paper_corpus()[:2]]
            answers += [
                service.client.get("/v1/index", headers=head),
                service.client.get("/metrics", headers=head),
                service.client.post("/v1/ingest?wait=true", json={"documents": documents}, headers=head),
                service.client.post("/v1/search", json={"query": 3}, headers=head),
                service.client.post("/v1/search", content=b"{", headers={**head, "Content-Type": "application/json"}),
                service.client.post("/v1/admin/reload", json={"index": "none"}, headers=head),
                service.client.get(f"/no/such/{OTHER}", headers=head),
            ]
        assert {200, 401} < {answer.status_code for answer in answers}
        told = "".join(answer.text + str(answer.headers) for answer in answers)
        assert service.end() == 0
        started = json.dumps(service.started)
    kept = "".join(path.read_bytes().decode("latin-1") for path in (tmp_path / "index").rglob("*") if path.is_file())
    log = errors.read_text(encoding="utf-8")
    assert '"key":"BOOKS_READ"' in log
    for secret in (SECRET, OTHER):
        assert secret not in told + log + started + kept
