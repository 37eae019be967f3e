"""Ingest over MCP: only what lies inside the allowed folders, with progress, and stopped when nobody wants it."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from mcp import ClientSession

from pipelines.lease import IndexLease
from pipelines.mcp_server import Served, ServedIndex
from pipelines.mcp_server.arguments import IngestCall
from pipelines.mcp_server.roots import Roots
from pipelines.mcp_server.tools import Running, ingest
from pipelines.two_stage import TwoStagePipeline
from retrieval.config import Config, ConfigError, DocumentsConfig
from retrieval.datatypes import Rejected
from retrieval.errors import DocumentError
from tests.mcp_client import talk, text_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "allowed"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "a.txt").write_text("alpha text about volcanoes", encoding="utf-8")
    (root / "deep" / "b.txt").write_text("beta text about glaciers", encoding="utf-8")
    (root / "deep" / "er" / "c.txt").write_text("gamma text about rivers", encoding="utf-8")
    (root / ".env").write_text("SECRET=1", encoding="utf-8")
    (root / "deep" / ".git").mkdir()
    (root / "deep" / ".git" / "config").write_text("secret", encoding="utf-8")
    (tmp_path / "outside.txt").write_text("nobody may read this", encoding="utf-8")
    (tmp_path / "allowed-not").mkdir()
    (tmp_path / "allowed-not" / "d.txt").write_text("a neighbour", encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.txt", "a.txt"),
        ("./deep/../a.txt", "a.txt"),
        ("deep", "deep"),
        (".", ""),
        ("{root}/deep/b.txt", "deep/b.txt"),
        ("{root}/../allowed/a.txt", "a.txt"),
        ("inner", "deep"),
    ],
)
def test_what_is_inside_is_found(root: Path, name: str, expected: str) -> None:
    (root / "inner").symlink_to("deep")
    place = Roots([root]).place(name.format(root=root))
    assert place.path == root / expected
    assert place.root == root


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../outside.txt",
        "deep/../../outside.txt",
        "{root}/../outside.txt",
        "/etc/passwd",
        "../allowed-not/d.txt",
        "{root}-not/d.txt",
        "link-out",
        "folder-out/d.txt",
        "loop",
        "nothing.txt",
        "A.TXT",
        "~/x",
        "a\0b",
        "x" * 5000,
        "file:///etc/passwd",
        "%2e%2e/outside.txt",
        "..\\outside.txt",
    ],
)
def test_what_is_outside_is_refused_and_not_told_from_what_is_not_there(root: Path, name: str) -> None:
    (root / "link-out").symlink_to(root.parent / "outside.txt")
    (root / "folder-out").symlink_to(root.parent / "allowed-not")
    (root / "loop").symlink_to("loop")
    given = name.format(root=root)
    with pytest.raises(DocumentError, match=r"there is no file or folder|NUL"):
        Roots([root]).place(given)


def test_an_allowed_folder_may_be_a_link_itself(root: Path) -> None:
    (root.parent / "way").symlink_to(root)
    roots = Roots([root.parent / "way", root])
    assert roots.folders == (root,)
    assert roots.place("a.txt").path == root / "a.txt"


def test_an_allowed_folder_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a folder"):
        Roots([tmp_path / "nothing"])


@pytest.mark.parametrize("name", [".env", "deep/.git/config", "deep/.git"])
def test_hidden_files_stay_hidden_also_when_they_are_named(root: Path, name: str) -> None:
    roots = Roots([root])
    rejected: list[Rejected] = []
    assert list(roots.documents(roots.place(name), DocumentsConfig(), rejected.append)) == []


def test_the_ignore_file_of_the_root_holds_in_every_folder_of_it(root: Path) -> None:
    (root / ".retrievalignore").write_text("deep/er/\n", encoding="utf-8")
    roots = Roots([root])
    rejected: list[Rejected] = []
    found = list(roots.documents(roots.place("deep"), DocumentsConfig(), rejected.append))
    # The id is the path below the root, whichever part of it is ingested.
    assert [(document.id, document.source) for document in found] == [("deep/b.txt", str(root / "deep" / "b.txt"))]


def _served(root: Path, index: Path) -> Served:
    lease = IndexLease(lambda: (Config(), index), idle=0, wait=0)
    return Served([ServedIndex("index", lambda: (Config(), index), lease)], Roots([root]), threading.Event())


def test_a_stopped_ingest_keeps_what_it_has_and_goes_on_later(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(700):
        (folder / f"{number:03}.txt").write_text(f"text number {number} about rivers", encoding="utf-8")
    served = _served(folder, tmp_path / "index")
    stop = threading.Event()
    seen: list[float] = []

    def report(done: float, message: str) -> None:
        seen.append(done)
        stop.set()

    with pytest.raises(DocumentError, match="stopped; what was read stays"):
        ingest(served, IngestCall(paths=["."]), Running(stop, report))
    assert seen
    with TwoStagePipeline.open(tmp_path / "index") as pipeline:
        kept = pipeline.manifest.documents
        assert pipeline.manifest.state == "ready"
    assert 0 < kept < 700
    rest = ingest(served, IngestCall(paths=["."]), Running(threading.Event(), lambda done, message: None))
    assert (rest.added, rest.unchanged) == (700 - kept, kept)


def test_ingest_over_the_wire(root: Path, tmp_path: Path) -> None:
    told: list[str] = []

    async def conversation(session: ClientSession) -> dict[str, Any]:
        async def hear(done: float, total: float | None, message: str | None) -> None:
            told.append(message or "")

        call = session.call_tool
        return {
            "tools": {tool.name: tool for tool in (await session.list_tools()).tools},
            "before": await call("search", {"query": "glaciers"}),
            "outside": await call("ingest", {"paths": ["../outside.txt"]}),
            "mixed": await call("ingest", {"paths": ["a.txt", str(root.parent / "outside.txt")]}),
            "none": await call("list_collections", {}),
            "first": await call("ingest", {"paths": ["."]}, progress_callback=hear),
            "again": await call("ingest", {"paths": ["deep"]}),
            "found": await call("search", {"query": "glaciers", "top_k": 1}),
        }

    os.symlink(root.parent / "outside.txt", root / "trap.txt")
    seen = talk(["--index", tmp_path / "new" / "index", "--allow-ingest", root], conversation)
    annotations = seen["tools"]["ingest"].annotations
    assert (annotations.read_only_hint, annotations.destructive_hint, annotations.idempotent_hint) == (
        *(False, False, True),
    )
    assert seen["before"].is_error
    assert "retrieval ingest PATH" in text_of(seen["before"])
    for name in ("outside", "mixed"):
        assert seen[name].is_error
        assert "in the folders that may be ingested" in text_of(seen[name])
    # One path that is not allowed refuses the whole call: nothing was read.
    assert seen["none"].structured_content["collections"][0]["problem"]
    assert seen["none"].structured_content["ingest_roots"] == [str(root)]
    first = seen["first"].structured_content
    assert (first["added"], first["rejected"]) == (3, 1)
    assert "symbolic link out of the folder" in first["rejections"][0]["reason"]
    assert told[0].startswith("3 documents")
    again = seen["again"].structured_content
    assert (again["added"], again["unchanged"]) == (0, 2)
    assert seen["found"].structured_content["hits"][0]["document_id"] == "deep/b.txt"
