"""Writers that meet, clocks that go back, and points that somebody else has put into an index."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import qdrant_edge

from pipelines import TwoStagePipeline
from retrieval import manifest
from retrieval.errors import StoreBusyError, StoreCorruptError, StoreError
from retrieval.stores.seal import SEAL
from tests.store_folders import closed_index

ROOT = Path(__file__).parents[1]


RACE = """
import sys
from pipelines import TwoStagePipeline
from retrieval.errors import StoreBusyError
sys.stdin.readline()
try:
    with TwoStagePipeline.open(sys.argv[1]) as pipeline:
        pipeline.ingest([(f"{sys.argv[2]}-{number}", f"tide {number}") for number in range(50)])
    print("wrote")
except StoreBusyError:
    print("busy")
"""


def test_processes_that_make_one_index_at_the_same_time(quick_path: Path) -> None:
    command = [sys.executable, "-c", RACE, str(quick_path / "index")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen([*command, str(number)], cwd=ROOT, **pipes) for number in range(4)]  # type: ignore[call-overload]
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    outcomes = [racer.communicate(timeout=60)[0].strip() for racer in racers]
    assert set(outcomes) <= {"wrote", "busy"}
    wrote = [number for number, outcome in enumerate(outcomes) if outcome == "wrote"]
    assert wrote
    with TwoStagePipeline.open(quick_path / "index") as pipeline:
        assert pipeline.manifest.documents == 50 * len(wrote)
        assert {point.payload["document_id"].split("-")[0] for point in pipeline.store.scan()} == set(map(str, wrote))
        pipeline.store.verify()  # type: ignore[attr-defined]


def test_threads_that_write_through_one_pipeline(quick_path: Path) -> None:
    failed: list[BaseException] = []

    def work(pipeline: TwoStagePipeline, name: int) -> None:
        try:
            pipeline.ingest([(f"{name}-{number}", f"tide {number}") for number in range(30)])
            pipeline.delete([f"{name}-{number}" for number in range(0, 30, 3)])
            pipeline.ingest([("shared", f"written last by {name}")])
        except BaseException as error:
            failed.append(error)

    with TwoStagePipeline.open(quick_path / "index") as pipeline:
        threads = [threading.Thread(target=work, args=[pipeline, name]) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert pipeline.manifest.documents == 4 * 20 + 1
        assert pipeline.store.count({"must": [{"key": "document_id", "match": {"value": "shared"}}]}) == 1
        pipeline.store.verify()  # type: ignore[attr-defined]


FORKS = """
import os, sys
from pipelines import TwoStagePipeline
from retrieval.errors import StoreError
with TwoStagePipeline.open(sys.argv[1]) as pipeline:
    pipeline.ingest([("a", "tides of the moon")])
    child = os.fork()
    if child == 0:
        for act in (lambda: pipeline.ingest([("b", "from the child")]), lambda: pipeline.delete(["a"]),
                    lambda: pipeline.search("tides", rerank=False), lambda: TwoStagePipeline.open(sys.argv[1])):
            try:
                act()
                print("done", flush=True)
            except StoreError as error:
                print(type(error).__name__, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    pipeline.ingest([("c", "from the parent")])
    print(pipeline.manifest.documents, flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_can_neither_write_nor_open_what_its_parent_has(quick_path: Path) -> None:
    command = [sys.executable, "-c", FORKS, str(quick_path / "index")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert result.stdout.split() == ["StoreError", "StoreError", "StoreError", "StoreBusyError", "2"], result.stderr
    with TwoStagePipeline.open(quick_path / "index") as pipeline:
        assert {point.payload["document_id"] for point in pipeline.store.scan()} == {"a", "c"}


def test_a_clock_that_goes_back_changes_nothing(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, index = quick_path / "documents", quick_path / "index"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.txt").write_text(f"tides of {name}")
        os.utime(folder / f"{name}.txt", (4e9, 4e9))  # the year 2096
    with TwoStagePipeline.open(index) as pipeline:
        assert pipeline.ingest(folder).added == 3
        pipeline.store.publish()  # type: ignore[attr-defined]
    past = datetime(1999, 12, 31, tzinfo=UTC)
    monkeypatch.setattr(manifest, "datetime", SimpleNamespace(now=lambda zone: past))
    with TwoStagePipeline.open(index, read_only=True) as reader:
        (folder / "a.txt").write_text("tides of another sea")
        os.utime(folder / "a.txt", (0, 0))  # 1970: older than what was indexed
        (folder / "b.txt").unlink()
        with TwoStagePipeline.open(index) as pipeline:
            report = pipeline.ingest(folder, sync=True)
            assert (report.changed, report.unchanged, report.removed) == (1, 1, 1)
            assert pipeline.manifest.runs == 2
            stored = pipeline.store.read_manifest()
            assert stored is not None
            assert stored["updated"] < stored["created"]
            assert pipeline.search("another sea", top_k=1, rerank=False)[0].document_id == "a.txt"
        assert reader.search("another sea", top_k=1, rerank=False)[0].document_id == "a.txt"
    with TwoStagePipeline.open(index) as pipeline:
        assert pipeline.ingest(folder).unchanged == 2
        pipeline.store.verify()  # type: ignore[attr-defined]


@pytest.fixture
def index(quick_path: Path) -> Path:
    return closed_index(quick_path, [("moon", "The moon causes the tides."), ("bread", "Yeast makes dough rise.")])


def put_foreign(index: Path, point_id: int | str, payload: dict[str, object]) -> None:
    """Put a point in the place of one of ours with the engine itself."""
    shard = qdrant_edge.EdgeShard.load(str(index / "generations/1/engine"))
    old, _ = shard.scroll(qdrant_edge.ScrollRequest(limit=1, with_vector=True))
    shard.update(qdrant_edge.UpdateOperation.delete_points([old[0].id]))
    point = qdrant_edge.Point(id=point_id, vector={"dense": old[0].vector["dense"]}, payload=payload)
    shard.update(qdrant_edge.UpdateOperation.upsert_points([point]))
    shard.close()


@pytest.mark.parametrize("point_id", [7, 2**32 - 1, 2**64 - 1])
def test_points_of_another_program_are_noticed(index: Path, point_id: int) -> None:
    copy = index.with_name("copy")
    shutil.copytree(index, copy)
    put_foreign(index, point_id, {"text": "tides"})
    with pytest.raises(StoreCorruptError, match="when the index was last closed"):
        TwoStagePipeline.open(index)
    # Without the seal, as after a kill, the number of points is right and the first that reads it says so.
    put_foreign(copy, point_id, {"text": "tides"})
    (copy / "generations/1" / SEAL).unlink()
    with TwoStagePipeline.open(copy) as pipeline:
        named = f"holds a point with the id {point_id}, which this project has not written"
        with pytest.raises(StoreCorruptError, match=named):
            list(pipeline.store.scan())
        with pytest.raises(StoreCorruptError, match=named):
            pipeline.store.verify()  # type: ignore[attr-defined]
        with pytest.raises(StoreError):
            pipeline.search("tides", rerank=False)


def test_a_point_that_is_ours_by_its_id_alone_is_noticed(index: Path) -> None:
    put_foreign(index, "00000000-0000-4000-8000-000000000001", {"text": "tides"})
    (index / "generations/1" / SEAL).unlink()
    with (
        TwoStagePipeline.open(index) as pipeline,
        pytest.raises(StoreCorruptError, match="holds other points than its manifest says"),
    ):
        pipeline.store.verify()  # type: ignore[attr-defined]


def test_a_second_writer_is_refused_while_readers_are_not(index: Path) -> None:
    with TwoStagePipeline.open(index) as writer:
        writer.store.publish()  # type: ignore[attr-defined]
        with pytest.raises(StoreBusyError, match="this process, through another handle"):
            TwoStagePipeline.open(index)
        with TwoStagePipeline.open(index, read_only=True) as reader:
            assert json.loads((index / "manifest.json").read_text())["documents"] == reader.manifest.documents == 2


def test_an_index_whose_files_are_links_is_refused_and_their_targets_stay(index: Path, quick_path: Path) -> None:
    segment = next((index / "generations/1/engine/segments").iterdir())
    target = quick_path / "somebody-elses"
    shutil.copy(segment / "payload_storage/page_0.dat", target)
    before = target.read_bytes()
    (segment / "payload_storage/page_0.dat").unlink()
    (segment / "payload_storage/page_0.dat").symlink_to(target)
    (index / "generations/1" / SEAL).unlink()
    for read_only in (False, True):
        with pytest.raises(StoreCorruptError, match=r"page_0\.dat is a symbolic link; the files of index .* its own"):
            TwoStagePipeline.open(index, read_only=read_only)
    assert target.read_bytes() == before


def test_a_link_in_the_place_of_publications_is_left_alone(index: Path, quick_path: Path) -> None:
    photos = quick_path / "photos"
    (photos / "2019").mkdir(parents=True)
    (photos / "2019" / "sea.jpg").write_text("sea")
    (index / "published").symlink_to(photos)
    with TwoStagePipeline.open(index) as writer:
        writer.ingest([("reef", "Corals build a reef.")])
        with pytest.raises(StoreError, match="its folder for publications is a link"):
            writer.store.publish()  # type: ignore[attr-defined]
    with TwoStagePipeline.open(index, read_only=True) as reader:
        assert reader.search("corals", rerank=False)[0].document_id == "reef"
    assert [str(path.relative_to(photos)) for path in sorted(photos.rglob("*"))] == ["2019", "2019/sea.jpg"]
