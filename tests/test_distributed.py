"""Many writers of one index: whatever dies, and however often a part is written, the index is that of one process."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines import TwoStagePipeline
from pipelines.cli import app
from pipelines.ray_ingest import driver
from pipelines.ray_ingest.cluster import cluster
from pipelines.ray_ingest.driver import DistributedIngest
from pipelines.ray_ingest.worker import IndexState, PartReport, PartWorker
from retrieval.config import Config, parse_config
from retrieval.datatypes import IndexManifest, IngestReport, StoredPoint
from retrieval.documents import Part
from retrieval.errors import ConfigError, DocumentError, IndexMismatchError, MissingExtraError, StoreError
from tests.qdrant_double import ROOT, QdrantDouble, qdrant_double

__all__ = ["qdrant_double"]
TOPICS = ("tides", "bread", "guitars", "whales", "primes", "rain", "moon", "dough", "sea", "string")


def sentence(number: int, words: int = 20) -> str:
    return " ".join(random.Random(number).choices(TOPICS, k=words)) + "."


def settings(double: QdrantDouble, collection: str) -> Config:
    store = {"kind": "server", "url": double.url, "collection": collection}
    return parse_config({"store": store})


def write_records(path: Path, texts: dict[str, str]) -> None:
    path.write_text("".join(json.dumps({"_id": name, "text": text}) + "\n" for name, text in texts.items()))


def contents(config: Config) -> tuple[dict[str, StoredPoint], dict[str, Any]]:
    with TwoStagePipeline.open(config=config) as pipeline:
        points = {point.id: point for point in pipeline.store.scan(vectors=True)}
        manifest = pipeline.manifest
    names = ("documents", "passages", "terms", "ids_digest", "state", "average_length")
    return points, {name: getattr(manifest, name) for name in names}


def assert_same(actual: Config, expected: Config) -> None:
    points, manifest = contents(actual)
    wanted, wanted_manifest = contents(expected)
    assert manifest == wanted_manifest
    assert points.keys() == wanted.keys()
    for name, point in wanted.items():
        found = points[name]
        assert {**found.payload, "run": 0} == {**point.payload, "run": 0}
        # The in-process engine normalises a point that it has already a little differently.
        np.testing.assert_allclose(np.array(found.dense), np.array(point.dense), atol=1e-6)
        assert (found.sparse is None) == (point.sparse is None)
        if found.sparse is not None and point.sparse is not None:
            np.testing.assert_array_equal(found.sparse.indices, point.sparse.indices)
            np.testing.assert_array_equal(found.sparse.values, point.sparse.values)


def one_process(config: Config, path: Path, *, sync: bool = False) -> IngestReport:
    with TwoStagePipeline.open(config=config) as pipeline:
        return pipeline.ingest(path, sync=sync)


Schedule = Callable[[Sequence[Part], PartWorker], Iterator[PartReport]]


def in_order(parts: Sequence[Part], worker: PartWorker) -> Iterator[PartReport]:
    for part in parts:
        yield worker.write(part)


def backwards_and_twice(parts: Sequence[Part], worker: PartWorker) -> Iterator[PartReport]:
    for part in reversed(parts):
        lost = worker.write(part)
        report = worker.write(part)
        assert report.counts == lost.counts
        assert {record.tobytes() for record in report.records} == {record.tobytes() for record in lost.records}
        yield lost
        yield report


@pytest.fixture
def many_writers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., IngestReport]:
    """`DistributedIngest` with workers in this process, in an order that the test says."""

    def run(
        config: Config, path: Path, schedule: Schedule = in_order, *, sync: bool = False, part_bytes: int = 60
    ) -> IngestReport:
        def written(parts: Sequence[Part], state: IndexState, workers: int | None) -> Iterator[PartReport]:
            worker = PartWorker(state)
            try:
                yield from schedule(parts, worker)
            finally:
                worker.close()

        monkeypatch.setattr(driver, "cluster", lambda address: nullcontext())
        monkeypatch.setattr(driver, "written", written)
        with TwoStagePipeline.open(config=config) as pipeline:
            ingest = DistributedIngest(
                config,
                pipeline.store,
                pipeline.encoder,
                pipeline.sparse,
                pipeline._chunker(pipeline.encoder),
                pipeline.manifest,
            )
            return ingest.run(path, address="", sync=sync, part_bytes=part_bytes)

    return run


def numbers(report: IngestReport) -> tuple[int, ...]:
    return report.added, report.changed, report.unchanged, report.removed, report.rejected_count, report.passages


@pytest.mark.parametrize("schedule", [in_order, backwards_and_twice])
def test_parts_written_in_any_order_and_twice_make_the_same_index(
    qdrant_double: QdrantDouble, tmp_path: Path, many_writers: Callable[..., IngestReport], schedule: Schedule
) -> None:
    write_records(tmp_path / "a.jsonl", {f"a{n}": sentence(n) for n in range(12)})
    (tmp_path / "long.md").write_text("\n\n".join(f"# Part {n}\n\n{sentence(n, 300)}" for n in range(9)))
    (tmp_path / "empty.txt").write_text(" ")
    one, many = settings(qdrant_double, "one"), settings(qdrant_double, "many")
    expected = one_process(one, tmp_path)
    assert numbers(many_writers(many, tmp_path, schedule)) == numbers(expected)
    assert expected.added == 13
    assert expected.rejected_count == 1
    assert_same(many, one)
    # A second run finds everything in its place.
    assert numbers(many_writers(many, tmp_path, schedule)) == (0, 0, 13, 0, 1, 0)
    assert_same(many, one)


@pytest.mark.parametrize("schedule", [in_order, backwards_and_twice])
def test_changed_repeated_and_vanished_documents(
    qdrant_double: QdrantDouble, tmp_path: Path, many_writers: Callable[..., IngestReport], schedule: Schedule
) -> None:
    path = tmp_path / "a.jsonl"
    one, many = settings(qdrant_double, "one"), settings(qdrant_double, "many")
    first = {f"a{n}": sentence(n) for n in range(12)}
    write_records(path, first)
    one_process(one, path)
    many_writers(many, path, schedule)
    second = [(name, text) for name, text in first.items() if name != "a11"]
    second[3] = ("a3", sentence(103))
    second[4] = ("a4", "")
    second += [("a5", sentence(5)), ("a6", sentence(106)), ("a3", sentence(3)), ("b1", sentence(201))]
    second += [("b1", sentence(202)), ("b2", sentence(203)), ("b2", sentence(203)), ("b1", sentence(202))]
    path.write_text("".join(json.dumps({"_id": name, "text": text}) + "\n" for name, text in second))
    expected = one_process(one, path, sync=True)
    # a3 changed; b1 and b2 are new; a11 and a4, empty now, are gone; a5, a6, a3, b1, b2, b1 came again.
    assert numbers(expected) == (2, 1, 9, 2, 7, 3)
    report = many_writers(many, path, schedule, sync=True)
    assert numbers(report)[:5] == numbers(expected)[:5]
    assert sorted(r.source.rpartition("#")[2] for r in report.rejected) == ["5", "a3", "a5", "a6", "b1", "b1", "b2"]
    assert_same(many, one)


def test_an_attempt_that_failed_half_way_is_made_good(
    qdrant_double: QdrantDouble, tmp_path: Path, many_writers: Callable[..., IngestReport]
) -> None:
    write_records(tmp_path / "a.jsonl", {f"a{n}": sentence(n, 8) for n in range(300)})
    one, many = settings(qdrant_double, "one"), settings(qdrant_double, "many")
    expected = one_process(one, tmp_path)

    def schedule(parts: Sequence[Part], worker: PartWorker) -> Iterator[PartReport]:
        (part,) = parts
        qdrant_double.fail("PUT .*/points$", status=400, applied=True, skip=1)
        with pytest.raises(StoreError, match="fault"):
            worker.write(part)
        yield worker.write(part)

    report = many_writers(many, tmp_path, schedule, part_bytes=10**6)
    assert numbers(report) == numbers(expected)
    assert_same(many, one)


def test_a_run_without_all_parts_is_not_committed(
    qdrant_double: QdrantDouble, tmp_path: Path, many_writers: Callable[..., IngestReport]
) -> None:
    write_records(tmp_path / "a.jsonl", {f"a{n}": sentence(n) for n in range(20)})
    one, many = settings(qdrant_double, "one"), settings(qdrant_double, "many")
    with pytest.raises(StoreError, match=r"1 of 20 parts never came back, such as part 19"):
        many_writers(many, tmp_path, lambda parts, worker: in_order(parts[:-1], worker))
    assert contents(many)[1]["state"] == "ingesting"
    assert numbers(one_process(many, tmp_path)) == (1, 0, 19, 0, 0, 1)
    one_process(one, tmp_path)
    assert_same(many, one)


def test_files_that_change_under_the_readers_are_counted_as_they_are(
    qdrant_double: QdrantDouble, tmp_path: Path, many_writers: Callable[..., IngestReport]
) -> None:
    path = tmp_path / "a.txt"
    path.write_text(sentence(1))
    many = settings(qdrant_double, "many")

    def schedule(parts: Sequence[Part], worker: PartWorker) -> Iterator[PartReport]:
        worker.write(parts[0])
        path.write_text(sentence(2))
        yield worker.write(parts[0])

    many_writers(many, path, schedule)
    points, manifest = contents(many)
    assert (len(points), manifest["passages"], manifest["documents"]) == (1, 1, 1)


def test_a_worker_refuses_what_the_driver_has_not_announced(qdrant_double: QdrantDouble, tmp_path: Path) -> None:
    config = settings(qdrant_double, "books")
    with TwoStagePipeline.open(config=config) as pipeline:
        manifest: IndexManifest = pipeline.manifest
    with pytest.raises(StoreError, match="finds no index"):
        PartWorker(IndexState(settings(qdrant_double, "films"), manifest, empty=True))
    assert qdrant_double.count("PUT /collections/films") == 0
    with pytest.raises(IndexMismatchError, match=r"version 0\.0\.0"):
        PartWorker(IndexState(config, manifest, empty=True, version="0.0.0"))
    (tmp_path / "a.txt").write_text(sentence(1))
    one_process(config, tmp_path)
    with pytest.raises(StoreError, match="run 1, ready is not what the driver has announced"):
        PartWorker(IndexState(config, manifest, empty=True))


def test_an_embedded_index_has_one_writer(tmp_path: Path) -> None:
    with (
        TwoStagePipeline.open(config=parse_config({"store": {"kind": "memory"}})) as pipeline,
        pytest.raises(ConfigError, match=r"needs store\.kind: server"),
    ):
        pipeline.ingest_distributed(tmp_path, address="local")


def test_a_source_that_cannot_be_read_changes_nothing(
    qdrant_double: QdrantDouble, tmp_path: Path, many_writers: Callable[..., IngestReport]
) -> None:
    config = settings(qdrant_double, "books")
    with pytest.raises(DocumentError, match="cannot open"):
        many_writers(config, tmp_path / "none")
    assert contents(config)[1]["state"] == "ready"


def test_a_source_without_files_changes_nothing(
    qdrant_double: QdrantDouble, tmp_path: Path, many_writers: Callable[..., IngestReport]
) -> None:
    config = settings(qdrant_double, "books")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text(sentence(1))
    (tmp_path / "empty").mkdir()
    many_writers(config, tmp_path / "full")
    before = contents(config)[1]
    assert numbers(many_writers(config, tmp_path / "empty")) == (0, 0, 0, 0, 0, 0)
    with pytest.raises(DocumentError, match="nothing was read"):
        many_writers(config, tmp_path / "empty", sync=True)
    assert contents(config)[1] == before


def test_a_worker_that_does_not_see_the_files_fails_the_run(
    qdrant_double: QdrantDouble, tmp_path: Path, many_writers: Callable[..., IngestReport]
) -> None:
    path = tmp_path / "a.txt"
    path.write_text(sentence(1))

    def schedule(parts: Sequence[Part], worker: PartWorker) -> Iterator[PartReport]:
        path.unlink()
        return in_order(parts, worker)

    with pytest.raises(DocumentError, match=r"a\.txt is not there; all machines"):
        many_writers(settings(qdrant_double, "books"), path, schedule)


def test_of_two_ingests_at_once_the_first_is_not_committed(
    qdrant_double: QdrantDouble, tmp_path: Path, many_writers: Callable[..., IngestReport]
) -> None:
    config = settings(qdrant_double, "books")
    write_records(tmp_path / "a.jsonl", {f"a{n}": sentence(n) for n in range(20)})
    (tmp_path / "b.txt").write_text(sentence(100))

    def schedule(parts: Sequence[Part], worker: PartWorker) -> Iterator[PartReport]:
        yield from in_order(parts, worker)
        one_process(config, tmp_path / "b.txt")

    with pytest.raises(StoreError, match=r"another ingest has written to .* meanwhile"):
        many_writers(config, tmp_path / "a.jsonl", schedule)


def test_without_ray_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'two-stage-retrieval\[ray\]'"), cluster("local"):
        pass


@pytest.mark.parametrize(
    "address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "nonsense", "http://127.0.0.1:{port}"]
)
def test_a_cluster_that_is_not_there_is_an_error_at_once(address: str) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'two-stage-retrieval[ray]'")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConfigError, match=r"cannot reach a Ray cluster at '.*(refused|an address is local)"):
        cluster(address.format(port=port)).__enter__()


def test_the_command_refuses_what_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(sentence(1))
    common = ["ingest", str(tmp_path), "--ray", "local", "--index", str(tmp_path / "index")]
    embedded = CliRunner().invoke(app, common)
    assert (embedded.exit_code, (tmp_path / "index").exists()) == (2, False)
    assert "set store.kind to server, not edge" in " ".join(embedded.stderr.split())


# --- With Ray itself: a cluster of its own on this machine, in a process of its own.


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A folder of text files, JSON lines and a parquet table, with a document that comes twice: two parts."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'two-stage-retrieval[ray]'")
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder = tmp_path / "library"
    folder.mkdir()
    for number in range(550):
        (folder / f"{number:04}.txt").write_text(sentence(number))
    write_records(folder / "records.jsonl", {f"r{n}": sentence(5000 + n) for n in range(100)})
    with (folder / "records.jsonl").open("a") as file:
        file.write(json.dumps({"_id": "r7", "text": "again"}) + "\n")
    pq.write_table(pa.Table.from_pylist([{"text": sentence(6000 + n)} for n in range(50)]), folder / "table.parquet")
    return folder


def start(config: Path, library: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines", "ingest", "--config", str(config), "--ray", "local", "--json"]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    return subprocess.Popen(
        [*command, str(library)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def descendants(pid: int) -> dict[int, str]:
    """Processes that a process has started, by themselves or through others, with their command lines."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [(int(row[0]), int(row[1]), row[2]) for row in (line.split(None, 2) for line in listing.splitlines())]
    found = {pid: ""}
    for _ in range(6):
        found |= {child: command for child, parent, command in rows if parent in found}
    return found


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, f"the ingest ended too early: {process.communicate()}"
        assert time.monotonic() < deadline, "nothing has come"
        time.sleep(0.02)


def test_killed_drivers_and_workers_leave_nothing_lost_or_doubled(
    qdrant_double: QdrantDouble, tmp_path: Path, library: Path
) -> None:
    one, many = settings(qdrant_double, "one"), settings(qdrant_double, "many")
    expected = one_process(one, library)
    assert numbers(expected) == (700, 0, 0, 0, 1, 700)
    config = tmp_path / "server.yaml"
    config.write_text(f"store: {{kind: server, url: '{qdrant_double.url}', collection: many}}\n")

    # The driver is killed while a worker waits for the answer to its second write.
    qdrant_double.fail("PUT /collections/many.*/points$", status=200, applied=True, skip=1, delay_s=3)
    driver = start(config, library)
    writes = "PUT /collections/many.*/points$"
    wait_until(lambda: qdrant_double.count(writes) >= 2, driver)
    cluster = descendants(driver.pid)
    driver.kill()
    driver.communicate()
    wait_for_end([pid for pid, command in cluster.items() if "MapWorker" in command])
    # What is left of the cluster would take a minute to notice.
    for pid in cluster:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with TwoStagePipeline.open(config=many) as pipeline:
        assert pipeline.manifest.state == "ingesting"
        assert 0 < pipeline.store.count() < 700

    # The next run goes on from there, and all of its workers are killed while they wait for an answer.
    seen = qdrant_double.count(writes)
    qdrant_double.fail(writes, status=200, applied=True, delay_s=3)
    driver = start(config, library)
    wait_until(lambda: qdrant_double.count(writes) > seen, driver)
    workers = [pid for pid, command in descendants(driver.pid).items() if "MapWorker" in command]
    assert workers, "no worker was found to kill"
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    output, log = driver.communicate(timeout=240)
    assert driver.returncode == 0, log
    assert "A worker died" in log
    report = json.loads(output)
    assert report["added"] + report["unchanged"] == 700
    assert report["unchanged"] > 0
    assert [rejected["source"].rpartition("/")[2] for rejected in report["rejected"]] == ["records.jsonl#101"]
    assert_same(many, one)


def wait_for_end(pids: Sequence[int]) -> None:
    assert pids, "no worker was found"
    deadline = time.monotonic() + 60
    while living := [pid for pid in pids if is_running(pid)]:
        assert time.monotonic() < deadline, f"workers {living} outlive their driver"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether a process is there and not a zombie that nobody has asked about."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(done.stdout.strip()) and not done.stdout.startswith("Z")
