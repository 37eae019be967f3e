"""What the page is made of, how it is served, and the facts that it asks for; no browser is needed."""

from __future__ import annotations

import contextlib
import http.client
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from pipelines import TwoStagePipeline
from pipelines.cli import app
from pipelines.service.fields import count_fields
from pipelines.service.playground import ASSETS, FOLDER, PAGE
from retrieval.datatypes import Document
from tests.conftest import paper_corpus
from tests.service_app import KEY_CONFIG, KEYS, READ, Process, bearer, client_of, service_config, small_config
from tests.service_thread import running

SOURCES = files("pipelines.service.playground") / "assets"
SCRIPTS = [name for name in ASSETS if name.endswith(".js")]


def source(name: str) -> str:
    return (SOURCES / name).read_text(encoding="utf-8")


def place(name: str) -> str:
    return "/" if name == PAGE else f"{FOLDER}/{name}"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with client_of(tmp_path_factory.mktemp("assets") / "index", paper_corpus()) as opened:
        yield opened


def test_the_list_is_what_the_folder_holds() -> None:
    assert sorted(ASSETS) == sorted(entry.name for entry in SOURCES.iterdir())


@pytest.mark.parametrize("name", ASSETS)
def test_every_asset_is_served_as_it_is_and_kept_by_its_tag(client: httpx.Client, name: str) -> None:
    answer = client.get(place(name))
    assert (answer.status_code, answer.content) == (200, (SOURCES / name).read_bytes())
    kinds = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    assert answer.headers["content-type"].partition(";")[0] == kinds[name.rpartition(".")[2]]
    assert answer.headers["cache-control"] == "no-cache"
    tag = answer.headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        kept = client.get(place(name), headers={"If-None-Match": known})
        assert (kept.status_code, kept.content, kept.headers["etag"]) == (304, b"", tag)
    assert client.get(place(name), headers={"If-None-Match": '"other"'}).status_code == 200
    head = client.head(place(name))
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", tag)


@pytest.mark.parametrize("name", [PAGE, "main.js"])
def test_the_page_may_do_nothing_but_call_this_service(client: httpx.Client, name: str) -> None:
    headers = client.get(place(name)).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy.pop("require-trusted-types-for") == "'script'"
    assert policy.pop("trusted-types") == policy.pop("default-src") == "'none'"
    for forbidden in ("base-uri", "form-action", "frame-ancestors"):
        assert policy.pop(forbidden) == "'none'"
    assert policy == dict.fromkeys(("script-src", "style-src", "img-src", "connect-src"), "'self'")
    assert headers.get_list("content-security-policy") == [headers["content-security-policy"]]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"


def test_the_answers_of_the_api_keep_their_own_policy(client: httpx.Client) -> None:
    headers = client.get("/v1/index").headers
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/playground",
        "/playground/",
        "/playground/index.html",
        "/playground/__init__.py",
        "/playground/..",
        "/playground/../main.js",
        "/playground/%2e%2e/__init__.py",
        "/playground/..%2f__init__.py",
        "/playground/..%5c__init__.py",
        "/playground/main.js%00",
        "/playground/main.js/",
        "/playground//main.js",
        "/playground/MAIN.JS",
        "//etc/passwd",
    ],
)
def test_there_is_nothing_beside_the_assets(client: httpx.Client, path: str) -> None:
    # Sent as it is: httpx would tidy the path up.
    connection = http.client.HTTPConnection("127.0.0.1", client.base_url.port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path)
        assert connection.getresponse().status == 404


@pytest.mark.parametrize("name", ASSETS)
def test_nothing_comes_from_elsewhere_and_no_string_becomes_markup(name: str) -> None:
    text = source(name).replace('"http://www.w3.org/2000/svg"', "")
    assert not re.findall(r"https?://|url\((?!data:)|@import|//cdn", text)
    assert not re.findall(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|DOMParser|srcdoc|javascript:", text
    )
    if name == PAGE:
        assert not re.findall(r"\sstyle=|\son\w+=|<style|<script>|<script (?!.*src=)", text)


def test_every_import_of_a_script_leads_to_an_asset() -> None:
    for name in SCRIPTS:
        assert set(re.findall(r'from "\./([^"]+)"', source(name))) <= set(ASSETS), name
    named = set(re.findall(r'(?:src|href)="playground/([^"]+)"', source(PAGE)))
    assert named <= set(ASSETS)
    imported = {other for name in SCRIPTS for other in re.findall(r'from "\./([^"]+)"', source(name))}
    assert named | imported | {PAGE} == set(ASSETS)


def test_files_stay_short() -> None:
    assert [name for name in SCRIPTS if source(name).count("\n") > 260] == []


def test_the_page_needs_no_key_and_what_it_asks_for_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with client_of(tmp_path / "index", paper_corpus(), service_config(keys=KEY_CONFIG)) as opened:
        for name in ASSETS:
            assert opened.get(place(name)).status_code == 200
        for path in ("/v1/index", "/v1/fields", "/playground/other.js", "/playground/../v1/index"):
            assert opened.get(path).status_code == 401
        assert opened.get("/v1/index", headers=bearer(READ)).json()["scopes"] == ["read"]


def test_the_page_can_be_left_out(tmp_path: Path) -> None:
    with client_of(tmp_path / "index", paper_corpus(), service_config(playground=False)) as opened:
        assert [opened.get(place(name)).status_code for name in ASSETS] == [404] * len(ASSETS)
        assert opened.get("/v1/index").status_code == 200


def test_the_command_says_where_it_is_or_leaves_it_out(tmp_path: Path) -> None:
    with Process(tmp_path / "index", "--no-playground", errors=tmp_path / "errors") as process:
        assert process.started["playground"] is None
        assert process.client.get("/").status_code == 404
    with Process(tmp_path / "index", errors=tmp_path / "errors") as process:
        assert process.started["playground"] == f"{process.url}/"
        assert process.client.get("/").status_code == 200
    assert "--no-playground" in CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "100"}).output


def test_the_index_is_described(client: httpx.Client) -> None:
    told = client.get("/v1/index").json()
    assert (told["documents"], told["passages"], told["dimensions"], told["store"]) == (12, 12, 256, "edge")
    assert told["encoder"].startswith("starter-static@")
    assert (told["quantization"], told["adapted"], told["reranker"]) == ("none", False, "starter-reranker")
    assert told["defaults"] == {
        "top_k": 5,
        "candidates": 100,
        "depth": 20,
        "budget_ms": None,
        "rerank": True,
        "first_stage": "hybrid",
        "group_by": "document",
    }
    assert told["limits"]["top_k"] == 100
    assert told["scopes"] == ["admin", "read", "write"]


def test_the_time_of_the_last_change_is_the_one_that_is_stored(tmp_path: Path) -> None:
    pipeline = TwoStagePipeline.open(tmp_path / "index", small_config())
    stored = pipeline.store.read_manifest()
    assert stored is not None
    with running(pipeline, service_config()) as url:
        pipeline.store.write_manifest({**stored, "updated": "2031-02-03T04:05:06+00:00"})
        assert httpx.get(f"{url}/v1/index").json()["updated"] == "2031-02-03T04:05:06+00:00"


def test_fields_are_counted(client: httpx.Client) -> None:
    told = client.get("/v1/fields").json()
    assert (told["sampled"], told["complete"]) == (12, True)
    topic, year = told["fields"]
    assert topic["key"] == "metadata.topic"
    assert topic["values"] == [{"value": value, "passages": 4} for value in ("bread", "pipe", "star")]
    assert (topic["different"], topic["least"]) == (3, None)
    assert (year["key"], year["least"], year["most"], year["different"]) == ("metadata.year", 2001, 2012, 12)
    assert [len(field["values"]) for field in client.get("/v1/fields?values=1").json()["fields"]] == [1, 1]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], {}),
        ([{}], {}),
        ([{"a": ["x", "x", "y"]}, {"a": "x"}], {"metadata.a": {"x": 2, "y": 1}}),
        ([{"a": {"b": {"c": {"d": 1}}}}, {"a": {"b": 2}}], {"metadata.a.b": {2: 1}}),
        ([{"two words": True, 'quo"te': 1, "": 1, "none": None, "empty": []}], {'metadata."two words"': {True: 1}}),
        ([{"a": 1}, {"a": 1.5}, {"a": "1"}], {"metadata.a": {1: 1, "1": 1}}),
        ([{"long": "x" * 201}], {"metadata.long": {}}),
        ([{"objects": [{"x": 1}]}], {"metadata.objects": {}}),
    ],
)
def test_how_fields_are_counted(rows: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    assert {field.key: dict(field.values) for field in count_fields(rows)} == expected


def test_the_widest_metadata_stays_small() -> None:
    rows = [{f"field{number}": number for number in range(1_000)}]
    assert len(count_fields(rows)) == 50
    (field,) = count_fields({"id": number} for number in range(20_000))
    assert (len(field.values), field.passages, field.least, field.most) == (10_000, 20_000, 0, 19_999)


def test_a_tenant_sees_its_own_fields_and_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENANT_KEY", READ)
    documents = [
        Document("ours", "copper pipe", metadata={"tenant": "us", "color": "red"}),
        Document("theirs", "copper pipe", metadata={"tenant": "them", "secret": "blue"}),
    ]
    config = service_config(keys=[{"env": "TENANT_KEY", "scopes": ["read"], "tenant": "us"}])
    with client_of(tmp_path / "index", documents, config) as opened:
        told = opened.get("/v1/index", headers=bearer(READ)).json()
        assert (told["documents"], told["passages"]) == (None, 1)
        fields = opened.get("/v1/fields", headers=bearer(READ))
        assert {field["key"] for field in fields.json()["fields"]} == {"metadata.tenant", "metadata.color"}
        assert "them" not in fields.text
        assert "blue" not in fields.text


PAGE_OF_THE_DOCS = Path(__file__).parents[1] / "docs" / "playground.md"


def test_the_pictures_of_the_documentation_are_there_and_small() -> None:
    named = re.findall(r"!\[[^\]]+\]\((images/[^)]+\.png)\)", PAGE_OF_THE_DOCS.read_text(encoding="utf-8"))
    assert len(named) == 3
    pictures = {PAGE_OF_THE_DOCS.parent / name for name in named} | set(
        (PAGE_OF_THE_DOCS.parent / "images").glob("*.png")
    )
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG"), picture
        assert picture.stat().st_size < 200_000, picture


def test_the_keys_of_the_documentation_are_those_of_the_page() -> None:
    told = re.findall(r"^\| (`.*?`) \| (.*?) \|$", PAGE_OF_THE_DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    shown = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", source(PAGE))
    plain = [(re.sub(r"</?kbd>", "`", keys), what) for keys, what in shown]
    assert [keys for keys, _ in told] == [keys for keys, _ in plain]
