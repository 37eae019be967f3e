"""`doctor --deep` compares everything with what the texts give, seal or no seal."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines import TwoStagePipeline
from pipelines.apart import ApartError, run_apart
from pipelines.cli import app
from pipelines.deep import DeepReport, deep_check
from pipelines.deep.contents import examine_deeply
from retrieval.config import Config, MemoryStoreConfig
from retrieval.datatypes import Point, SparseVector, StoredPoint
from retrieval.stores import edge_facets, open_store
from retrieval.stores.edge import EdgeStore
from retrieval.stores.json_files import read_json, write_json
from tests.store_folders import quick_folder

TOPICS = ("tides", "bread", "guitars", "whales", "primes")
TEXTS = [(f"d{number}", f"Note {number} about {TOPICS[number % 5]} and copper pipes.") for number in range(50)]


@pytest.fixture(scope="module")
def built() -> Iterator[Path]:
    with quick_folder() as folder:
        with TwoStagePipeline.open(folder / "index") as pipeline:
            pipeline.ingest(TEXTS)
        yield folder / "index"


@pytest.fixture
def index(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "index"))


def failed(report: DeepReport) -> list[str]:
    return [check.name for check in report.damage]


def rewrite(index: Path, change: Callable[[StoredPoint], Point], *, only: int = 1) -> list[str]:
    """Write some points with a change, sealed as if nothing were wrong; gives their ids."""
    store = open_store(Config(), dim=256, path=index)
    points = sorted(store.scan(vectors=True), key=lambda point: str(point.payload["document"]))[:only]
    store.delete([point.id for point in points])
    store.upsert([change(point) for point in points])
    store.close()
    return [point.id for point in points]


def test_a_sound_index_passes_and_nothing_is_changed(index: Path) -> None:
    before = {path: path.read_bytes() for path in index.rglob("*.json")}
    report = deep_check(index)
    assert report.ok
    assert (report.damage, report.interrupted, report.findings) == ((), False, ())
    assert [check.name for check in report.checks] == [
        "manifest", "files", "seal", "index", "state", "settings",
        "payload", "counts", "ids", "vectors", "bm25", "lookups", "searches",
    ]  # fmt: skip
    assert {check.ok for check in report.checks} == {True}
    assert {path: path.read_bytes() for path in index.rglob("*.json")} == before


def test_a_vector_of_another_text_is_named_with_its_document(index: Path) -> None:
    (name,) = rewrite(index, lambda p: Point(p.id, np.roll(p.dense, 1), p.sparse, p.payload))  # type: ignore[arg-type]
    report = deep_check(index)
    assert failed(report) == ["vectors"]
    (finding,) = report.findings
    assert (finding.kind, finding.name, finding.document) == ("passage", name, "d0")
    assert "is not that of its text" in finding.problem


def test_bm25_rows_of_another_average_length_are_found(index: Path) -> None:
    def heavier(point: StoredPoint) -> Point:
        assert point.sparse is not None
        row = SparseVector(point.sparse.indices, point.sparse.values * np.float32(1.01))
        return Point(point.id, point.dense, row, point.payload)

    rewrite(index, heavier, only=3)
    report = deep_check(index)
    assert failed(report) == ["bm25"]
    assert len(report.findings) == 3
    assert {finding.problem for finding in report.findings} == {"its BM25 weights are not those of its text"}


def test_another_text_under_the_old_id_is_found(index: Path) -> None:
    rewrite(index, lambda p: Point(p.id, p.dense, p.sparse, {**p.payload, "text": "Entirely other words."}))
    assert set(failed(deep_check(index))) == {"payload", "vectors", "bm25"}


def test_an_id_that_does_not_belong_to_its_document_is_found(index: Path) -> None:
    rewrite(index, lambda p: Point(p.id, p.dense, p.sparse, {**p.payload, "hash": "0" * 32}))
    report = deep_check(index)
    assert failed(report) == ["ids"]
    assert "its id does not belong to content hash 000" in report.findings[0].problem


def test_lost_passages_are_counted(index: Path) -> None:
    store = open_store(Config(), dim=256, path=index)
    store.delete([next(iter(store.scan())).id])
    store.close()
    report = deep_check(index)
    assert failed(report) == ["counts"]
    assert "passages 49, the manifest says 50" in report.damage[0].detail


def test_an_interrupted_run_is_no_damage(index: Path) -> None:
    write_json(index / "manifest.json", {**(read_json(index / "manifest.json") or {}), "state": "ingesting"})
    report = deep_check(index)
    assert (report.damage, report.interrupted, report.ok) == ((), True, False)
    assert {check.name: check.ok for check in report.checks}["counts"] is None


def test_without_a_seal_contents_are_compared_in_a_process_of_its_own(index: Path) -> None:
    generation = index / "generations" / "1"
    (generation / "seal.json").unlink()
    assert deep_check(index).damage == ()
    status = next(generation.rglob("vectors/status.dat"))
    status.write_bytes(b"abc")
    report = deep_check(index)
    assert failed(report) == ["index"]
    assert "its files are damaged" in report.damage[0].detail


def test_the_end_of_that_process_is_told() -> None:
    with pytest.raises(ApartError, match=r"ended the process that read the index \(SIGBUS\)"):
        list(run_apart(f"import os; os.kill(os.getpid(), {int(signal.SIGBUS)})", {}))
    with pytest.raises(ApartError, match="reading the index failed: ValueError: no such thing"):
        list(run_apart("raise ValueError('no such thing')", {}))
    assert list(run_apart("from pipelines.apart import *; say({'pid': take_order()['parent']})", {})) == [
        {"pid": os.getpid()}
    ]


def test_filters_that_disagree_with_the_walk_are_found(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = edge_facets.most_frequent
    monkeypatch.setattr(edge_facets, "most_frequent", lambda values, limit: real(list(values)[1:], limit))
    report = deep_check(index, apart=False)
    assert failed(report) == ["lookups"]
    assert {finding.name for finding in report.findings} == {"document", "document_id", "source"}


def test_removed_documents_are_no_value_of_a_facet(index: Path) -> None:
    with TwoStagePipeline.open(index) as pipeline:
        pipeline.store.optimize()
        pipeline.delete(["d7"])
        assert "d7" not in dict(pipeline.store.facet("document_id", 100))
    assert deep_check(index).ok


def test_searches_that_miss_the_best_are_found(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = EdgeStore.search
    monkeypatch.setattr(EdgeStore, "search", lambda store, requests: [hits[1:] for hits in search(store, requests)])
    report = deep_check(index, apart=False)
    assert failed(report) == ["searches"]
    assert {finding.name for finding in report.findings} == {"dense", "bm25"}


def test_an_index_in_use_is_not_compared(index: Path) -> None:
    with TwoStagePipeline.open(index):
        report = deep_check(index)
    assert failed(report) == ["index"]
    assert "in use" in report.damage[0].detail


def test_damaged_files_are_not_given_to_the_engine(index: Path) -> None:
    path = next(index.rglob("vectors/chunk_0.mmap"))
    data = bytearray(path.read_bytes())
    data[8] ^= 1
    path.write_bytes(data)
    report = deep_check(index)
    assert failed(report) == ["seal"]
    assert report.findings[0].name == path.relative_to(index).as_posix()
    assert report.checks[-1].detail == "not compared, the engine would change damaged files"


def test_the_command_names_what_is_wrong(index: Path) -> None:
    run = CliRunner().invoke(app, ["doctor", "--deep", "--index", str(index), "--quiet", "--json"])
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout)["ok"]
    rewrite(index, lambda p: Point(p.id, p.dense, p.sparse, {**p.payload, "title": 7}))
    run = CliRunner().invoke(app, ["doctor", "--deep", "--index", str(index), "--quiet", "--json"])
    assert run.exit_code == 1
    checks = {check["name"]: check for check in json.loads(run.stdout)["checks"]}
    assert checks["payload"]["findings"][0] | {"name": ""} == {
        "kind": "passage",
        "name": "",
        "problem": "its payload lacks a field",
        "document": "d0",
    }
    assert "retrieval repair" in checks["payload"]["remedy"]


def test_stores_without_files_have_contents_to_compare() -> None:
    config = Config().model_copy(update={"store": MemoryStoreConfig()})
    with TwoStagePipeline.open(config=config) as pipeline:
        pipeline.ingest(TEXTS)
        serving = (pipeline.encoder, pipeline.sparse, lambda *_: None)
        checks = list(examine_deeply(pipeline.store, pipeline.manifest, *serving))
    assert {check.ok for check in checks} == {True}
