"""Two processes make the index that one makes, also when one of the two dies."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import TwoStagePipeline, second_process
from pipelines.preparation_messages import Recipe, portable
from pipelines.preparation_process import OtherProcess
from retrieval.config import Config, parse_config
from retrieval.datatypes import Document, IngestProgress, IngestReport
from retrieval.errors import DocumentError, MissingExtraError, RetrievalError, StoreFullError

TOPICS = ("tides", "bread", "guitars", "whales", "primes", "rain")
WORDS = (*TOPICS, "the", "moon", "dough", "sea", "string", "number", "tuning", "flour", "depth", "storm")
INGEST = """
import sys
from pipelines import TwoStagePipeline
from retrieval.config import parse_config
config = parse_config({"documents": {"second_process": True}})
with TwoStagePipeline.open(sys.argv[1], config) as pipeline:
    pipeline.ingest(sys.argv[2], on_progress=lambda progress: print(progress.passages, flush=True))
"""


def settings(second: bool | str, kind: str = "edge") -> Config:
    return parse_config({"documents": {"second_process": second}, "store": {"kind": kind}})


def text_of(chosen: random.Random, number: int, edition: str) -> str:
    opening = edition if number % 3 == 0 else "same"
    parts = range(12 if number % 40 == 0 else 1)
    return "\n\n".join(f"# Part {part}\n\n{opening} {' '.join(chosen.choices(WORDS, k=60))}." for part in parts)


def write_lines(path: Path, edition: str = "first", count: int = 900) -> Path:
    """Records of which some are long, some unknown to both arms, some come twice, and some cannot be read."""
    chosen = random.Random(5)
    lines = []
    for number in range(count):
        if number % 100 == 7:
            lines.append("{broken")
        if number % 100 == 11:
            lines.append(json.dumps({"_id": f"unknown-{number}", "text": "\u2603 \u2603"}))
        record = {
            "_id": f"d{number}",
            "text": text_of(chosen, number, edition),
            "title": f"On {number}",
            "year": number,
        }
        lines.append(json.dumps(record))
        if number % 100 == 13:
            lines.append(json.dumps({"_id": f"d{number}", "text": "the same id again"}))
    lines.append('{"_id": "last", "text": ""}')
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def contents(pipeline: TwoStagePipeline) -> tuple[list[Any], dict[str, Any]]:
    points = [
        (
            point.id,
            dict(point.payload),
            None if point.dense is None else point.dense.tobytes(),
            None if point.sparse is None else (point.sparse.indices.tobytes(), point.sparse.values.tobytes()),
        )
        for point in pipeline.store.scan(vectors=True)
    ]
    names = ("average_length", "documents", "passages", "terms", "ids_digest", "state", "runs")
    return points, {name: getattr(pipeline.manifest, name) for name in names}


def told(report: IngestReport) -> tuple[object, ...]:
    return report.added, report.changed, report.unchanged, report.removed, report.passages, report.rejected


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[OtherProcess]:
    """The second processes of this test, in the order of their start."""
    processes: list[OtherProcess] = []

    def start(recipe: Recipe) -> OtherProcess:
        processes.append(OtherProcess(recipe))
        return processes[-1]

    monkeypatch.setattr(second_process, "OtherProcess", start)
    return processes


def test_two_processes_write_what_one_writes(tmp_path: Path, started: list[OtherProcess]) -> None:
    path = tmp_path / "records.jsonl"
    made = {}
    for second in (False, True):
        with TwoStagePipeline.open(tmp_path / f"index-{second}", settings(second)) as pipeline:
            reports = [told(pipeline.ingest(write_lines(path))), told(pipeline.ingest(path))]
            reports.append(told(pipeline.ingest(write_lines(path, "second", count=800), sync=True)))
            made[second] = (reports, *contents(pipeline))
    assert made[True] == made[False]
    assert len(started) == 3
    first, again, changed = made[True][0]
    assert (first[0], again[2]) == (900, 900)
    assert changed[:4] == (0, 267, 533, 100)
    reasons = ["is not valid JSON", "occurred before", "no word of it is known", "column 'text' is empty"]
    assert [sum(reason in rejected.reason for rejected in first[5]) for reason in reasons] == [9, 9, 9, 1]


def test_a_folder_is_read_in_order_by_the_second_process(tmp_path: Path, started: list[OtherProcess]) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    chosen = random.Random(3)
    for number in range(300):
        (folder / f"{number:03}.md").write_text(text_of(chosen, number, "first"), encoding="utf-8")
    (folder / "empty.txt").write_text("")
    (folder / "broken.csv").write_text("a,b\n1,2\n")
    made = {}
    for second in (False, True):
        with TwoStagePipeline.open(tmp_path / f"index-{second}", settings(second)) as pipeline:
            made[second] = (told(pipeline.ingest(folder)), *contents(pipeline))
    assert made[True] == made[False]
    assert [Path(rejected.source).name for rejected in made[True][0][5]] == ["broken.csv", "empty.txt"]
    assert len(started) == 1


def test_documents_from_python_are_encoded_beside(tmp_path: Path, started: list[OtherProcess]) -> None:
    chosen = random.Random(9)
    texts = [text_of(chosen, number, "first") for number in range(1500)]
    made = {}
    ready: list[bool] = []

    def documents(second: bool) -> Iterator[Document | tuple[str, str]]:
        for number, text in enumerate(texts):
            if second and number == 600:
                ready.append(started[0].is_ready(wait=True))
            yield ("d5", "again") if number == 700 else Document(f"d{number}", text, metadata={"n": number})

    for second in (False, True):
        with TwoStagePipeline.open(tmp_path / f"index-{second}", settings(second)) as pipeline:
            made[second] = (told(pipeline.ingest(documents(second))), *contents(pipeline))
    assert ready == [True]
    assert made[True] == made[False]
    assert "occurred before" in made[True][0][5][0].reason


def test_a_source_that_fails_keeps_what_came_before(tmp_path: Path, started: list[OtherProcess]) -> None:
    def documents() -> Iterator[Document]:
        for number in range(1000):
            if number == 900:
                assert started[0].is_ready(wait=True)
                raise ConnectionError("the feed is gone")
            yield Document(f"d{number}", f"tides and bread {number}")

    with TwoStagePipeline.open(tmp_path / "index", settings(True)) as pipeline:
        with pytest.raises(ConnectionError, match="the feed is gone"):
            pipeline.ingest(documents())
        assert pipeline.store.count() == 768
        assert has_ended(started[0])
        assert (
            pipeline.ingest([Document(f"d{number}", f"tides and bread {number}") for number in range(1000)]).added
            == 232
        )


def test_errors_of_readers_arrive_as_they_are(tmp_path: Path, started: list[OtherProcess]) -> None:
    table = tmp_path / "table.csv"
    table.write_text("a,b\n1,2\n")
    messages = []
    for second in (False, True):
        with TwoStagePipeline.open(config=settings(second, "memory")) as pipeline:
            with pytest.raises(DocumentError) as error:
                pipeline.ingest(table)
            messages.append(str(error.value))
            with pytest.raises(DocumentError, match="cannot open"):
                pipeline.ingest(tmp_path / "nothing")
    assert messages[0] == messages[1]
    assert all(map(has_ended, started))


def test_a_second_process_that_is_killed_ends_the_run_and_loses_nothing(
    tmp_path: Path, started: list[OtherProcess]
) -> None:
    path = write_lines(tmp_path / "records.jsonl")

    def kill(progress: IngestProgress) -> None:
        if progress.passages:
            os.kill(started[0].pid, signal.SIGKILL)

    with TwoStagePipeline.open(tmp_path / "whole", settings(False)) as pipeline:
        report, expected = pipeline.ingest(path), contents(pipeline)
    with TwoStagePipeline.open(tmp_path / "index", settings(True)) as pipeline:
        with pytest.raises(RetrievalError, match=r"was killed by signal 9; .* run the same ingest again"):
            pipeline.ingest(path, on_progress=kill)
        written = pipeline.store.count()
        assert 0 < written < report.passages
        again = pipeline.ingest(path)
        assert again.added + again.unchanged == report.added
        assert again.unchanged > 0
        points, manifest = contents(pipeline)
    assert [(name, payload | {"run": 1}, *vectors) for name, payload, *vectors in points] == expected[0]
    assert manifest == expected[1] | {"runs": 2}


def test_an_interrupt_ends_the_second_process(tmp_path: Path, started: list[OtherProcess]) -> None:
    def interrupt(progress: IngestProgress) -> None:
        if progress.passages:
            raise KeyboardInterrupt

    with TwoStagePipeline.open(tmp_path / "index", settings(True)) as pipeline:
        with pytest.raises(KeyboardInterrupt):
            pipeline.ingest(write_lines(tmp_path / "records.jsonl"), on_progress=interrupt)
        assert has_ended(started[0])
        assert pipeline.ingest(tmp_path / "records.jsonl").unchanged > 0


def has_ended(process: OtherProcess) -> bool:
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the child in /proc")
def test_when_the_writer_is_killed_the_second_process_ends_and_the_next_run_completes(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "records.jsonl", count=3000)
    command = [sys.executable, "-c", INGEST, str(tmp_path / "index"), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert any(int(line) > 0 for line in writer.stdout)
        (child,) = children_of(writer.pid)
        writer.kill()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{child}").exists()
    with TwoStagePipeline.open(tmp_path / "index", settings(True)) as pipeline:
        assert pipeline.manifest.state == "ingesting"
        report = pipeline.ingest(path)
        assert report.added + report.unchanged == 3000
        assert report.unchanged > 0
        assert pipeline.store.count() == pipeline.manifest.passages


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_where_it_cannot_have_the_same_encoder_one_process_does_it_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(second_process, "__version__", "0.0.0")
    with TwoStagePipeline.open(config=settings(True, "memory")) as pipeline, caplog.at_level(logging.WARNING):
        assert pipeline.ingest(write_lines(tmp_path / "records.jsonl")).added == 900
    assert "reading and encoding stay in one process: ImportError" in caplog.text
    assert "not 0.0.0" in caplog.text


@pytest.mark.parametrize("second", [False, "auto"])
def test_small_sources_get_no_second_process(tmp_path: Path, started: list[OtherProcess], second: bool | str) -> None:
    with TwoStagePipeline.open(config=settings(second, "memory")) as pipeline:
        assert pipeline.ingest(write_lines(tmp_path / "records.jsonl")).added == 900
        assert pipeline.ingest([("a", "tides")]).added == 1
    assert not started


def test_large_sources_get_one(tmp_path: Path, started: list[OtherProcess], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_process, "PAYS_FROM_BYTES", 1000)
    monkeypatch.setattr(second_process, "_cores", lambda: 2)
    with TwoStagePipeline.open(config=settings("auto", "memory")) as pipeline:
        assert pipeline.ingest(write_lines(tmp_path / "records.jsonl")).added == 900
        assert len(started) == 1
        pipeline.ingest([("a", "tides" * 300), *((f"b{number}", f"tides {number}") for number in range(600))])
        assert len(started) == 2
    monkeypatch.setattr(second_process, "_cores", lambda: 1)
    with TwoStagePipeline.open(config=settings("auto", "memory")) as pipeline:
        pipeline.ingest(tmp_path / "records.jsonl")
    assert len(started) == 2
    assert all(map(has_ended, started))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DocumentError("no column named text"), DocumentError),
        (StoreFullError("full"), StoreFullError),
        (MissingExtraError("pypdf", "documents", "a.pdf"), MissingExtraError),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), UnicodeDecodeError),
    ],
)
def test_errors_travel(error: Exception, expected: type[Exception]) -> None:
    carried = portable(error)
    assert type(carried) is expected
    assert str(carried) == str(error)


def test_an_error_that_cannot_travel_says_what_it_was() -> None:
    class LocalError(Exception):
        pass

    assert str(portable(LocalError("about tides"))) == "LocalError: about tides"
