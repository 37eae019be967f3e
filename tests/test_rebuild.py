"""A rebuild replaces an index only when the new one is complete, whatever happens on the way."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import TwoStagePipeline
from pipelines.rebuild import rebuild_index
from retrieval.config import Config, parse_config
from retrieval.errors import StoreBusyError

OLD = [("old", "The old text is about the tides.")]
NEW = [("new", "The new text is about bread.")]


@pytest.fixture
def index(tmp_path: Path) -> Path:
    with TwoStagePipeline.open(tmp_path / "index") as pipeline:
        pipeline.ingest(OLD)
    return tmp_path / "index"


def ids(folder: Path) -> set[str]:
    with TwoStagePipeline.open(folder) as pipeline:
        return {point.payload["document_id"] for point in pipeline.store.scan()}


def test_a_rebuild_replaces_documents_and_settings(index: Path) -> None:
    config = parse_config({"encoder": {"dimensions": 64}})
    report = rebuild_index(index, config, lambda pipeline: pipeline.ingest(NEW))
    assert report.added == 1
    assert ids(index) == {"new"}
    assert json.loads((index / "manifest.json").read_text())["encoder"]["dim"] == 64
    assert generations(index) == ["2"]


def generations(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "generations").iterdir())


def test_without_an_old_index_one_is_made(tmp_path: Path) -> None:
    rebuild_index(tmp_path / "fresh", Config(), lambda pipeline: pipeline.ingest(NEW))
    assert ids(tmp_path / "fresh") == {"new"}


def test_the_old_index_stays_when_nothing_was_ingested_or_filling_failed(index: Path) -> None:
    rebuild_index(index, Config(), lambda pipeline: pipeline.ingest([("empty", " ")]))
    assert ids(index) == {"old"}

    def fail(pipeline: TwoStagePipeline) -> None:
        pipeline.ingest(NEW)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rebuild_index(index, Config(), fail)
    assert generations(index) == ["1"]
    assert ids(index) == {"old"}


def test_leftovers_of_a_killed_rebuild_are_cleaned(index: Path) -> None:
    leftover = index / "generations" / "7"
    leftover.mkdir()
    (leftover / "growing.json").write_text("{}")
    assert ids(index) == {"old"}
    assert generations(index) == ["1"]
    rebuild_index(index, Config(), lambda pipeline: pipeline.ingest(NEW))
    assert ids(index) == {"new"}
    assert generations(index) == ["2"]


def test_a_first_build_that_was_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "index" / "generations" / "1"
    (folder / "engine").mkdir(parents=True)
    (folder / "growing.json").write_text("{}")
    with TwoStagePipeline.open(tmp_path / "index") as pipeline:
        pipeline.ingest(OLD)
    assert ids(tmp_path / "index") == {"old"}


@pytest.mark.parametrize("damage", ["manifest.json", "generations/1/engine/edge_config.json"])
def test_a_damaged_index_can_be_rebuilt(index: Path, damage: str) -> None:
    (index / damage).write_text("{")
    rebuild_index(index, Config(), lambda pipeline: pipeline.ingest(NEW))
    assert ids(index) == {"new"}
    assert generations(index) == ["2"]


def test_other_things_in_the_folder_are_left_alone(index: Path) -> None:
    (index / "thesis.txt").write_text("years of work")
    rebuild_index(index, Config(), lambda pipeline: pipeline.ingest(NEW))
    assert ids(index) == {"new"}
    assert (index / "thesis.txt").read_text() == "years of work"


def test_an_index_in_use_is_not_rebuilt(index: Path) -> None:
    with TwoStagePipeline.open(index), pytest.raises(StoreBusyError):
        rebuild_index(index, Config(), lambda pipeline: pipeline.ingest(NEW))
    assert ids(index) == {"old"}


def test_a_killed_rebuild_leaves_the_old_index_working(index: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(1000):
        (texts / f"{number}.txt").write_text(f"Text {number} about bread and butter.", encoding="utf-8")
    command = [sys.executable, "-m", "pipelines", "ingest", str(texts), "--rebuild", "--index", str(index), "--quiet"]
    growing = index / "generations" / "2"
    with subprocess.Popen(command) as process:
        while not (growing / "engine").exists() and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    assert growing.exists(), "the kill came too late to prove anything"
    assert ids(index) == {"old"}
    assert subprocess.run(command, check=False).returncode == 0
    assert len(ids(index)) == 1000
    assert generations(index) == ["2"]
