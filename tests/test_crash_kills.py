"""A short run of `benchmarks.reliability`, and what its long runs have found."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.reliability.__main__ import NAMES, append, read, schedule, write
from benchmarks.reliability.checks import Acknowledged, Rules, compare, examine
from benchmarks.reliability.contents import NOTHING, contents_of
from benchmarks.reliability.corpus import documents, word
from benchmarks.reliability.killing import Moment, Run, run_worker
from benchmarks.reliability.operations import OPERATIONS, copied
from benchmarks.reliability.trial import Bench, R, kill_once, prepare
from pipelines import TwoStagePipeline
from pipelines.deep import deep_check
from retrieval.datatypes import SearchRequest
from retrieval.stores.edge import EdgeStore
from retrieval.stores.file_digests import digest_file
from tests.store_folders import quick_folder

KILLS = {"delete-ids": 3, "rebuild": 2, "optimize": 2}
SEED = 5


class Here:
    """Runs checks in this process: a new one would take longer than they do."""

    def call(self, function: Callable[..., R], *arguments: Any, **keywords: Any) -> R:
        return function(*arguments, **keywords)


@pytest.fixture(scope="module")
def work() -> Iterator[Path]:
    with quick_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def benches(work: Path) -> dict[str, Bench]:
    return {name: prepare(name, work, Here(), twice=False) for name in KILLS}


@pytest.mark.parametrize("name", KILLS)
def test_nothing_is_lost_in_a_kill(benches: dict[str, Bench], name: str) -> None:
    records = [kill_once(benches[name], number, SEED, Here()) for number in range(KILLS[name])]
    assert [record["failed"] for record in records if record["struck"]] == [[]] * len(records)


def test_a_worker_dies_at_the_step_that_was_named(benches: dict[str, Bench], work: Path) -> None:
    bench = benches["delete-ids"]
    index = copied(bench.room / "index", work / "step")
    run = run_worker(
        "delete-ids", index, bench.room, Moment("step", "tree", label="before replace manifest.json", number=2)
    )
    assert run.struck
    assert run.steps()[-1] != "after replace manifest.json"
    assert run.steps().count("before replace manifest.json") == 1
    assert json.loads((index / "manifest.json").read_text())["state"] == "ingesting"


def test_the_checks_see_what_is_wrong(benches: dict[str, Bench], work: Path) -> None:
    """What the checks of a kill are worth: an index that lost, keeps, or has changed something does not pass."""
    bench = benches["delete-ids"]
    index = copied(bench.room / "index", work / "wrong")
    stored = sorted(bench.before.documents())
    acknowledged = Acknowledged(stored=("gone",), removed=(stored[0],), passages=len(bench.before.points) + 1)
    found = examine(index, bench.before, bench.after, acknowledged, Rules())
    assert "gone" in found["acknowledged"]
    assert f"1 documents are there again, {stored[0]}" in found["acknowledged"]
    assert "passages were acknowledged" in found["acknowledged"]
    assert found["found"].startswith("2 searches: gone is not found")
    with TwoStagePipeline.open(index) as pipeline:
        victim = next(point for point in pipeline.store.scan() if point.payload["document_id"] == stored[-1])
        pipeline.store.delete([victim.id])
        pipeline.store.write_manifest({**(pipeline.store.read_manifest() or {}), "state": "ingesting"})
    found = examine(index, bench.before, bench.before, Acknowledged(), Rules(whole=True))
    assert "1 documents are lost" in found["kept"]
    assert found["contents"]
    assert compare(index, bench.before)["points"].startswith("1 differ")
    assert compare(index, NOTHING)["manifest"]


def test_a_deletion_that_dies_leaves_no_document_that_passes_for_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A document of which a part was removed used to count as complete, so that an ingest took it for unchanged."""
    texts = [("long", "\n\n".join(f"{record['text']}" for record in documents(count=48))), ("short", "a tide")]
    settled = tmp_path / "settled"
    with TwoStagePipeline.open(settled) as pipeline:
        pipeline.ingest(texts)
    expected = contents_of(settled)
    delete, calls = EdgeStore.delete, []

    def dying(store: EdgeStore, ids: Sequence[str]) -> None:
        if calls:
            raise KeyboardInterrupt
        calls.append(len(ids))
        delete(store, ids)

    monkeypatch.setattr("pipelines.writer._POINTS_PER_BATCH", 8)
    index = copied(settled, tmp_path / "index")
    with TwoStagePipeline.open(index) as pipeline:
        monkeypatch.setattr(EdgeStore, "delete", dying)
        with pytest.raises(KeyboardInterrupt):
            pipeline.delete(["long"])
        monkeypatch.setattr(EdgeStore, "delete", delete)
    assert calls == [8]
    with TwoStagePipeline.open(index) as pipeline:
        report = pipeline.ingest(texts)
    assert (report.added, report.unchanged) == (1, 1)
    assert contents_of(index).points == expected.points


def test_points_that_an_optimization_left_in_two_segments_count_once(tmp_path: Path) -> None:
    """One that was killed between putting the new segment in its place and removing the old."""
    index = tmp_path / "index"
    with TwoStagePipeline.open(index) as pipeline:
        pipeline.ingest([dict(record) for record in documents(count=40)])
    settled = contents_of(index)
    old = copied(index, tmp_path / "old")
    with TwoStagePipeline.open(index) as pipeline:
        pipeline.store.optimize()
    segments = "generations/1/engine/segments"
    for segment in (old / segments).iterdir():
        if not (index / segments / segment.name).exists():
            copied(segment, index / segments / segment.name)
    (index / "generations/1/seal.json").unlink()
    with TwoStagePipeline.open(index) as pipeline:
        query = SearchRequest(pipeline.sparse.encode_queries([word("d0001")])[0], 3)
        score = pipeline.store.search([query])[0][0].score
    with TwoStagePipeline.open(old) as pipeline:
        assert pipeline.store.search([query])[0][0].score == pytest.approx(score)
    assert contents_of(index) == settled
    assert deep_check(index, apart=False).ok


@pytest.mark.skipif(not hasattr(os, "SEEK_DATA"), reason="this system does not tell where a file has holes")
def test_a_block_that_begins_with_a_hole_is_digested(tmp_path: Path) -> None:
    """Looking for the end of its data began at the hole, for ever."""
    digests = set()
    for name, hole in (("sparse", True), ("written", False)):
        path = tmp_path / name
        with path.open("wb") as file:
            file.write(b"x" * 65_536)
            if hole:
                file.seek(65_536 + 32_768)
            else:
                file.write(bytes(32_768))
            file.write(b"y" * 4_096)
            file.truncate(400_000)
        digests.add(digest_file(path).digest)
    assert len(digests) == 1


def test_kills_are_shared_out_and_counted_once(tmp_path: Path) -> None:
    planned = schedule(240, NAMES)
    assert 240 <= len(planned) == len(set(planned)) <= 240 + len(NAMES)
    assert {name for name, _ in planned} == set(NAMES)
    assert schedule(240, ["sync"]) == [item for item in planned if item[0] == "sync"]
    file = tmp_path / "records.jsonl"
    for number, problem in ((0, "lost"), (0, ""), (1, "")):
        append(file, _record(number, problem))
    records = read(file)
    assert len(records) == 2
    write(tmp_path / "reliability.json", records, 1, 2)
    report = json.loads((tmp_path / "reliability.json").read_text())
    assert (report["totals"]["kills"], report["totals"]["failed"], report["totals"]["missed"]) == (2, 0, 6)
    text = (tmp_path / "reliability.md").read_text()
    assert "2 kills: 2 times the index opened at once" in text
    assert f"| sync | {OPERATIONS['sync'].says} | 2 | 2 | 2 | 2 |" in text


def _record(number: int, problem: str) -> dict[str, Any]:
    from benchmarks.reliability.trial import as_record

    moment, run = Moment("time", "tree", 0.5), Run(said=[{"stage": "reading"}])
    record = as_record("sync", number, moment, run, Acknowledged(), {"opened": "", "kept": problem}, {"points": ""})
    return record | {"missed": 3}
