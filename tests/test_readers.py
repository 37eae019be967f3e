"""Readers beside a writer: every answer is that of one published state, and nobody writes into another's files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from pipelines import TwoStagePipeline
from pipelines.generations import Generation, fill_generation
from retrieval.config import parse_config
from retrieval.errors import StoreError
from tests.adapt_corpus import WORDS, documents, write_model
from tests.reader_process import FACTS, answers, first, publications, reader, started, state_of, views
from tests.store_folders import closed_index

QUERIES = [*WORDS[:6], "harbour", "lighthouse keeper"]


@pytest.fixture
def index(quick_path: Path) -> Path:
    """A closed index of three documents; nothing of it is published."""
    return closed_index(quick_path, FACTS)


def first_line(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_readers_see_published_states_and_nothing_else(quick_path: Path) -> None:
    write_model(quick_path / "tiny")
    settings = parse_config({"encoder": {"model": str(quick_path / "tiny")}})
    index, corpus = quick_path / "index", list(documents())
    expected: dict[str, Any] = {}
    with TwoStagePipeline.open(index, settings) as writer:

        def note() -> None:
            assert state_of(writer) not in expected
            expected[state_of(writer)] = answers(writer, QUERIES)

        writer.ingest(corpus[: len(corpus) // 2])
        note()
        writer.store.publish()  # type: ignore[attr-defined]
        with contextlib.ExitStack() as running:
            readers = [running.enter_context(started(index, QUERIES)) for _ in range(3)]
            seen = [[first_line(process)] for process in readers]

            def every_reader_turns() -> None:
                for process, lines in zip(readers, seen, strict=True):
                    lines.append(first_line(process))

            writer.ingest(corpus[len(corpus) // 2 :])
            note()
            every_reader_turns()
            writer.ingest([(f"h{number}", f"lighthouse keeper {number} {WORDS[0]}") for number in range(300)])
            note()
            writer.store.optimize()
            writer.delete([f"h{number}" for number in range(0, 300, 2)])
            note()
            every_reader_turns()
            switched(writer)
            note()
            writer.delete(["h1", "h3"])
            note()
            for process, lines in zip(readers, seen, strict=True):
                output, _ = process.communicate("\n", timeout=60)
                lines += [json.loads(line) for line in output.splitlines()]
    assert [process.returncode for process in readers] == [0, 0, 0]
    for *states, searches in seen:
        assert searches > 5
        for answer, state in states:
            assert answer == expected[state], state
        assert (states[0][1], states[-1][1]) == (next(iter(expected)), list(expected)[-1])
    assert len({state for *states, _ in seen for _, state in states}) > 3
    assert len(publications(index)) == 1
    assert views(index) == []


def switched(writer: TwoStagePipeline) -> None:
    """Let another generation serve, with the same vectors in another order of writing."""
    store = writer.store.start_generation(writer.encoder.dim)
    encoded = fill_generation(writer.store, store, writer.encoder, writer.manifest, lambda done, of: None, graph=False)
    writer._make_live(Generation(store, writer.encoder, writer.manifest, encoded))
    assert writer.manifest.generation == 2


def test_readers_leave_the_published_files_as_they_are(index: Path) -> None:
    with TwoStagePipeline.open(index) as writer:
        writer.store.optimize()  # so that there are files to share
        writer.ingest([("reef", "Corals build a reef.")])
        writer.store.publish()  # type: ignore[attr-defined]
    [number] = publications(index)
    before = digests(index / "published" / number)
    shared = [path for path in (index / "published" / number).rglob("*") if path.is_file() and path.stat().st_nlink > 1]
    assert {"matrix.dat", "page_0.dat"} <= {path.name for path in shared}
    with reader(index) as one, reader(index) as two:
        for pipeline in (one, two):
            assert first(pipeline, "tides") == "moon"
            assert first(pipeline, "corals") == "reef"
            assert pipeline.store.facet("document_id", 2)
            assert pipeline.store.facet("source")
        assert len([path for path in views(index) if path.is_dir()]) == 2
    assert digests(index / "published" / number) == before
    assert views(index) == []


def test_a_writer_leaves_the_published_files_as_they_are(index: Path) -> None:
    with TwoStagePipeline.open(index) as writer:
        writer.ingest([(f"d{number}", f"document {number} of the harbour") for number in range(300)])
        writer.store.optimize()
        writer.store.publish()  # type: ignore[attr-defined]
        [number] = publications(index)
        kept = reader(index)
        folder = next(path for path in views(index) if path.is_dir())
        before = digests(index / "published" / number / "generations")
        store = writer.store
        points = list(store.scan(vectors=True))
        store.delete([point.id for point in points[::3]])
        store.flush()
        assert digests(index / "published" / number / "generations") == before
        assert kept.store.count() == len(points)
        assert folder.is_dir()
        kept.close()


def test_reading_is_all_that_a_reader_does(index: Path, quick_path: Path) -> None:
    with pytest.raises(StoreError, match="no index in"):
        TwoStagePipeline.open(quick_path / "nowhere", read_only=True)
    assert not (quick_path / "nowhere").exists()
    with reader(index) as pipeline:
        assert pipeline.store.location == str(index.resolve())
        for change in (
            lambda: pipeline.ingest([("new", "text")]),
            lambda: pipeline.delete(["moon"]),
            lambda: pipeline.adapt(steps=1),
            lambda: pipeline.quantize(),
            lambda: pipeline.store.upsert([]),
            lambda: pipeline.store.delete(["x"]),
            pipeline.store.optimize,
            lambda: pipeline.store.write_manifest({}),
            lambda: pipeline.store.start_generation(4),
        ):
            with pytest.raises(StoreError, match="was opened read-only"):
                change()
        assert pipeline.manifest.documents == len(FACTS)
    with TwoStagePipeline.open(index) as writer:
        assert writer.manifest.documents == len(FACTS)


def test_a_reader_keeps_its_state_until_there_is_a_newer_one(index: Path) -> None:
    with reader(index) as pipeline:
        assert pipeline.refresh() is False
        with TwoStagePipeline.open(index) as writer:
            writer.ingest([("reef", "Corals build a reef.")])
            assert pipeline.refresh() is True
            assert first(pipeline, "corals") == "reef"
            writer.delete(["reef"])
            with pipeline.reading() as serving:  # a search that is under way ends with what it began with
                assert pipeline.refresh() is True
                assert serving.store.count() == len(FACTS) + 1
                assert pipeline.store.count() == len(FACTS)
        assert pipeline.refresh() is False
        pipeline.close()
        assert views(index) == []


def test_a_search_turns_to_a_newer_state_by_itself(index: Path) -> None:
    with reader(index) as pipeline, TwoStagePipeline.open(index) as writer:
        writer.ingest([("reef", "Corals build a reef.")])
        assert first(pipeline, "corals") == "reef"
        assert pipeline.manifest.documents == len(FACTS) + 1


def test_threads_of_one_reader_go_on_while_it_turns(index: Path) -> None:
    failed: list[BaseException] = []
    done = threading.Event()

    def search(pipeline: TwoStagePipeline) -> None:
        try:
            while not done.is_set():
                assert first(pipeline, "tides") == "moon"
        except BaseException as error:
            failed.append(error)

    with reader(index) as pipeline, TwoStagePipeline.open(index) as writer:
        threads = [threading.Thread(target=search, args=[pipeline]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(4):
            writer.ingest([(f"r{number}", "Corals build a reef.")])
            pipeline.refresh()
        done.set()
        for thread in threads:
            thread.join()
        assert not failed
        assert pipeline.manifest.documents == len(FACTS) + 4
    assert views(index) == []
