"""Who may do what: keys, scopes, tenants, and which pages and names are answered without keys."""

from __future__ import annotations

from collections.abc import Iterator
from hmac import compare_digest
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.service import auth
from pipelines.service.auth import ANONYMOUS, Keys
from pipelines.service.config import KeyConfig
from pipelines.service.errors import ServiceError
from pipelines.service.origins import is_loopback
from pipelines.service.server import require_safe
from retrieval.errors import ConfigError
from tests.conftest import paper_corpus
from tests.service_app import (
    ADMIN,
    KEY_CONFIG,
    KEYS,
    READ,
    WRITE,
    bearer,
    client_of,
    service_config,
    small_config,
)

TENANT_A = "tenant-a-key-0123456789abcdef"
TENANT_B = "tenant-b-key-0123456789abcdef"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    tenants = [
        {"env": "TEST_A_KEY", "scopes": ["read", "write"], "tenant": "a"},
        {"env": "TEST_B_KEY", "scopes": ["read", "write"], "tenant": "b"},
    ]
    with pytest.MonkeyPatch.context() as patch:
        for name, key in {**KEYS, "TEST_A_KEY": TENANT_A, "TEST_B_KEY": TENANT_B}.items():
            patch.setenv(name, key)
        index = tmp_path_factory.mktemp("keys") / "index"
        with client_of(index, paper_corpus(), service_config(keys=[*KEY_CONFIG, *tenants])) as client:
            yield client


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/search", {READ, WRITE}),
        ("GET", "/v1/documents/none", {READ, WRITE}),
        ("DELETE", "/v1/documents/none", {WRITE}),
        ("POST", "/v1/documents/delete", {WRITE}),
        ("POST", "/v1/ingest", {WRITE}),
        ("GET", "/v1/ingest/" + "0" * 32, {WRITE}),
        ("GET", "/v1/ingest/" + "0" * 32 + "/events", {WRITE}),
        ("POST", "/v1/admin/reload", {ADMIN}),
        ("GET", "/metrics", {READ, WRITE}),
    ],
)
def test_each_path_needs_its_scope(client: httpx.Client, method: str, path: str, allowed: set[str]) -> None:
    json = {} if method == "POST" else None
    for key in (READ, WRITE, ADMIN):
        response = client.request(method, path, headers=bearer(key), json=json)
        if key in allowed:
            assert response.status_code not in {401, 403}, response.text
        else:
            assert (response.status_code, response.json()["code"]) == (403, "scope_missing")
            assert "insufficient_scope" in response.headers["www-authenticate"]


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        f"Basic {READ}",
        READ,
        f"Bearer {READ}x",
        f"Bearer {READ[:-1]}",
        f"Bearer {READ.upper()}",
        "Bearer \xff\xfe",
    ],
)
@pytest.mark.parametrize("path", ["/v1/search", "/metrics", "/v1/embeddings", "/no/such/path"])
def test_without_a_known_key_nothing_is_told(client: httpx.Client, authorization: str | None, path: str) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    method = "GET" if path == "/metrics" else "POST"
    response = client.request(method, path, headers=headers)
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/health", "/ready", "/openapi.json"])
def test_some_paths_need_no_key(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 200


def test_every_key_is_compared_whichever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys([KeyConfig(env=name) for name in KEYS], KEYS)
    compared: list[bytes] = []

    def compare(given: bytes, known: bytes) -> bool:
        compared.append(known)
        return compare_digest(given, known)

    monkeypatch.setattr(auth.hmac, "compare_digest", compare)
    for name, key in KEYS.items():
        compared.clear()
        assert keys.authenticate(f"bearer {key}".encode()).name == name
        assert len(compared) == len(KEYS)
    compared.clear()
    with pytest.raises(ServiceError, match="not known"):
        keys.authenticate(b"Bearer something-else-altogether")
    assert len(compared) == len(KEYS)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "KEY_1 is not set"),
        ({"KEY_1": ""}, "KEY_1 is not set"),
        ({"KEY_1": "short"}, "KEY_1 holds no usable key"),
        ({"KEY_1": "with blanks in it, and long enough"}, "KEY_1 holds no usable key"),
        ({"KEY_1": "schlüssel-lang-genug"}, "KEY_1 holds no usable key"),
        ({"KEY_1": READ, "KEY_2": READ}, "KEY_2 holds the same key"),
    ],
)
def test_unusable_keys_are_told_at_the_start(environment: dict[str, str], message: str) -> None:
    configs = [KeyConfig(env=name) for name in ("KEY_1", "KEY_2")]
    with pytest.raises(ConfigError, match=message) as caught:
        Keys(configs, {"KEY_2": WRITE, **environment})
    assert all(key not in str(caught.value) for key in environment.values() if key)


def test_without_keys_everybody_is_the_same() -> None:
    assert Keys([]).authenticate(None) is ANONYMOUS
    assert Keys([]).authenticate(b"Bearer whatever") is ANONYMOUS


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("api.localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.org", False),
        ("localhost.example.org", False),
    ],
)
def test_which_hosts_are_this_machine(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_other_machines_are_served_with_keys_or_when_told_so() -> None:
    with pytest.raises(ConfigError, match="no keys are configured"):
        require_safe(service_config(host="0.0.0.0"))
    require_safe(service_config(host="0.0.0.0", insecure=True))
    require_safe(service_config(host="0.0.0.0", keys=KEY_CONFIG))
    require_safe(service_config(host="localhost"))


@pytest.fixture(scope="module")
def open_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    config = service_config(cors_origins=["https://app.example"], allowed_hosts=["search.example"])
    with client_of(tmp_path_factory.mktemp("open") / "index", (), config) as client:
        yield client


def test_a_page_from_elsewhere_cannot_write_to_a_service_without_keys(open_client: httpx.Client) -> None:
    # What a form on any page can send without asking the browser first.
    files = {"files": ("a.txt", b"planted", "text/plain")}
    refused = open_client.post("/v1/ingest?wait=true", files=files, headers={"Origin": "https://evil.example"})
    assert (refused.status_code, refused.json()["code"]) == (403, "foreign_origin")
    assert open_client.get("/v1/documents/a.txt").status_code == 404
    allowed = open_client.post("/v1/ingest?wait=true", files=files, headers={"Origin": "https://app.example"})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert open_client.get("/v1/documents/a.txt").status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("[::1]:80", 200),
        ("search.example", 200),
        ("SEARCH.example:443", 200),
        ("rebound.example", 421),
        ("127.0.0.1.evil.example", 421),
    ],
)
def test_names_that_an_attacker_points_here_are_not_answered(open_client: httpx.Client, host: str, status: int) -> None:
    assert open_client.get("/health", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000", 200),
        ("http://localhost:8000", "localhost:8000", 200),
        ("http://[::1]:8000", "[::1]:8000", 200),
        ("https://search.example", "search.example", 200),
        ("http://127.0.0.1:9000", "127.0.0.1:8000", 403),  # another program of this machine
        ("http://localhost:8000", "127.0.0.1:8000", 403),
        ("http://192.0.2.7:8000", "192.0.2.7:8000", 403),
        ("http://rebound.example", "rebound.example", 403),
        ("file://127.0.0.1:8000", "127.0.0.1:8000", 403),
        ("null", "127.0.0.1:8000", 403),
    ],
)
def test_our_own_page_may_call(open_client: httpx.Client, origin: str, host: str, status: int) -> None:
    headers = {"Origin": origin, "Host": host}
    assert open_client.post("/v1/search", json={"query": "a"}, headers=headers).status_code == status


@pytest.mark.parametrize(
    ("host", "status"), [("192.0.2.7:8000", 200), ("[2001:db8::7]:8000", 200), ("rebound.example:8000", 403)]
)
def test_open_to_other_machines_a_page_is_ours_by_its_address_but_not_by_any_name(
    tmp_path: Path, host: str, status: int
) -> None:
    with client_of(tmp_path / "index", (), service_config(host="127.0.0.1", insecure=True)) as client:
        headers = {"Origin": f"http://{host}", "Host": host}
        assert client.post("/v1/search", json={"query": "a"}, headers=headers).status_code == status


def test_only_named_origins_pass_the_browser_s_question(open_client: httpx.Client) -> None:
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    named = open_client.options("/v1/search", headers={"Origin": "https://app.example", **ask})
    assert (named.status_code, named.headers["access-control-allow-origin"]) == (200, "https://app.example")
    other = open_client.options("/v1/search", headers={"Origin": "https://evil.example", **ask})
    assert other.status_code == 400
    assert "access-control-allow-origin" not in other.headers


def test_with_keys_no_origin_is_named_by_default(client: httpx.Client) -> None:
    response = client.get("/health", headers={"Origin": "https://app.example"})
    assert not [name for name in response.headers if name.startswith("access-control")]


def ingest(client: httpx.Client, key: str, **document: Any) -> None:
    response = client.post("/v1/ingest?wait=true", json={"documents": [document]}, headers=bearer(key))
    assert response.status_code == 200, response.text
    assert response.json()["report"]["rejected"] == []


def found(client: httpx.Client, key: str, query: str, **options: Any) -> list[str]:
    body = {"query": query, "first_stage": "bm25", "rerank": False, "group_by": "passage", **options}
    response = client.post("/v1/search", json=body, headers=bearer(key))
    assert response.status_code == 200, response.text
    return [hit["text"] for hit in response.json()["hits"]]


def test_a_tenant_sees_and_changes_only_what_is_its_own(client: httpx.Client) -> None:
    # The same id twice, and each tries to write for the other.
    ingest(client, TENANT_A, id="plan", text="zebra of tenant one", metadata={"tenant": "b", "n": 1})
    ingest(client, TENANT_B, id="plan", text="zebra of tenant two", metadata={"tenant": "a"})
    assert found(client, TENANT_A, "zebra") == ["zebra of tenant one"]
    assert found(client, TENANT_B, "zebra") == ["zebra of tenant two"]
    assert sorted(found(client, READ, "zebra")) == ["zebra of tenant one", "zebra of tenant two"]
    assert found(client, TENANT_A, "copper pipe leak") == []
    others = {"should": [{"key": "metadata.tenant", "match": {"value": "b"}}]}
    assert found(client, TENANT_A, "zebra", where=others) == []

    shown = client.get("/v1/documents/plan", headers=bearer(TENANT_A)).json()
    assert (shown["text"], shown["metadata"]) == ("zebra of tenant one", {"tenant": "a", "n": 1})
    assert shown["other_sources"] == []
    assert client.get("/v1/documents/pipe-1", headers=bearer(TENANT_A)).status_code == 404
    everybody = client.get("/v1/documents/plan", headers=bearer(READ)).json()
    assert len(everybody["other_sources"]) == 1

    assert client.delete("/v1/documents/pipe-1", headers=bearer(TENANT_A)).status_code == 404
    gone = client.post("/v1/documents/delete", json={"ids": ["plan", "pipe-1"]}, headers=bearer(TENANT_A))
    assert gone.json() == {"removed": 1}
    everything = {"must_not": [{"key": "metadata.n", "match": {"value": 99}}]}
    gone = client.post("/v1/documents/delete", json={"where": everything}, headers=bearer(TENANT_A))
    assert gone.json() == {"removed": 0}
    assert found(client, TENANT_B, "zebra") == ["zebra of tenant two"]
    assert len(found(client, READ, "copper pipe leak")) == 4


def test_a_tenant_does_not_see_the_jobs_of_others(client: httpx.Client) -> None:
    job = client.post(
        "/v1/ingest", json={"documents": [{"id": "j", "text": "okapi"}]}, headers=bearer(TENANT_A)
    ).json()["id"]
    for key, status in ((TENANT_A, 200), (TENANT_B, 404), (WRITE, 200)):
        assert client.get(f"/v1/ingest/{job}", headers=bearer(key)).status_code == status
    assert client.get(f"/v1/ingest/{job}/events", headers=bearer(TENANT_B)).status_code == 404


def test_the_tenant_stands_where_the_store_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.service.intake import Owner
    from pipelines.service.tenants import tenant_field
    from retrieval.config import parse_config

    owner = Owner("a", "metadata.access.team")
    assert owner.mark({"access": {"team": "b", "level": 2}, "n": 1}) == {"access": {"team": "a", "level": 2}, "n": 1}
    assert owner.mark({"access": "b"}) == {"access": {"team": "a"}}
    store = {"kind": "server", "tenant_field": "metadata.access.team"}
    assert tenant_field(parse_config({"store": store})) == "metadata.access.team"
    assert tenant_field(small_config()) == "metadata.tenant"
    for field in ("text", "metadata", "metadata.a[]", "document_id"):
        with pytest.raises(ConfigError, match="tenant_field"):
            tenant_field(parse_config({"store": {**store, "tenant_field": field}}))


def test_names_of_uploads_cannot_meet_across_tenants() -> None:
    from pipelines.service.intake import Owner

    sources = {
        Owner(tenant, "metadata.tenant").source(kind, name)
        for tenant, kind, name in [
            (None, "id", "a/id/b"),
            ("a", "id", "b"),
            ("a/id", "id", "b"),
            ("a", "id", "id/b"),
            ("a", "file", "b"),
            ("", "id", "a"),
        ]
    }
    assert len(sources) == 6
