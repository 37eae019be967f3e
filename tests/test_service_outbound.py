"""The service calls nobody: no URL in a request, an upload or a document makes it open a connection."""

from __future__ import annotations

import io
import socket
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service_app import client_of, service_config


class Canary:
    """Listens on a port of this machine and notes who connects; also every other address that this process asks for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.listening = False
        self.allowed: set[int] = set()
        self.callers = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._answer, daemon=True).start()
        sys.addaudithook(self._hook)

    def _answer(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.callers += 1
            connection.close()

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.listening or event not in {"socket.connect", "socket.getaddrinfo", "subprocess.Popen"}:
            return
        if event == "socket.connect" and arguments[1][1] not in self.allowed:
            self.asked.append(f"connect {arguments[1]}")
        if event == "socket.getaddrinfo" and arguments[1] not in self.allowed:
            self.asked.append(f"look up {arguments[:2]}")
        # Office files and PDF are converted by a process of ours.
        if event == "subprocess.Popen" and arguments[0] != sys.executable:
            self.asked.append(f"run {arguments[0]}")

    @contextmanager
    def watching(self, *ports: int) -> Iterator[Canary]:
        """Note everything but connections to these ports."""
        self.allowed, self.listening = set(ports), True
        self.asked.clear()
        try:
            yield self
        finally:
            self.listening = False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def canary() -> Iterator[Canary]:
    one = Canary()
    yield one
    one.close()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with client_of(tmp_path_factory.mktemp("outbound") / "index", (), service_config()) as client:
        yield client


def test_the_canary_notices_a_call(canary: Canary) -> None:
    with canary.watching(), socket.create_connection(("127.0.0.1", canary.port), timeout=5) as connection:
        assert connection.recv(1) == b""
    assert canary.callers == 1
    assert any(str(canary.port) in one for one in canary.asked)
    canary.callers = 0


def docx(url: str) -> bytes:
    """A document whose template, picture and link lie elsewhere."""
    relations = "".join(
        f'<Relationship Id="r{at}" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/{kind}" '
        f'Target="{url}/{kind}" TargetMode="External"/>'
        for at, kind in enumerate(("attachedTemplate", "image", "hyperlink", "frame", "subDocument"))
    )
    namespace = "http://schemas.openxmlformats.org/package/2006"
    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{namespace}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/word/document.xml" ContentType="{kind}"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{namespace}/relationships">'
        f'<Relationship Id="r1" Type="{office}" Target="word/document.xml"/></Relationships>',
        "word/document.xml": f'<!DOCTYPE x [<!ENTITY e SYSTEM "{url}/entity">]>'
        f'<w:document xmlns:w="{word}"><w:body><w:p><w:r><w:t>Tides rise.</w:t></w:r></w:p></w:body></w:document>',
        "word/_rels/document.xml.rels": f'<Relationships xmlns="{namespace}/relationships">{relations}</Relationships>',
    }
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return data.getvalue()


def uploads(url: str) -> list[tuple[str, bytes]]:
    """Files of every kind that name a URL where a careless reader would follow it."""
    page = (
        f'<html><head><base href="{url}/base"><link rel="stylesheet" href="{url}/s.css">'
        f'<meta http-equiv="refresh" content="0; url={url}/m"><script src="{url}/x.js"></script></head>'
        f'<body><img src="{url}/i.png"><iframe src="{url}/f"></iframe><object data="{url}/o"></object>'
        f'<a href="{url}/a">tides</a><svg><image href="{url}/svg"/></svg></body></html>'
    )
    entity = f'<!DOCTYPE x [<!ENTITY e SYSTEM "{url}/e"><!ENTITY % p SYSTEM "{url}/p">%p;]><x>&e;</x>'
    pdf = f"%PDF-1.4\n1 0 obj<</Type/Catalog/OpenAction<</S/URI/URI({url}/u)>>>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF"
    return [
        ("a.html", page.encode()),
        ("b.md", f"# Tides\n\n![moon]({url}/moon.png) [more]({url}/more)\n".encode()),
        ("c.txt", f"{url}/c\n".encode()),
        ("d.csv", f'id,url,text\n1,{url}/d,"=WEBSERVICE(""{url}"")"\n'.encode()),
        ("e.json", f'[{{"id": "e", "text": "x", "url": "{url}/e", "$ref": "{url}/schema"}}]'.encode()),
        ("f.jsonl", f'{{"id": "f", "text": "x", "source": "{url}/f"}}\n'.encode()),
        ("g.xml", entity.encode()),
        ("h.html", entity.encode()),
        ("i.docx", docx(url)),
        ("j.pdf", pdf.encode()),
        (f"{url}/k.txt", b"named like a place"),
        ("l.url", f"[InternetShortcut]\nURL={url}/l\n".encode()),
    ]


@pytest.mark.parametrize("at", range(len(uploads(""))))
def test_no_upload_makes_the_service_call(canary: Canary, client: httpx.Client, at: int) -> None:
    name, data = uploads(canary.url)[at]
    with canary.watching(client.base_url.port or 0):
        response = client.post("/v1/ingest?wait=true", files=[("files", (name, data))])
        assert response.status_code == 200, response.text
        report = response.json()["report"]
    assert report["added"] + report["rejected_count"] == 1
    assert (canary.callers, canary.asked) == (0, [])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/search", {"query": "{url}/q"}),
        ("/v1/search", {"query": "x", "where": {"must": [{"key": "metadata.url", "match": {"value": "{url}"}}]}}),
        ("/v1/embeddings", {"input": "{url}/text", "model": "{url}/model"}),
        ("/v1/rerank", {"query": "{url}", "documents": ["{url}/a", {"text": "{url}/b"}], "model": "{url}/m"}),
        ("/v1/ingest?wait=true", {"documents": [{"id": "{url}/id", "text": "{url}", "metadata": {"source": "{url}"}}]}),
        ("/v1/ingest?wait=true", {"documents": [{"id": "x", "url": "{url}/page"}]}),
        ("/v1/ingest?wait=true", {"url": "{url}/corpus.jsonl"}),
        ("/v1/ingest?wait=true", {"documents": "{url}/corpus.jsonl"}),
        ("/v1/admin/reload", {"index": "{url}"}),
        ("/v1/admin/reload", {"model": "{url}"}),
        ("/v1/documents/delete", {"ids": ["{url}"]}),
    ],
)
def test_no_request_makes_the_service_call(canary: Canary, client: httpx.Client, path: str, body: Any) -> None:
    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: filled(one) for name, one in value.items()}
        if isinstance(value, list):
            return [filled(one) for one in value]
        return value.replace("{url}", canary.url)

    with canary.watching(client.base_url.port or 0):
        response = client.post(path, json=filled(body), headers={"Referer": canary.url, "X-Forwarded-Host": canary.url})
    assert response.status_code < 500
    assert (canary.callers, canary.asked) == (0, [])


def test_a_name_of_a_model_is_no_way_to_the_disk(client: httpx.Client, tmp_path: Path) -> None:
    for name in (str(tmp_path), "../../etc", "sentence-transformers/all-MiniLM-L6-v2"):
        answer = client.post("/v1/embeddings", json={"input": "x", "model": name})
        assert answer.status_code in {400, 404, 422}
        assert str(tmp_path) not in answer.text or name == str(tmp_path)
