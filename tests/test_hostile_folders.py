"""Folders that nobody would make on purpose: what cannot be read is named, nothing hangs, and the rest goes in."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import TwoStagePipeline
from retrieval.config import DocumentsConfig
from retrieval.datatypes import Document, Rejected
from retrieval.documents import open_documents
from retrieval.errors import DocumentError
from tests import unprivileged

ROOT = Path(__file__).parents[1]
posix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")


def streamed(path: Path, rejected: list[Rejected], **settings: Any) -> Iterator[Document]:
    return iter(open_documents(path, DocumentsConfig(**settings), on_rejected=rejected.append))


def read(path: Path, **settings: Any) -> tuple[list[Document], list[Rejected]]:
    rejected: list[Rejected] = []
    return list(streamed(path, rejected, **settings)), rejected


def reasons(rejected: list[Rejected]) -> dict[str, str]:
    return {Path(item.source).name: item.reason for item in rejected}


def within(seconds: float, work: Callable[[], None]) -> None:
    """Fail where something waits for what never comes."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it hangs"


@posix
def test_a_pipe_in_the_place_of_the_ignore_file_is_an_error_and_not_waited_for(quick_path: Path) -> None:
    (quick_path / "a.txt").write_text("text")
    os.mkfifo(quick_path / ".retrievalignore")

    def work() -> None:
        with pytest.raises(DocumentError, match=r"cannot read .*\.retrievalignore: .*no regular file"):
            read(quick_path)

    within(20, work)


@pytest.mark.parametrize("pattern", ["*a*a*a*a*b", "**/a/**/a/**/a/**/b", "x/*a*a*a*a*a*a*b"])
def test_a_pattern_that_takes_for_ever_is_refused(quick_path: Path, pattern: str) -> None:
    (quick_path / ("a" * 200 + ".txt")).write_text("text")
    (quick_path / ".retrievalignore").write_text(f"*.md\n{pattern}\n")
    with pytest.raises(DocumentError, match="which would take very long to match: use at most 3"):
        read(quick_path)
    with pytest.raises(DocumentError, match="very long"):
        read(quick_path, ignore=(pattern,))
    (quick_path / ".retrievalignore").write_text("*.md\n# * a * comment * of * stars *\n*a*a*b\n**/x/**/y/**\n")
    assert len(read(quick_path)[0]) == 1


@posix
def test_sockets_and_devices_are_left_out(quick_path: Path) -> None:
    folder = quick_path / "f"
    folder.mkdir()
    (folder / "a.txt").write_text("text")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s.txt"))
        (folder / "zero.txt").symlink_to("/dev/zero")
        documents, rejected = read(folder)
    assert [document.id for document in documents] == ["a.txt"]
    assert reasons(rejected) == {
        "zero.txt": "is a symbolic link out of the folder, to /dev/zero; links are not followed"
    }
    with pytest.raises(DocumentError, match="neither a file nor a folder"):
        read(Path("/dev/zero"))


@posix
def test_files_that_change_after_they_were_listed(quick_path: Path) -> None:
    """A file becomes a pipe, a link to a secret, a folder, or is gone, between the listing and the reading."""
    secret = quick_path / "secret"
    secret.write_text("secret")
    folder = quick_path / "f"
    folder.mkdir()
    for name in ("a", "b", "c", "d", "e", "z"):
        (folder / f"{name}.txt").write_text(f"text of {name}")
    rejected: list[Rejected] = []
    stream = streamed(folder, rejected)
    found = [next(stream).id]
    # The walk has seen b as a file only when it comes to it: replace it right before it is opened.
    swap = {
        "b.txt": lambda path: os.mkfifo(path),
        "c.txt": lambda path: path.symlink_to(secret),
        "d.txt": lambda path: path.mkdir(),
        "e.txt": lambda path: None,
    }

    def work() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("retrieval.documents.folders.read_file", swapped)
            found.extend(document.id for document in stream)

    from retrieval.documents import folders

    read_file = folders.read_file

    def swapped(reader: Any, source: Any) -> Iterator[Document]:
        if source.name in swap:
            source.path.unlink()
            swap[source.name](source.path)
        return read_file(reader, source)

    within(20, work)
    assert found == ["a.txt", "z.txt"]
    told = reasons(rejected)
    assert sorted(told) == ["b.txt", "c.txt", "d.txt", "e.txt"]
    assert told["b.txt"] == "cannot be read: is no regular file"
    assert "symbolic links" in told["c.txt"]
    assert "No such file" in told["e.txt"]


def test_a_file_that_is_cut_or_grows_while_it_is_read(quick_path: Path) -> None:
    path = quick_path / "a.jsonl"
    lines = [json.dumps({"id": str(number), "text": "x" * 1000}) for number in range(2000)]
    path.write_text("\n".join(lines))
    rejected: list[Rejected] = []
    stream = streamed(path, rejected)
    found = [next(stream).id]
    os.truncate(path, 1_000_500)
    found += [document.id for document in stream]
    assert found == [str(number) for number in range(len(found))]
    assert 500 < len(found) < 1000
    assert all("is not valid JSON" in item.reason for item in rejected)
    assert len(rejected) <= 1
    stream = streamed(path, rejected)
    grown = [next(stream).id]
    with path.open("a") as file:
        file.write("\n" + json.dumps({"id": "new", "text": "y"}))
    grown += [document.id for document in stream]
    assert grown[-1] == "new"


SPARSE = """
import json, resource, sys
from pathlib import Path
from retrieval.config import DocumentsConfig
from retrieval.documents import open_documents
with open("/proc/self/statm") as file:
    now = int(file.read().split()[5]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_DATA, (now + 200 * 2**20,) * 2)
for name, head, size in json.loads(sys.argv[2]):
    path = Path(sys.argv[1]) / name
    with path.open("wb") as file:
        file.write(head.encode() + b"x" * 100_000)
        file.truncate(size)
    rejected = []
    documents = list(open_documents(path, DocumentsConfig(), on_rejected=rejected.append))
    print(json.dumps([len(documents), [item.reason for item in rejected]]), flush=True)
    path.unlink()
"""
GIGABYTE = 10**9


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is one of Linux")
def test_ten_gigabytes_without_a_line_end_take_little_memory(quick_path: Path) -> None:
    too_large = "is larger than documents.max_file_bytes (67,108,864 bytes)"
    cases = [
        ("a.txt", "", 10 * GIGABYTE, too_large),
        ("a.html", "<p>", 10 * GIGABYTE, too_large),
        ("a.json", '{"text": "', 10 * GIGABYTE, "holds one JSON value of more than documents.max_file_bytes"),
        ("b.json", '[{"text": "', 10 * GIGABYTE, "is not valid JSON after record 0"),
        ("a.jsonl", '{"text": "', GIGABYTE, "line 1: has 1,000,000,000 bytes, more than documents.max_line_bytes"),
    ]
    order = json.dumps([case[:3] for case in cases])
    command = [sys.executable, "-c", SPARSE, str(quick_path), order]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(told) == len(cases), result.stderr
    for (documents, [reason]), (name, *_, expected) in zip(told, cases, strict=True):
        assert documents == 0, name
        assert reason.startswith(expected), name


def test_megabytes_of_blanks_before_a_value(quick_path: Path) -> None:
    path = quick_path / "a.json"
    path.write_bytes(b" \n" * 10_000_000 + b'[{"id": "a", "text": "tides"}]')
    assert [document.id for document in read(path)[0]] == ["a"]
    path.write_bytes(b" \n" * 10_000_000)
    assert reasons(read(path)[1]) == {"a.json": "is empty"}


@pytest.mark.parametrize("depth", [1_000, 100_000])
def test_values_as_deep_as_the_stack_is_high(quick_path: Path, depth: int) -> None:
    nested: Any = "bottom"
    for _ in range(depth):
        nested = [nested]
    documents = [{"id": "deep", "text": "tides", "metadata": {"nested": nested}}, {"id": "flat", "text": "moon"}]
    with TwoStagePipeline.open(quick_path / "index") as pipeline:
        report = pipeline.ingest(documents)
        assert (report.added, len(report.rejected)) == (1, 1)
        where: Any = {"key": "metadata.x", "match": {"value": 1}}
        for _ in range(depth):
            where = {"must": [where]}
        with pytest.raises(ValueError, match="deep"):
            pipeline.search("moon", where=where)
        assert pipeline.search("moon", rerank=False)[0].document_id == "flat"


MANY = """
import json, resource, sys
from pipelines import TwoStagePipeline
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[3]), int(sys.argv[3])))
with TwoStagePipeline.open(sys.argv[1]) as pipeline:
    report = pipeline.ingest(sys.argv[2])
    again = pipeline.ingest(sys.argv[2], sync=True)
    hit = pipeline.search("number 4321 of the harbour", top_k=1, rerank=False)[0].document_id
print(json.dumps([report.added, len(report.rejected), again.unchanged, hit]))
"""


@posix
def test_five_thousand_tiny_files_need_few_handles(quick_path: Path) -> None:
    folder = quick_path / "f"
    for number in range(5_000):
        place = folder / str(number % 50)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.txt").write_text(f"number {number} of the harbour")
    command = [sys.executable, "-c", MANY, str(quick_path / "index"), str(folder), "200"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert result.stdout, result.stderr
    assert json.loads(result.stdout) == [5_000, 0, 5_000, "21/4321.txt"]


@posix
def test_names_of_every_kind(quick_path: Path) -> None:
    names = [
        "x" * 251 + ".txt",
        "-rf.txt",
        "a\nb.txt",
        "'; drop table.txt",
        "\u202egpj.txt",
        "caf\u00e9.txt",
        "cafe\u0301.txt",
        "..txt",
        "#1.txt",
        " .txt",
        "%2e%2e%2fpasswd.txt",
    ]
    for number, name in enumerate(names):
        (quick_path / name).write_text(f"tides {number}")
    documents, rejected = read(quick_path)
    kept = [name for name in names if not name.startswith(".")]
    assert sorted(document.id for document in documents) == sorted(kept)
    assert rejected == []
    with TwoStagePipeline.open(quick_path / ".index") as pipeline:
        assert pipeline.ingest(quick_path).added == len(kept)
        assert pipeline.ingest(quick_path, sync=True).unchanged == len(kept)
        (quick_path / "a\nb.txt").unlink()
        assert pipeline.ingest(quick_path, sync=True).removed == 1


@posix
def test_folders_deeper_than_a_path_can_name(quick_path: Path) -> None:
    (quick_path / "a.txt").write_text("tides")
    place = os.open(quick_path, os.O_RDONLY)
    step = "d" * 200
    try:
        for _ in range(30):  # 6,000 characters, of which a path may have 4,096
            os.mkdir(step, dir_fd=place)
            below = os.open(step, os.O_RDONLY, dir_fd=place)
            os.close(place)
            place = below
        os.close(os.open("lost.txt", os.O_CREAT | os.O_WRONLY, dir_fd=place))
    finally:
        os.close(place)
    documents, rejected = read(quick_path)
    assert [document.id for document in documents] == ["a.txt"]
    [reason] = [item.reason for item in rejected]
    assert "File name too long" in reason
    shutil.rmtree(quick_path / step)


UNREADABLE = """
import json, os, sys
from pathlib import Path
from pipelines import TwoStagePipeline
index, folder = Path(sys.argv[1]), Path(sys.argv[2])
with TwoStagePipeline.open(index) as pipeline:
    first = pipeline.ingest(folder)
    os.chmod(folder / "closed.txt", 0)
    os.chmod(folder / "closed", 0)
    os.unlink(folder / "gone.txt")
    second = pipeline.ingest(folder, sync=True)
    os.chmod(folder / "closed", 0o755)
    os.chmod(folder / "closed.txt", 0o644)
    documents = pipeline.manifest.documents
print(json.dumps([first.added, second.removed, documents, {Path(r.source).name: r.reason for r in second.rejected}]))
"""


@posix
def test_what_may_not_be_read_is_named_and_stays_in_the_index(quick_path: Path) -> None:
    folder = quick_path / "f"
    (folder / "closed").mkdir(parents=True)
    for name in ("open.txt", "closed.txt", "gone.txt", "closed/inside.txt"):
        (folder / name).write_text(f"tides of {name}")
    result = unprivileged.run(UNREADABLE, quick_path / "index", folder)
    assert result.stdout, result.stderr
    denied = "cannot be read: Permission denied"
    assert json.loads(result.stdout) == [4, 1, 3, {"closed": denied, "closed.txt": denied}]
