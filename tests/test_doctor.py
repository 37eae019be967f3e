"""Every kind of damage is found by the check that is made for it, and nothing is changed by looking."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines import TwoStagePipeline
from pipelines.doctor import examine
from pipelines.index_checks import Check
from retrieval.config import Config, parse_config
from retrieval.datatypes import Point, SparseVector
from retrieval.errors import StoreCorruptError
from retrieval.stores import open_store
from retrieval.stores.json_files import read_json, write_json

TEXTS = {
    "pipe": "A leaking pipe under the sink can be sealed with epoxy putty.",
    "yeast": "Yeast turns sugar into carbon dioxide, and this gas makes dough rise.",
    "moon": "The moon pulls the oceans and so causes the tides twice a day.",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doctor") / "index"
    with TwoStagePipeline.open(folder) as pipeline:
        pipeline.ingest(list(TEXTS.items()))
    return folder


@pytest.fixture
def index(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "index"))


def found(folder: Path, config: Config | None = None) -> dict[str, Check]:
    return {check.name: check for check in examine(config or Config(), folder)}


def failed(checks: dict[str, Check]) -> set[str]:
    return {name for name, check in checks.items() if check.ok is False}


def edit_manifest(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    write_json(path, (read_json(path) or {}) | changes)


def stored(folder: Path) -> Iterator[Point]:
    """The points of an index, to be written back with a change."""
    with TwoStagePipeline.open(folder) as pipeline:
        for point in list(pipeline.store.scan(vectors=True)):
            yield Point(point.id, point.dense, None, point.payload)


def overwrite(folder: Path, change: Callable[[Point], Point]) -> None:
    points = [change(point) for point in stored(folder)]
    store = open_store(Config(), dim=256, path=folder)
    store.upsert(points)
    store.close()


def test_a_sound_index_passes_every_check(index: Path) -> None:
    before = (index / "manifest.json").read_bytes()
    checks = found(index)
    assert set(checks) == {
        "installation", "encoder", "reranker", "disk", "manifest", "index",
        "state", "settings", "payload", "counts", "vectors", "encoding",
    }  # fmt: skip
    assert {name for name, check in checks.items() if check.ok is not True} == set()
    assert checks["payload"].detail == "3 passages have all their fields"
    assert re.search(r", encoding is (compiled|not compiled \(.+\))$", checks["installation"].detail)
    assert (index / "manifest.json").read_bytes() == before


def test_a_missing_index_is_not_made(tmp_path: Path) -> None:
    checks = found(tmp_path / "none")
    assert failed(checks) == {"manifest"}
    assert checks["index"].ok is None
    assert not (tmp_path / "none").exists()


def test_every_failed_check_has_a_remedy(index: Path) -> None:
    edit_manifest(index, state="ingesting", documents=7)
    checks = found(index, parse_config({"bm25": {"language": "german"}, "rerank": {"model": "nowhere"}}))
    assert failed(checks) == {"reranker", "state", "settings", "counts"}
    assert all(check.remedy for check in checks.values() if check.ok is False)


def test_lost_passages_are_counted_though_the_index_does_not_open(index: Path) -> None:
    store = open_store(Config(), dim=256, path=index)
    point = next(iter(store.scan()))
    store.delete([point.id])
    store.close()
    with pytest.raises(StoreCorruptError):
        TwoStagePipeline.open(index)
    checks = found(index)
    assert failed(checks) == {"counts"}
    assert "passages 2, the manifest says 3" in checks["counts"].detail


def test_an_interrupted_run_is_told_to_be_repeated(index: Path) -> None:
    edit_manifest(index, state="ingesting")
    checks = found(index)
    assert failed(checks) == {"state"}
    assert "again" in checks["state"].remedy


def test_vectors_of_another_text_are_found(index: Path) -> None:
    def turned(point: Point) -> Point:
        assert point.dense is not None
        return replace(point, dense=np.roll(point.dense, 1))

    overwrite(index, turned)
    checks = found(index)
    assert failed(checks) == {"encoding"}
    assert checks["encoding"].detail.startswith("3 of 3")


def test_an_incomplete_payload_is_found(index: Path) -> None:
    def shortened(point: Point) -> Point:
        return replace(point, payload={name: value for name, value in point.payload.items() if name != "title"})

    overwrite(index, shortened)
    checks = found(index)
    assert "payload" in failed(checks)
    assert checks["payload"].detail.startswith("3 of 3")


def test_another_encoder_is_named_and_not_compared(index: Path) -> None:
    checks = found(index, parse_config({"encoder": {"dimensions": 64}}))
    assert failed(checks) == {"settings"}
    assert "64 dims" in checks["settings"].detail
    assert checks["encoding"].ok is None


@pytest.mark.parametrize("damage", ["cut manifest", "no manifest", "no engine"])
def test_missing_and_cut_files_fail_the_manifest_check(index: Path, damage: str) -> None:
    if damage == "cut manifest":
        (index / "manifest.json").write_text('{"schema_version":')
    elif damage == "no manifest":
        (index / "manifest.json").unlink()
    else:
        shutil.rmtree(index / "generations/1/engine")
    checks = found(index)
    assert "manifest" in failed(checks)
    assert "--rebuild" in checks["manifest"].remedy


def test_an_index_in_use_is_named(index: Path) -> None:
    with TwoStagePipeline.open(index):
        checks = found(index)
    assert failed(checks) == {"index"}
    assert "in use" in checks["index"].detail


def test_a_missing_model_leaves_the_index_unopened(index: Path) -> None:
    checks = found(index, parse_config({"encoder": {"model": "nowhere"}}))
    assert failed(checks) == {"encoder"}
    assert checks["index"].ok is None


def test_passages_without_a_dense_vector_are_fine(tmp_path: Path) -> None:
    # A text that only BM25 knows: the static model has no token for it, the index no vector.
    with TwoStagePipeline.open(tmp_path / "index") as pipeline:
        pipeline.ingest([("known", "plain words"), *TEXTS.items()])
        points = list(pipeline.store.scan({"must": [{"key": "document_id", "match": {"value": "known"}}]}))
        empty = SparseVector(np.array([7], np.uint32), np.array([1.0], np.float32))
        pipeline.store.upsert([Point(point.id, None, empty, {**point.payload, "text": "\u2063"}) for point in points])
    checks = found(tmp_path / "index")
    assert checks["vectors"].detail.startswith("3 sampled")
    assert failed(checks) == set()
