"""Ingest and documents over HTTP: what comes in is found, shown and removed; what cannot come in is told."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.service.spool import safe_name
from tests.conftest import paper_corpus
from tests.service_app import client_of, service_config, small_config

NDJSON = {"Content-Type": "application/x-ndjson"}


# One service for all tests that do not need their own; each test has ids and words that no other has.
@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ingest") / "index"


@pytest.fixture(scope="module")
def client(index: Path) -> Iterator[httpx.Client]:
    with client_of(index, (), service_config(limits={"files": 3, "json_bytes": 100_000})) as client:
        yield client


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with client_of(tmp_path_factory.mktemp("documents") / "index", paper_corpus()) as client:
        yield client


def report(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    job = response.json()
    assert (job["state"], job["error"]) == ("done", None)
    found: dict[str, Any] = job["report"]
    return found


def add(client: httpx.Client, *documents: dict[str, Any]) -> dict[str, Any]:
    return report(client.post("/v1/ingest?wait=true", json={"documents": list(documents)}))


def hits(client: httpx.Client, query: str) -> list[str]:
    answer = client.post("/v1/search", json={"query": query, "first_stage": "bm25", "rerank": False}).json()
    return [hit["document_id"] for hit in answer["hits"]]


def counts(found: dict[str, Any]) -> tuple[int, int, int, int]:
    return found["added"], found["changed"], found["unchanged"], found["rejected_count"]


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def test_documents_are_added_replaced_and_skipped(client: httpx.Client) -> None:
    first = {
        "id": "leak",
        "title": "Leaks",
        "text": "copper pipe",
        "metadata": {"year": 2001, "tags": ["x", {"y": None}]},
    }
    assert counts(add(client, first, {"id": "dough", "text": "bread dough"})) == (2, 0, 0, 0)
    assert counts(add(client, first)) == (0, 0, 1, 0)
    assert counts(add(client, {**first, "text": "brass valve"})) == (0, 1, 0, 0)
    assert hits(client, "copper") == []
    assert hits(client, "brass") == ["leak"]
    shown = client.get("/v1/documents/leak").json()
    assert (shown["title"], shown["text"], shown["metadata"]) == ("Leaks", "brass valve", first["metadata"])


def test_the_same_id_twice_in_one_ingest_is_told(client: httpx.Client) -> None:
    found = add(client, {"id": "twice", "text": "first"}, {"id": "twice", "text": "second"})
    assert counts(found) == (1, 0, 0, 1)
    assert [entry["source"] for entry in found["rejected"]] == ["twice"]


def test_lines_that_cannot_be_used_do_not_stop_the_others(client: httpx.Client) -> None:
    lines = [
        b'{"id": "line-a", "text": "apple"}',
        b"",
        b"not json",
        b'{"id": "b"}',
        b'{"id": "c", "text": NaN}',
        b'{"id": "d", "text": "\\ud800"}',
        b'{"id": 5, "text": "x"}',
        b'["id"]',
        b'{"id": "e", "text": "nul \\u0000"}',
        b'{"id": "f", "text": "x", "metadata": {"a": "\\u0000"}}',
        b'{"id": "g", "text": "x", "metadata": ' + b'{"a":' * 30 + b"1" + b"}" * 30 + b"}",
        b"\xff\xfe",
        b'{"id": "h", "text": "   "}',
        b'{"id": "line-z", "text": "quince"}',
    ]
    found = report(client.post("/v1/ingest?wait=true", content=b"\n".join(lines), headers=NDJSON))
    assert counts(found) == (2, 0, 0, 11)
    assert [entry["source"] for entry in found["rejected"]] == [*(f"line {n}" for n in range(3, 13)), "h"]
    reasons = {entry["source"]: entry["reason"] for entry in found["rejected"]}
    assert reasons["line 4"] == "text: Field required"
    assert "deep" in reasons["line 11"]
    assert hits(client, "apple") == ["line-a"]
    assert hits(client, "quince") == ["line-z"]


def test_a_misspelt_parameter_is_named_and_nothing_is_taken(client: httpx.Client) -> None:
    answer = client.post("/v1/ingest?wiat=true", json={"documents": [{"id": "typo", "text": "a leaking tap"}]})
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_parameter")
    assert "'wiat'" in answer.json()["detail"]
    assert "wait" in answer.json()["detail"]
    assert client.get("/v1/documents/typo").status_code == 404


def test_a_stream_of_unknown_length_is_taken(client: httpx.Client) -> None:
    def lines() -> Iterator[bytes]:
        for number in range(300):
            yield json.dumps({"id": str(number), "text": f"number word{number}"}).encode() + b"\n"

    found = report(client.post("/v1/ingest?wait=true", content=lines(), headers=NDJSON))
    assert counts(found) == (300, 0, 0, 0)
    assert hits(client, "word299") == ["299"]


def test_files_are_read_by_their_kind_and_named_by_their_name(client: httpx.Client) -> None:
    files = [
        ("files", ("../../etc/tides.md", b"# Tides\n\nThe moon causes the tides.")),
        ("files", ("table.csv", b"id,text,year\nrow-1,sour cherry,2001\nrow-2,,2002\n")),
        ("files", ("packed.jsonl.gz", gzip.compress(b'{"_id": "p1", "text": "solar wind"}\n'))),
    ]
    found = report(client.post("/v1/ingest?wait=true", files=files))
    assert counts(found) == (3, 0, 0, 1)
    assert found["rejected"] == [{"source": "table.csv#2", "reason": "record 2: column 'text' is empty"}]
    assert hits(client, "moon") == ["tides.md"]
    assert hits(client, "cherry") == ["row-1"]
    assert hits(client, "solar") == ["p1"]
    sources = {name: client.get(f"/v1/documents/{name}").json()["source"] for name in ("tides.md", "row-1", "p1")}
    assert sources == {
        "tides.md": "upload:///file/tides.md",
        "row-1": "upload:///file/table.csv#row-1",
        "p1": "upload:///file/packed.jsonl.gz#p1",
    }


def test_nothing_tells_where_uploads_lie_on_this_machine(client: httpx.Client, index: Path) -> None:
    files = [
        ("files", ("bad.csv", b"a,b\n1,2\n")),
        ("files", ("bad.json", b"{")),
        ("files", ("what.xyz", b"\0\1\2")),
    ]
    response = client.post("/v1/ingest?wait=true", files=files)
    assert report(response)["rejected_count"] == 3
    assert [entry["source"] for entry in response.json()["report"]["rejected"]] == ["bad.csv", "bad.json", "what.xyz"]
    for answer in (response, client.get(response.headers["Location"])):
        assert str(index) not in answer.text
        assert "uploads" not in answer.text


def test_an_uploaded_file_does_not_touch_a_document_of_the_same_name(tmp_path: Path) -> None:
    documents = tmp_path / "texts"
    documents.mkdir()
    (documents / "notes.txt").write_text("whale of the command line", encoding="utf-8")
    from pipelines import TwoStagePipeline

    with TwoStagePipeline.open(tmp_path / "index", small_config()) as pipeline:
        pipeline.ingest(documents)
    key = str((documents / "notes.txt").resolve())
    with client_of(tmp_path / "index") as client:
        add(client, {"id": key, "text": "okapi over the wire"})
        client.post("/v1/ingest?wait=true", files=[("files", ("notes.txt", b"zebra over the wire"))])
        assert hits(client, "whale") == ["notes.txt"]
        shown = client.get("/v1/documents/notes.txt").json()
        assert (shown["source"], shown["other_sources"]) == (key, ["upload:///file/notes.txt"])
        other = client.get("/v1/documents/notes.txt", params={"source": "upload:///file/notes.txt"}).json()
        assert other["text"] == "zebra over the wire"
        assert client.get("/v1/documents/notes.txt", params={"source": "nowhere"}).status_code == 404


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a.txt", "a.txt"),
        ("../../a.txt", "a.txt"),
        ("C:\\fakepath\\a.txt", "a.txt"),
        ("/etc/passwd", "passwd"),
        ("..", "file"),
        ("", "file"),
        ("...", "file"),
        (".hidden.md", "hidden.md"),
        ("a\0b\n.csv", "a_b_.csv"),
        ("a\u202etxt.exe", "a_txt.exe"),
        ("x" * 300 + ".jsonl", "x" * 194 + ".jsonl"),
        ("\u00e9" * 300 + ".txt", "\u00e9" * 98 + ".txt"),
        ("a." + "y" * 300, "a." + "y" * 49),
    ],
)
def test_names_of_files_become_safe(given: str, kept: str) -> None:
    assert safe_name(given) == kept


@pytest.mark.parametrize(
    ("content", "content_type", "expected"),
    [
        (b"", "application/json", (400, "malformed_json")),
        (b"[]", "application/json", (422, "invalid_request")),
        (b'{"documents": []}', "application/json", (422, "invalid_request")),
        (b'{"documents": [{"id": "a", "text": "x", "source": "/etc"}]}', "application/json", (422, "invalid_request")),
        (b'{"documents": [{"id": "", "text": "x"}]}', "application/json", (422, "invalid_request")),
        (b'{"documents": [{"id": "' + b"x" * 513 + b'", "text": "x"}]}', "application/json", (422, "invalid_request")),
        (b'{"documents": "' + b"x" * 100_000 + b'"}', "application/json", (413, "body_too_large")),
        (b"", "application/x-ndjson", (422, "no_documents")),
        (b" \n\n ", "application/x-ndjson", (422, "no_documents")),
        (b"<xml/>", "application/xml", (415, "unsupported_media_type")),
        (b"x", "", (415, "unsupported_media_type")),
        (b"x", "multipart/form-data", (400, "malformed_multipart")),
        (b"--b--\r\n", "multipart/form-data; boundary=b", (422, "no_documents")),
        (b"--b\r\nContent-Disposition: form-data; name=x\r\n\r\n1\r\n--b--\r\n", "multipart/form-data; boundary=b",
         (422, "not_a_file")),
        (b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\ncut off',
         "multipart/form-data; boundary=b", (400, "malformed_multipart")),
    ],
)  # fmt: skip
def test_bodies_that_are_no_upload_are_refused_and_leave_nothing(
    client: httpx.Client, index: Path, content: bytes, content_type: str, expected: tuple[int, str]
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    before = sorted(path.name for path in (index / "uploads").iterdir())
    assert code(client.post("/v1/ingest?wait=true", content=content, headers=headers)) == expected
    assert sorted(path.name for path in (index / "uploads").iterdir()) == before


def test_too_many_files_are_refused(client: httpx.Client) -> None:
    files = [("files", (f"{number}.txt", b"x")) for number in range(4)]
    assert code(client.post("/v1/ingest", files=files)) == (422, "too_large")


def test_an_ingest_stops_at_its_limit_and_says_so(tmp_path: Path) -> None:
    with client_of(tmp_path / "index", (), service_config(limits={"documents": 3, "characters": 1000})) as client:
        lines = b"".join(b'{"id": "%d", "text": "pear"}\n' % number for number in range(5))
        response = client.post("/v1/ingest?wait=true", content=lines, headers=NDJSON)
        assert code(response) == (413, "too_many_documents")
        job = client.get(response.headers["Location"]).json()
        assert (job["state"], job["error"]["code"], job["report"]["added"]) == ("failed", "too_many_documents", 3)
        assert len(hits(client, "pear")) == 3
        bomb = gzip.compress(b'{"id": "bomb", "text": "' + b"a " * 100_000 + b'"}\n')
        response = client.post("/v1/ingest?wait=true", files=[("files", ("bomb.jsonl.gz", bomb))])
        assert code(response) == (413, "too_many_documents")
        assert client.get("/v1/documents/bomb").status_code == 404


def test_without_waiting_a_job_is_told_and_can_be_followed(client: httpx.Client) -> None:
    response = client.post("/v1/ingest", json={"documents": [{"id": "comet", "text": "comet tail"}]})
    assert (response.status_code, response.json()["state"]) == (202, "queued")
    events = follow(client, response.headers["Location"])
    assert [name for name, _ in events][-1] == "done"
    assert {name for name, _ in events[:-1]} <= {"progress"}
    assert [job["state"] for _, job in events] == sorted(
        (job["state"] for _, job in events), key=["queued", "running", "done"].index
    )
    assert events[-1][1]["report"]["added"] == 1
    assert events[-1][1] == client.get(response.headers["Location"]).json()
    assert hits(client, "comet") == ["comet"]
    # Who comes after the end hears the end.
    assert [name for name, _ in follow(client, response.headers["Location"])] == ["done"]


def follow(client: httpx.Client, place: str) -> list[tuple[str, dict[str, Any]]]:
    """All events of a job: name and data."""
    events: list[tuple[str, dict[str, Any]]] = []
    name = ""
    with client.stream("GET", f"{place}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                events.append((name, json.loads(line.removeprefix("data: "))))
    return events


@pytest.mark.parametrize("path", ["/v1/ingest/" + "0" * 32, "/v1/ingest/" + "0" * 32 + "/events"])
def test_a_job_that_is_not_there_is_not_found(client: httpx.Client, path: str) -> None:
    assert code(client.get(path)) == (404, "unknown_job")


def test_a_document_is_shown_joined_from_its_passages(tmp_path: Path) -> None:
    settings = small_config(chunking={"max_tokens": 32, "overlap_tokens": 8})
    words = [f"word{number}" for number in range(200)]
    text = "Alpha starts.\n\n\n" + " ".join(words) + "\n\nOmega ends."
    with client_of(tmp_path / "index", (), None, settings) as client:
        add(client, {"id": "long", "text": text})
        shown = client.get("/v1/documents/long").json()
        assert shown["total_passages"] == len(shown["passages"]) > 5
        assert shown["text"].split() == text.split()
        for passage in shown["passages"]:
            assert passage["text"] == text[passage["start"] : passage["end"]]
        part = client.get("/v1/documents/long", params={"offset": 2, "limit": 2}).json()
        assert [passage["index"] for passage in part["passages"]] == [2, 3]
        assert part["total_passages"] == shown["total_passages"]
        beyond = client.get("/v1/documents/long", params={"offset": 1000}).json()
        assert (beyond["passages"], beyond["text"], beyond["id"]) == ([], "", "long")


@pytest.mark.parametrize("name", ["a/b/c.md", "with blank", "100%", "ümlaut", "a?b#c", "a//b", "delete", "-", "a+b"])
def test_ids_of_any_kind_are_shown_and_removed(client: httpx.Client, name: str) -> None:
    add(client, {"id": name, "text": "walrus"}, {"id": "other walrus", "text": "walrus"})
    from urllib.parse import quote

    path = f"/v1/documents/{quote(name, safe='')}"
    assert client.get(path).json()["id"] == name
    assert client.delete(path).json() == {"removed": 1}
    assert code(client.get(path)) == (404, "unknown_document")
    assert code(client.delete(path)) == (404, "unknown_document")
    assert hits(client, "walrus") == ["other walrus"]


def test_removed_by_ids_and_by_filter(filled: httpx.Client) -> None:
    removed = filled.post("/v1/documents/delete", json={"ids": ["pipe-1", "pipe-2", "pipe-1", "nothing"]})
    assert removed.json() == {"removed": 2}
    where = {"must": [{"key": "metadata.topic", "match": {"value": "star"}}]}
    assert filled.post("/v1/documents/delete", json={"where": where}).json() == {"removed": 4}
    assert filled.post("/v1/documents/delete", json={"where": where}).json() == {"removed": 0}
    assert [name for name in hits(filled, "copper") if name in {"pipe-1", "pipe-2"}] == []
    assert "retrieval_index_documents 6.0" in filled.get("/metrics").text


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (422, "invalid_request")),
        ({"ids": []}, (422, "invalid_request")),
        ({"ids": ["a"], "where": {}}, (422, "invalid_request")),
        ({"ids": ["x"] * 1001}, (422, "too_large")),
        ({"where": {}}, (409, "matches_everything")),
        ({"where": {"must": []}}, (409, "matches_everything")),
        ({"where": {"should": [{"must": []}]}}, (409, "matches_everything")),
        ({"where": {"must": [{"key": "metadata.a"}]}}, (422, "invalid_request")),
    ],
)
def test_deletions_that_are_not_meant_are_refused(
    filled: httpx.Client, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert code(filled.post("/v1/documents/delete", json=body)) == expected
    assert filled.get("/v1/documents/bread-1").status_code == 200


def test_a_filter_on_passages_removes_whole_documents(tmp_path: Path) -> None:
    settings = small_config(chunking={"max_tokens": 32, "overlap_tokens": 8})
    with client_of(tmp_path / "index", (), None, settings) as client:
        add(client, {"id": "long", "text": " ".join(f"w{n}" for n in range(200))}, {"id": "short", "text": "short one"})
        where = {"must": [{"key": "index", "range": {"gte": 3}}]}
        assert client.post("/v1/documents/delete", json={"where": where}).json() == {"removed": 1}
        assert client.get("/v1/documents/long").status_code == 404
        assert client.get("/v1/documents/short").status_code == 200
