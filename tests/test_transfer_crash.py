"""kill -9 in the middle of a push or a pull: the target serves what it served, and the next run goes on from there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import TwoStagePipeline
from pipelines.transfer.push_pull import pull_index, push_index
from retrieval.config import Config
from retrieval.errors import StoreError
from retrieval.stores import open_store
from tests.adapt_corpus import documents, word, write_model
from tests.qdrant_double import QdrantDouble, qdrant_double
from tests.store_folders import quick_folder
from tests.test_adapt import copied, generations
from tests.test_transfer import collections, contents, found, lasting, on, settings

__all__ = ["qdrant_double"]
DOCUMENTS = 80
BATCH = 10
RUN = """
import json, sys, time
from pipelines.transfer import copying
from pipelines.transfer.push_pull import pull_index, push_index
from retrieval.config import parse_config
copying._POINTS_PER_BATCH = 10
kind, folder, config, *last = sys.argv[1:]
config = parse_config(json.loads(config))
def show(stage, done, of):
    print(stage, done, flush=True)
    if last and stage == last[0] and done >= int(last[1]):
        time.sleep(60)
(push_index(folder, config, on_progress=show) if kind == "push" else pull_index(config, folder, on_progress=show))
print("done", 0, flush=True)
"""


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    with quick_folder() as folder:
        with TwoStagePipeline.open(folder / "index", settings(write_model(folder / "tiny"))) as pipeline:
            pipeline.ingest(documents(DOCUMENTS))
        yield folder


@pytest.fixture
def index(room: Path) -> Iterator[Path]:
    with quick_folder() as folder:
        yield copied(room / "index", folder / "index")


def run_until(kind: str, folder: Path, config: Config, stage: str, done: int, *, hold: bool = True) -> None:
    """Run in a process of its own and kill it when it reports a stage, where it waits for that, or goes on."""
    command = [sys.executable, "-c", RUN, kind, str(folder), config.model_dump_json(exclude_unset=True)]
    command += [stage, str(done)] if hold else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reported = ""
        for line in process.stdout:
            reported, _, number = line.partition(" ")
            if reported == stage and int(number) >= done:
                break
        process.kill()
        assert reported == stage, "the run was over before it could be killed"


@pytest.mark.parametrize(("stage", "done"), [("copying", 10), ("copying", 50), ("comparing", 0)])
def test_a_killed_push_is_continued_and_ends_as_one_that_was_not_killed(
    index: Path, qdrant_double: QdrantDouble, room: Path, stage: str, done: int
) -> None:
    server = on(qdrant_double, room, {"batch_size": BATCH})
    push_index(index, server)
    with TwoStagePipeline.open(index) as ours:
        ours.ingest([("new", word(3, 0))])
    with TwoStagePipeline.open(config=server) as reader:
        before, old = found(reader), reader.manifest
        # The answers to its writes come late, so that the kill meets it in the middle of them.
        writes = "PUT /collections/passages-g3/points$"
        if stage == "copying":
            qdrant_double.fail(writes, status=200, delay_s=0.2, skip=done // BATCH, times=1000)
        run_until("push", index, server, stage, done, hold=stage == "comparing")
        qdrant_double.faults.clear()
        assert collections(qdrant_double) == (["passages-g2", "passages-g3"], {"passages": "passages-g2"})
        assert (found(reader), reader.store.count()) == (before, DOCUMENTS)
    with TwoStagePipeline.open(config=server) as theirs:
        assert (theirs.manifest, found(theirs)) == (old, before)
    written = qdrant_double.count(writes)
    report = push_index(index, server)
    assert report.written + report.continued == DOCUMENTS + 1
    assert report.generation == 3
    if stage == "copying":
        assert done <= report.continued <= DOCUMENTS
        assert report.written > 0
    else:
        assert report.written == 0
        assert qdrant_double.count(writes) == written
    whole = on(qdrant_double, room, {"collection": "whole"})
    assert push_index(index, whole).written == DOCUMENTS + 1
    with TwoStagePipeline.open(config=server) as continued, TwoStagePipeline.open(config=whole) as unkilled:
        assert contents(continued.store) == contents(unkilled.store)
        assert lasting(continued.manifest) == lasting(unkilled.manifest)
        assert found(continued) == found(unkilled) != before


@pytest.mark.parametrize("stage", ["copying", "comparing"])
def test_a_killed_pull_is_continued(qdrant_double: QdrantDouble, room: Path, stage: str) -> None:
    server = on(qdrant_double, room)
    push_index(room / "index", server)
    with quick_folder() as folder:
        target = folder / "pulled"
        config = on(qdrant_double, room, {"batch_size": BATCH})
        run_until("pull", target, config, stage, 40 if stage == "copying" else 0)
        assert generations(target) == ["2"]
        # Half an index is none, and not a damaged one.
        with pytest.raises(StoreError, match="there is no index in"):
            push_index(target, server)
        report = pull_index(server, target)
        assert report.continued + report.written == DOCUMENTS
        assert (report.written > 0) == (stage == "copying")
        assert report.continued >= 40
        with TwoStagePipeline.open(target) as pulled, TwoStagePipeline.open(config=server) as theirs:
            assert pulled.store.count() == DOCUMENTS
            assert found(pulled) == found(theirs)
            assert lasting(pulled.manifest) == lasting(theirs.manifest)
            pulled.store.verify()  # type: ignore[attr-defined]


def test_an_index_in_use_survives_a_killed_pull(index: Path, qdrant_double: QdrantDouble, room: Path) -> None:
    server = on(qdrant_double, room)
    push_index(index, server)
    with TwoStagePipeline.open(config=server) as theirs:
        theirs.ingest([("there", word(3, 0))])
    with TwoStagePipeline.open(index) as ours:
        before = found(ours)
    run_until("pull", index, server, "copying", 40)
    with TwoStagePipeline.open(index) as ours:
        assert (found(ours), ours.manifest.generation, ours.store.count()) == (before, 1, DOCUMENTS)
    assert generations(index) == ["1", "2"]
    assert 40 <= pull_index(server, index).continued <= DOCUMENTS
    assert generations(index) == ["2"]


def test_what_a_killed_push_has_left_goes_with_the_next_generation(
    index: Path, qdrant_double: QdrantDouble, room: Path
) -> None:
    server = on(qdrant_double, room, {"batch_size": BATCH})
    run_until("push", index, server, "copying", 10)
    assert collections(qdrant_double)[0] == ["passages-g1", "passages-g2"]
    # No reader removes it, whatever else it does.
    with TwoStagePipeline.open(config=server) as theirs:
        theirs.ingest([("there", word(3, 0))])
        theirs.store.tidy()
    assert collections(qdrant_double)[0] == ["passages-g1", "passages-g2"]
    store = open_store(server, dim=32)
    store.start_generation(32).abandon()
    store.close()
    assert collections(qdrant_double)[0] == ["passages-g1"]
