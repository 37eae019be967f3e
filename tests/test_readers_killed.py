"""Readers and writers that die, publications that fail, and what is left of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from pipelines import TwoStagePipeline
from retrieval.config import parse_config
from retrieval.errors import StoreBusyError
from tests.reader_process import FACTS, first, publications, reader, run_python, started, views
from tests.store_folders import closed_index


@pytest.fixture
def index(quick_path: Path) -> Path:
    """A closed index of three documents; nothing of it is published."""
    return closed_index(quick_path, FACTS)


KILLED_INGEST = """
import sys
def documents():
    for number in range(100_000):
        if number == 1500:
            print("under way", flush=True)
            sys.stdin.read()
        yield f"k{number}", f"corals of reef {number}"
with TwoStagePipeline.open(sys.argv[1]) as pipeline:
    pipeline.ingest(documents())
"""


def test_a_killed_writer_leaves_the_state_before_to_readers(index: Path) -> None:
    writer = run_python(KILLED_INGEST, index)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "under way\n"
    with reader(index) as beside:
        assert beside.manifest.documents == len(FACTS)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        assert first(beside, "tides") == "moon"
        assert first(beside, "corals") != "k1"
        with reader(index) as later:
            assert later.manifest == beside.manifest
        with TwoStagePipeline.open(index) as resumed:
            resumed.ingest([("reef", "Corals build a reef.")])
            assert resumed.manifest.documents > len(FACTS)
            assert beside.refresh()
            assert beside.manifest.documents == resumed.manifest.documents
    assert len(publications(index)) == 1
    assert views(index) == []


def test_what_killed_readers_leave_is_tidied_by_the_next(index: Path) -> None:
    process = started(index, ["tides"])
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.communicate()
    left = views(index)
    assert len(left) == 2
    with reader(index) as pipeline:
        assert first(pipeline, "tides") == "moon"
        assert not set(views(index)) & set(left)
    assert views(index) == []


def test_what_a_killed_publication_leaves_is_tidied_when_the_index_is_opened(index: Path) -> None:
    with reader(index):
        pass
    [current] = publications(index)
    for left in ("99", "going-3"):  # one that was not finished, one that was being removed
        (index / "published" / left / "generations").mkdir(parents=True)
    with TwoStagePipeline.open(index):
        assert publications(index) == [current]
    with reader(index) as pipeline:
        assert first(pipeline, "tides") == "moon"


def test_without_a_published_state_a_reader_is_told_to_wait(index: Path) -> None:
    with TwoStagePipeline.open(index), pytest.raises(StoreBusyError, match="has published nothing yet"):
        TwoStagePipeline.open(index, read_only=True)
    with reader(index) as pipeline:
        assert pipeline.manifest.documents == len(FACTS)


def test_the_first_ingest_of_an_index_publishes_nothing_by_itself(index: Path) -> None:
    assert not (index / "published").exists()


def test_publishing_can_be_switched_off(index: Path) -> None:
    quiet = {"store": {"kind": "edge", "publish": False}}
    with reader(index):
        pass
    assert publications(index)
    with TwoStagePipeline.open(index, parse_config(quiet)) as writer:
        writer.ingest([("reef", "Corals build a reef.")])
        assert publications(index) == []
        with pytest.raises(StoreBusyError):
            reader(index, **quiet)
    with reader(index, **quiet) as pipeline:
        assert first(pipeline, "corals") == "reef"
        assert not Path(pipeline.store._store.location).is_relative_to(index)  # type: ignore[attr-defined]
    assert publications(index) == []


def test_a_failed_publication_costs_no_write(
    index: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with reader(index) as pipeline, TwoStagePipeline.open(index) as writer:
        monkeypatch.setattr("retrieval.stores.publisher.copy_folder", _no_space)
        writer.ingest([("reef", "Corals build a reef.")])
        assert "readers keep the state before: cannot publish" in caplog.text
        assert (first(writer, "corals"), pipeline.refresh()) == ("reef", False)
        monkeypatch.undo()
        writer.delete(["bread"])
        assert pipeline.refresh()
        assert pipeline.manifest.documents == len(FACTS)
    assert len(publications(index)) == 1


def _no_space(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_publication_of_another_start_of_the_machine_is_made_again(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reader(index):
        pass
    before = publications(index)
    monkeypatch.setattr("retrieval.stores.published.boot_id", lambda: "another")
    with reader(index) as pipeline:
        assert first(pipeline, "tides") == "moon"
    assert publications(index) != before


FORKED = """
with TwoStagePipeline.open(sys.argv[1], read_only=True) as pipeline:
    child = os.fork()
    if child == 0:
        try:
            pipeline.search("tides", rerank=False)
        except BaseException as error:
            print(type(error).__name__, flush=True)
        pipeline.close()
        os._exit(0)
    os.waitpid(child, 0)
    print(pipeline.search("tides", rerank=False)[0].document_id)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_of_a_reader_is_refused_and_leaves_its_parent_alone(index: Path) -> None:
    output, errors = run_python(FORKED, index).communicate(timeout=60)
    assert output == "StoreError\nmoon\n", errors
    assert views(index) == []
