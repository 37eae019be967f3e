"""The copy of an index that readers have: damage to it is noticed, and it makes good damage to the index."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines import TwoStagePipeline
from pipelines.deep import deep_check
from pipelines.repair import repair_index
from retrieval.errors import StoreBusyError
from tests.store_folders import quick_folder

Damage = Callable[[Path], object]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    place = next(at for at in range(len(data) // 2, 0, -1) if data[at])
    data[place] ^= 4
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with quick_folder() as folder:
        with TwoStagePipeline.open(folder / "index") as pipeline:
            pipeline.ingest([(f"page {number}", f"Page {number} about copper and bread.") for number in range(30)])
            pipeline.ingest([("new", "Zebras were handed over."), ("newer", "Quinces too.")])
            pipeline.delete(["page 3"])
            pipeline.publish()
        yield folder


@pytest.fixture
def index(place: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(place / "index", tmp_path / "index"))


def answers(index: Path, *, read_only: bool = False) -> list[tuple[str, float]]:
    with TwoStagePipeline.open(index, read_only=read_only) as pipeline:
        found = pipeline.search("zebras and copper", 40, rerank=False)
        assert pipeline.store.count() == pipeline.manifest.passages == 31
        return [(hit.passage_id, round(hit.score, 5)) for hit in found]


def published(index: Path, pattern: str) -> Path:
    return next(path for path in sorted((index / "published").glob(f"[0-9]*/{pattern}")) if path.stat().st_size)


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("generations/1/engine/segments/*/payload_storage/page_0.dat", flip),
        ("generations/1/engine/segments/*/payload_storage/tracker.dat", cut),
        ("generations/1/engine/segments/*/vector_storage-dense/vectors/chunk_0.mmap", flip),
        ("generations/1/engine/segments/*/segment.json", Path.unlink),
        ("generations/1/store.json", flip),
        ("manifest.json", flip),
        ("seal.json", cut),
    ],
)
def test_damage_to_the_copy_is_noticed_and_it_is_made_again(index: Path, pattern: str, damage: Damage) -> None:
    expected = answers(index)
    path = published(index, pattern)
    damage(path)
    [check] = deep_check(index).damage
    assert (check.name, [finding.name for finding in check.findings]) == (
        "published",
        [path.relative_to(index).as_posix()],
    )
    report = repair_index(index)
    assert (report.done, report.generation) == ("files", 1)
    assert report.restored == (
        f"{'/'.join(path.relative_to(index).parts[:2])}, by removing it: who reads next has it made again",
    )
    assert answers(index, read_only=True) == answers(index) == expected
    assert deep_check(index).ok
    assert list((index / "published").glob("[0-9]*/manifest.json"))


@pytest.mark.parametrize(("name", "damage"), [("tracker.dat", Path.unlink), ("page_0.dat", cut)])
def test_a_copy_with_files_of_another_size_is_not_read(index: Path, name: str, damage: Damage) -> None:
    expected = answers(index)
    path = published(index, f"generations/1/engine/segments/*/payload_storage/{name}")
    damage(path)
    with TwoStagePipeline.open(index), pytest.raises(StoreBusyError, match="has published nothing yet"):
        TwoStagePipeline.open(index, read_only=True)
    with TwoStagePipeline.open(index) as pipeline:
        pipeline.publish()
        assert answers(index, read_only=True) == expected
    damage(published(index, f"generations/1/engine/segments/*/payload_storage/{name}"))
    assert answers(index, read_only=True) == expected


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("*/payload_storage/page_0.dat", flip),
        ("*/payload_storage/page_0.dat", Path.unlink),
        ("*/mutable_id_tracker.mappings", cut),
        ("*/vector_storage-dense/vectors/chunk_0.mmap", flip),
        ("*/segment.json", Path.unlink),
    ],
)
def test_the_copy_makes_good_what_is_damaged_in_the_index(index: Path, pattern: str, damage: Damage) -> None:
    """The texts were handed over: there is no source to read them from again."""
    expected = answers(index)
    path = sorted((index / "generations" / "1" / "engine" / "segments").glob(pattern))[0]
    damage(path)
    assert not deep_check(index).ok
    report = repair_index(index)
    assert (report.done, report.generation, report.lost, report.complete) == ("files", 1, (), True)
    assert report.damage
    name = path.relative_to(index).as_posix()
    assert report.restored
    assert all(f"from published/{published(index, 'manifest.json').parent.name}/" in line for line in report.restored)
    assert all(line.startswith(name) for line in report.restored)
    assert deep_check(index).ok
    assert answers(index) == expected


def test_what_the_copy_does_not_have_is_made_of_the_texts_that_it_has(index: Path) -> None:
    expected = answers(index)
    [segment] = (index / "generations" / "1" / "engine" / "segments").iterdir()
    shutil.rmtree(segment)
    report = repair_index(index)
    assert (report.done, report.lost, report.complete, report.reread) == ("index", (), True, 0)
    assert any(line.endswith("/payload_storage/page_0.dat") for line in report.restored)
    assert answers(index) == expected


def test_a_copy_of_another_state_is_not_taken_for_the_files(index: Path) -> None:
    with TwoStagePipeline.open(index) as pipeline:
        for name in ("figs", "pears", "plums"):  # nobody reads, so that not every one is published
            pipeline.ingest([(name, f"A text about {name}.")])
    [page] = (index / "generations" / "1").glob("engine/segments/*/payload_storage/page_0.dat")
    assert b"plums" not in published(index, "generations/1/engine/segments/*/payload_storage/page_0.dat").read_bytes()
    page.write_bytes(page.read_bytes().replace(b"plums", b"gums!"))
    report = repair_index(index)
    assert (report.done, report.restored) == ("index", ())
    assert len(report.lost) == 1
