"""`retrieval watch`: a real process over a real folder, and the parts that bring an index in step."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines import TwoStagePipeline
from pipelines.cli import app
from pipelines.folder_changes import StoppedError, apply_changes, sync_folder, that_matter
from pipelines.lease import IndexLease
from pipelines.watch import FolderWatch, WatchEvent, WatchOptions
from retrieval.config import Config, DocumentsConfig, parse_config
from retrieval.errors import StoreBusyError

ROOT = Path(__file__).parents[1]


def write(folder: Path, **texts: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def held(index: Path) -> dict[str, str]:
    """Id and text of every document of an index."""
    with TwoStagePipeline.open(index) as pipeline, pipeline.reading() as serving:
        return {point.payload["document_id"]: point.payload["text"] for point in serving.store.scan()}


class Watching:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._events.put(json.loads(line))
        self._events.put(None)

    def until(self, kind: str) -> dict[str, Any]:
        """The next event of a kind; what comes before it is dropped."""
        while True:
            event = self._events.get(timeout=60)
            assert event is not None, (
                f"ended before {kind}: {self.process.stderr.read() if self.process.stderr else ''}"
            )
            if event["event"] == kind:
                return event

    def until_written(self) -> dict[str, Any]:
        """The next batch that wrote; one that found a file still empty comes before it at times."""
        while True:
            event = self.until("changed")
            if event["added"] + event["changed"] + event["removed"]:
                return event


@contextmanager
def watching(*arguments: object) -> Iterator[Watching]:
    command = [sys.executable, "-W", "error", "-m", "pipelines", "watch", *map(str, arguments)]
    process = subprocess.Popen(
        [*command, "--json", "--debounce", "50"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield Watching(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.mark.parametrize("how", ["told by the system", "polling"])
def test_what_happens_in_the_folder_happens_in_the_index(tmp_path: Path, how: str) -> None:
    folder = write(tmp_path / "notes", a="alpha volcano", b="beta glacier")
    # The index lies inside of the folder: its own writes are no changes.
    index = folder / "index"
    extra = ["--poll", 0.1] if how == "polling" else []
    with watching(folder, "--index", index, *extra) as watch:
        first = watch.until("synced")
        assert (first["added"], first["removed"], first["folder"]) == (2, 0, str(folder))
        watch.until("watching")
        write(folder, c="gamma river")
        event = watch.until_written()
        assert (event["added"], event["changed"], event["removed"]) == (1, 0, 0)
        assert event["paths"] == ["c.txt"]
        # Between batches the index is free.
        assert held(index) == {"a.txt": "alpha volcano", "b.txt": "beta glacier", "c.txt": "gamma river"}
        write(folder, a="alpha moon")
        event = watch.until_written()
        assert (event["added"], event["changed"], event["removed"]) == (0, 1, 0)
        (folder / "b.txt").rename(folder / "d.txt")
        moved = watch.until("changed")
        while moved["removed"] < 1 or moved["added"] < 1:  # a rename may be told in two parts
            more = watch.until("changed")
            moved = {name: moved[name] + more[name] for name in ("added", "removed")}
        (folder / "c.txt").unlink()
        assert watch.until("changed")["removed"] == 1
        assert held(index) == {"a.txt": "alpha moon", "d.txt": "beta glacier"}
        watch.process.send_signal(signal.SIGTERM)
        watch.until("stopped")
        assert watch.process.wait(timeout=30) == 0
        assert watch.process.stderr is not None
        assert watch.process.stderr.read() == ""


def test_folders_that_come_move_and_vanish(tmp_path: Path) -> None:
    folder = write(tmp_path / "notes", a="alpha volcano")
    index = tmp_path / "index"
    with watching(folder, "--index", index) as watch:
        watch.until("watching")
        shutil.copytree(write(tmp_path / "other" / "deep", x="xi comet", y="ypsilon comet").parent, folder / "sub")
        added = 0
        while added < 2:
            added += watch.until("changed")["added"]
        (folder / "sub").rename(folder / "moved")
        added = removed = 0
        while added < 2 or removed < 2:
            event = watch.until("changed")
            added, removed = added + event["added"], removed + event["removed"]
        assert set(held(index)) == {"a.txt", "moved/deep/x.txt", "moved/deep/y.txt"}
        folder.rename(tmp_path / "away")
        assert watch.until("gone")["folder"] == str(folder)
        # What is in a folder that vanished stays: it may be a drive that is not mounted.
        assert len(held(index)) == 3
        write(folder, b="beta glacier")
        watch.until("back")
        assert watch.until("synced")["added"] == 1
        assert set(held(index)) == {"b.txt"}
        watch.process.send_signal(signal.SIGINT)
        watch.until("stopped")
        assert watch.process.wait(timeout=30) == 0


def test_a_busy_index_is_waited_for(tmp_path: Path) -> None:
    folder, index = write(tmp_path / "notes", a="alpha volcano"), tmp_path / "index"
    with TwoStagePipeline.open(index) as pipeline:
        with watching(folder, "--index", index) as watch:
            assert f"in use by process {os.getpid()}" in watch.until("waiting")["message"]
            watch.process.send_signal(signal.SIGTERM)
            assert watch.process.wait(timeout=30) == 0
        with watching(folder, "--index", index) as watch:
            watch.until("waiting")
            assert watch.process.poll() is None
            pipeline.close()
            assert watch.until("synced")["added"] == 1


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[TwoStagePipeline]:
    with TwoStagePipeline.open(tmp_path / "index", parse_config({"store": {"kind": "memory"}})) as pipeline:
        yield pipeline


def ids(pipeline: TwoStagePipeline) -> set[str]:
    with pipeline.reading() as serving:
        return {point.payload["document_id"] for point in serving.store.scan(payload=["document_id"])}


def test_changes_give_what_a_whole_sync_gives(tmp_path: Path, pipeline: TwoStagePipeline) -> None:
    folder = write(tmp_path / "notes", a="alpha", b="beta")
    (folder / "rows.jsonl").write_text('{"_id": "1", "text": "one"}\n{"_id": "2", "text": "two"}\n', encoding="utf-8")
    assert sync_folder(pipeline, folder, lambda: False).added == 4
    (folder / "rows.jsonl").write_text('{"_id": "2", "text": "two"}\n{"_id": "3", "text": "drei"}\n', encoding="utf-8")
    (folder / "a.txt").unlink()
    write(folder / "new" / "deep", c="gamma")
    write(folder, b="beta two")
    paths = {folder / "rows.jsonl", folder / "a.txt", folder / "new", folder / "b.txt"}
    applied = apply_changes(pipeline, folder, paths, lambda: False)
    assert (applied.added, applied.changed, applied.removed) == (2, 1, 2)
    assert ids(pipeline) == {"2", "3", "b.txt", "new/deep/c.txt"}
    again = sync_folder(pipeline, folder, lambda: False)
    assert (again.added, again.changed, again.removed, again.unchanged) == (0, 0, 0, 4)


def test_a_neighbour_with_a_similar_name_stays(tmp_path: Path, pipeline: TwoStagePipeline) -> None:
    folder = write(tmp_path / "notes" / "one", a="alpha").parent
    write(folder / "one-more", b="beta")
    write(folder, one="gamma")
    sync_folder(pipeline, folder, lambda: False)
    shutil.rmtree(folder / "one")
    assert apply_changes(pipeline, folder, {folder / "one"}, lambda: False).removed == 1
    assert ids(pipeline) == {"one-more/b.txt", "one.txt"}


def test_a_file_that_became_unusable_keeps_its_document_and_is_told(tmp_path: Path, pipeline: TwoStagePipeline) -> None:
    folder = write(tmp_path / "notes", a="alpha", b="beta")
    (folder / "rows.jsonl").write_text('{"_id": "1", "text": "one"}\n', encoding="utf-8")
    sync_folder(pipeline, folder, lambda: False)
    (folder / "a.txt").write_bytes(b"")
    (folder / "b.txt").write_bytes(bytes(range(256)) * 50)
    (folder / "rows.jsonl").write_text("{broken\n", encoding="utf-8")
    paths = {folder / "a.txt", folder / "b.txt", folder / "rows.jsonl"}
    applied = apply_changes(pipeline, folder, paths, lambda: False)
    assert applied.removed == 0
    assert len(applied.rejected) >= 3
    assert {"a.txt", "b.txt"} <= ids(pipeline)


def test_a_new_ignore_file_takes_effect(tmp_path: Path, pipeline: TwoStagePipeline) -> None:
    folder = write(tmp_path / "notes", a="alpha", b="beta")
    sync_folder(pipeline, folder, lambda: False)
    (folder / ".retrievalignore").write_text("b.*\n", encoding="utf-8")
    assert apply_changes(pipeline, folder, {folder / ".retrievalignore"}, lambda: False).removed == 1
    assert ids(pipeline) == {"a.txt"}


def test_what_does_not_matter_is_not_looked_at(tmp_path: Path) -> None:
    folder = write(tmp_path / "notes", a="alpha")
    (folder / "x.swp").write_text("x", encoding="utf-8")
    (folder / "photo.jpg").write_bytes(b"x")
    names = [
        "a.txt",
        "x.swp",
        "photo.jpg",
        ".a.txt.swp",
        ".git/config",
        "node_modules/x.txt",
        "gone",
        ".retrievalignore",
    ]
    matter = that_matter({folder / name for name in names}, folder, DocumentsConfig())
    assert {path.name for path in matter} == {"a.txt", "gone", ".retrievalignore"}


def test_links_and_the_judgements_of_a_collection_are_not_read(tmp_path: Path, pipeline: TwoStagePipeline) -> None:
    folder = tmp_path / "beir"
    folder.mkdir()
    (folder / "corpus.jsonl").write_text('{"_id": "1", "text": "one"}\n', encoding="utf-8")
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "query"}\n', encoding="utf-8")
    outside = write(tmp_path / "outside", x="xi") / "x.txt"
    (folder / "link.txt").symlink_to(outside)
    paths = {folder / "corpus.jsonl", folder / "queries.jsonl", folder / "link.txt"}
    assert apply_changes(pipeline, folder, paths, lambda: False).added == 1
    assert ids(pipeline) == {"1"}


def test_a_stop_ends_a_batch(tmp_path: Path, pipeline: TwoStagePipeline) -> None:
    folder = write(tmp_path / "notes", a="alpha", b="beta")
    with pytest.raises(StoppedError):
        apply_changes(pipeline, folder, {folder / "a.txt"}, lambda: True)
    with pytest.raises(StoppedError):
        sync_folder(pipeline, folder, lambda: True)


def _watch(folder: Path, index: Path, events: list[WatchEvent]) -> FolderWatch:
    lease = IndexLease(lambda: (Config(), index), idle=0, wait=0)
    return FolderWatch([folder], lease, DocumentsConfig(), events.append, threading.Event(), WatchOptions())


def test_a_failure_is_told_and_tried_again(tmp_path: Path) -> None:
    folder, index = write(tmp_path / "notes", a="alpha"), tmp_path / "index"
    events: list[WatchEvent] = []
    watch = _watch(folder, index, events)
    with TwoStagePipeline.open(index):
        assert watch.sync() is False
    assert [event.kind for event in events] == ["failed"]
    assert "in use by this process" in events[0].message
    assert _watch(folder, index, events).sync() is True
    assert events[-1].applied.added == 1


def test_an_empty_folder_is_fine_while_the_index_is_empty_too(tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    events: list[WatchEvent] = []
    assert _watch(folder, tmp_path / "index", events).sync()
    assert [event.kind for event in events] == ["synced"]


def test_an_empty_folder_is_a_failure_that_removes_nothing(tmp_path: Path) -> None:
    folder, index = write(tmp_path / "notes", a="alpha"), tmp_path / "index"
    events: list[WatchEvent] = []
    assert _watch(folder, index, events).sync()
    (folder / "a.txt").unlink()
    assert not _watch(folder, index, events).sync()
    assert "nothing was read" in events[-1].message
    assert set(held(index)) == {"a.txt"}


@contextmanager
def running(folder: Path, index: Path) -> Iterator[queue.Queue[WatchEvent]]:
    """A watch in a thread of the test, and what it tells."""
    events: queue.Queue[WatchEvent] = queue.Queue()
    stop = threading.Event()
    lease = IndexLease(lambda: (Config(), index), idle=0, wait=0)
    options = WatchOptions(debounce_ms=20, check_ms=50)
    watch = FolderWatch([folder], lease, DocumentsConfig(), events.put, stop, options)
    thread = threading.Thread(target=watch.run)
    thread.start()
    try:
        yield events
    finally:
        stop.set()
        thread.join()


def test_after_many_changes_the_whole_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.watch._MANY_PATHS", 1)
    folder = write(tmp_path / "notes", a="alpha")
    with running(folder, tmp_path / "index") as events:
        assert events.get(timeout=60).kind == "synced"
        assert events.get(timeout=60).kind == "watching"
        write(folder, b="beta")
        event = events.get(timeout=60)
        assert (event.kind, event.applied.added, event.applied.unchanged) == ("synced", 1, 1)


def test_a_failure_is_mended_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.watch._FIRST_RETRY_S", 0.05)
    folder, index = write(tmp_path / "notes", a="alpha"), tmp_path / "index"
    with TwoStagePipeline.open(index) as pipeline, running(folder, index) as events:
        event = events.get(timeout=60)
        assert (event.kind, event.root) == ("failed", folder)
        pipeline.close()
        while (event := events.get(timeout=60)).kind != "synced":
            assert event.kind in {"failed", "watching"}
        assert event.applied.added == 1


class TestLease:
    def test_it_opens_when_used_and_closes_when_idle(self, tmp_path: Path) -> None:
        lease = IndexLease(lambda: (Config(), tmp_path / "index"), idle=0, wait=0)
        with lease.use(create=True) as first:
            encoder = first.encoder
            with lease.use() as second:
                assert second is first
            assert lease.is_open
        assert not lease.is_open
        with lease.use() as again:
            assert again is not first
            # The models are kept.
            assert again.encoder is encoder
        lease.close()

    def test_it_stays_open_for_a_while(self, tmp_path: Path) -> None:
        lease = IndexLease(lambda: (Config(), tmp_path / "index"), idle=60, wait=0)
        with lease.use(create=True) as first:
            pass
        assert lease.is_open
        with lease.use() as again:
            assert again is first
        lease.close()
        assert not lease.is_open
        held(tmp_path / "index")

    def test_a_stop_ends_the_wait(self, tmp_path: Path) -> None:
        stop = threading.Event()
        told: list[StoreBusyError] = []

        def busy(error: StoreBusyError) -> None:
            told.append(error)
            stop.set()

        index = tmp_path / "index"
        lease = IndexLease(lambda: (Config(), index), idle=0, wait=3600, on_wait=busy, stop=stop)
        with TwoStagePipeline.open(index), pytest.raises(StoreBusyError), lease.use():
            pass
        assert len(told) == 1


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "80"})
    return done.exit_code, done.stdout, done.stderr


def test_once_brings_the_index_in_step_and_ends(tmp_path: Path) -> None:
    folder, index = write(tmp_path / "notes", a="alpha", b="beta"), tmp_path / "index"
    code, out, err = run("watch", folder, "--index", index, "--once")
    assert (code, err) == (0, "")
    assert "2 added in" in out
    (folder / "a.txt").unlink()
    (folder / "b.txt").write_bytes(b"")
    (folder / "c.txt").write_text("gamma", encoding="utf-8")
    code, out, err = run("watch", folder, "--index", index, "--once")
    assert "1 added, 1 removed, 1 not usable in" in out
    assert "b.txt" in err


def test_usage_errors(tmp_path: Path) -> None:
    folder = write(tmp_path / "notes" / "inner", a="alpha").parent
    index = ("--index", tmp_path / "index")
    assert "is not a folder; name a folder" in run("watch", folder / "inner" / "a.txt", *index)[2]
    assert "is watched already" in run("watch", folder, folder / "inner", *index)[2]
    code, _, err = run("watch", folder, "--index", folder)
    assert code == 2
    assert "is the index itself" in err
    assert run("watch", folder, "--set", "store.kind=memory")[0] == 2
