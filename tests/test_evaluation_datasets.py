from __future__ import annotations

import hashlib
import io
import json
import re
import socket
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from retrieval.errors import DocumentError
from retrieval.evaluation import BeirCollection
from retrieval.evaluation.datasets import PUBLIC_DATASETS, PublicDataset, default_folder, fetch_dataset, find_dataset

FILES = {
    "tiny/corpus.jsonl": '{"_id": "d1", "text": "Copper pipes leak."}\n',
    "tiny/queries.jsonl": '{"_id": "q1", "text": "leak"}\n',
    "tiny/qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1\n",
    "__MACOSX/tiny/corpus.jsonl": "notes of a file system",
}


def archive_of(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def dataset_of(content: bytes, name: str = "tiny") -> PublicDataset:
    return PublicDataset(name, hashlib.md5(content, usedforsecurity=False).hexdigest(), 1, 1)


class Mirror:
    """A server on this machine; `content` by path, and how often each was asked for."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.asked: list[str] = []
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.asked.append(self.path)
                content = mirror.content.get(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/sets/"


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    mirror = Mirror()
    thread = threading.Thread(target=mirror.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield mirror
    mirror.server.shutdown()
    thread.join()
    mirror.server.server_close()


def test_a_collection_is_downloaded_once(mirror: Mirror, tmp_path: Path) -> None:
    content = archive_of(FILES)
    mirror.content["/sets/tiny.zip"] = content
    steps: list[tuple[str, int, int]] = []
    cache = tmp_path / "deep" / "cache"
    for _ in range(2):
        path = fetch_dataset(
            dataset_of(content), cache, mirror=mirror.url, on_progress=lambda *step: steps.append(step)
        )
    assert path == cache / "tiny"
    assert mirror.asked == ["/sets/tiny.zip"]
    assert steps[-1] == ("tiny", len(content), len(content))
    collection = BeirCollection.open(path)
    assert collection.queries == {"q1": "leak"}
    assert [document.id for document in collection.documents()] == ["d1"]
    assert [entry.name for entry in cache.iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot download .*/sets/tiny.zip: .*404.*; without a network, copy"),
        (b"not an archive", "is no sound archive"),
        (archive_of(FILES)[:150], "is no sound archive"),
        (archive_of({"other/corpus.jsonl": ""}), "holds no folder tiny with a corpus.jsonl"),
        (archive_of({"tiny/../../escaped/corpus.jsonl": "{}"}), "holds no folder tiny"),
        (archive_of({"/tiny/corpus.jsonl": "{}"}), "holds no folder tiny"),
    ],
)
def test_what_is_unsound_leaves_nothing_behind(
    content: bytes | None, told: str, mirror: Mirror, tmp_path: Path
) -> None:
    if content is not None:
        mirror.content["/sets/tiny.zip"] = content
    with pytest.raises(DocumentError, match=told):
        fetch_dataset(dataset_of(content or b""), tmp_path / "cache", mirror=mirror.url)
    assert list((tmp_path / "cache").iterdir()) == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["cache"]


def test_another_checksum_is_refused(mirror: Mirror, tmp_path: Path) -> None:
    mirror.content["/sets/tiny.zip"] = archive_of(FILES)
    with pytest.raises(DocumentError, match=r"has the MD5 checksum \w{32}, not d41d8cd98f00b204e9800998ecf8427e"):
        fetch_dataset(dataset_of(b""), tmp_path, mirror=mirror.url)
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_way_out_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    done = CliRunner().invoke(
        app, ["datasets", "scifact", "--folder", str(tmp_path), "--mirror", f"http://127.0.0.1:{port}"]
    )
    assert done.exit_code == 1
    message = " ".join(done.stderr.split())
    assert f"cannot download http://127.0.0.1:{port}/scifact.zip" in message
    assert "without a network, copy the unpacked folder here" in message
    assert list(tmp_path.iterdir()) == []


def test_the_command_lists_and_names_folders(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVAL_DATASETS", str(tmp_path))
    assert default_folder() == tmp_path
    (tmp_path / "scifact").mkdir()
    listed = CliRunner().invoke(app, ["datasets"], env={"COLUMNS": "80"})
    rows = [line.split() for line in listed.stdout.splitlines()]
    assert ["scifact", "5,183", "300", "test", "downloaded"] in rows
    assert ["msmarco", "8,840,000", "6,980", "dev"] in rows
    record = json.loads(CliRunner().invoke(app, ["datasets", "--json"]).stdout)
    folders = {one["name"]: one["folder"] for one in record["datasets"]}
    assert folders["scifact"] == str(tmp_path / "scifact")
    assert len(folders) == 15
    assert {name for name, folder in folders.items() if folder is not None} == {"scifact"}
    # What is there is not asked for again.
    again = CliRunner().invoke(app, ["datasets", "scifact", "--mirror", mirror.url])
    assert (again.stdout.strip(), mirror.asked) == (str(tmp_path / "scifact"), [])
    unknown = CliRunner().invoke(app, ["datasets", "scifacts"])
    assert unknown.exit_code == 2
    assert "no public collection 'scifacts'; there are arguana" in " ".join(unknown.stderr.split())


def test_the_list_is_sound() -> None:
    names = [one.name for one in PUBLIC_DATASETS]
    assert names == sorted(set(names))
    assert len({one.md5 for one in PUBLIC_DATASETS}) == len(names)
    assert all(re.fullmatch(r"[0-9a-f]{32}", one.md5) for one in PUBLIC_DATASETS)
    assert find_dataset("nfcorpus").queries == 323
