"""Payloads, ids and vectors are read from the files of the engine without the engine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines import TwoStagePipeline
from pipelines.points import passage_id
from retrieval.datatypes import StoredPoint
from retrieval.stores.lz4_block import decompress_block
from retrieval.stores.salvage import SalvagedPayload, salvage_ids, salvage_payloads
from tests.store_folders import quick_folder

DIM = 256
TEXTS = [(f"d{number}", f"Text {number} about a leaking pipe. " * (1 + number % 5)) for number in range(60)]


@pytest.fixture(scope="module")
def built() -> Iterator[tuple[Path, dict[str, StoredPoint]]]:
    """The engine of an index with an optimized segment and a growing one, with passages removed from both."""
    with quick_folder() as folder:
        index = folder / "index"
        with TwoStagePipeline.open(index) as pipeline:
            pipeline.ingest(TEXTS)
            pipeline.store.optimize()
        with TwoStagePipeline.open(index) as pipeline:
            pipeline.ingest(
                [*TEXTS[10:], ("new", "A new text about whales."), ("gone", "A text that will be removed.")]
            )
            pipeline.ingest([("d3", "Another text in the place of the third.")])
            pipeline.delete(["d1", "gone"])
        with TwoStagePipeline.open(index) as pipeline:
            points = {point.id: point for point in pipeline.store.scan(vectors=["dense"])}
        yield index / "generations" / "1" / "engine", points


@pytest.fixture
def engine(built: tuple[Path, dict[str, StoredPoint]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(built[0], tmp_path / "engine"))


def named(engine: Path, *, everywhere: bool = False) -> dict[str, SalvagedPayload]:
    found = salvage_payloads(engine, DIM, everywhere=everywhere)
    return {passage_id(one.payload["document"], one.payload["hash"], one.payload["index"]): one for one in found}


def test_all_that_the_trackers_point_to_is_read_with_its_vector(built: tuple[Path, dict[str, StoredPoint]]) -> None:
    engine, points = built
    found = named(engine)
    assert found.keys() == points.keys()
    assert len(points) == 60
    for name, point in points.items():
        assert found[name].payload == point.payload
        np.testing.assert_array_equal(found[name].dense, point.dense)
        assert (engine / found[name].page).is_file()
        assert found[name].start < found[name].end


def test_ids_are_those_of_the_points_that_are_left(built: tuple[Path, dict[str, StoredPoint]]) -> None:
    assert salvage_ids(built[0]) == built[1].keys()


def test_without_trackers_every_block_is_looked_at(engine: Path, built: tuple[Path, dict[str, StoredPoint]]) -> None:
    for tracker in engine.glob("segments/*/payload_storage/tracker.dat"):
        tracker.unlink()
    assert named(engine) == {}
    found = named(engine, everywhere=True)
    assert found.keys() >= built[1].keys()
    for name, point in built[1].items():
        assert found[name].payload == point.payload
    removed = {one.payload["document"] for name, one in found.items() if name not in built[1]}
    assert removed <= {"d1", "d3", "gone"}


@pytest.mark.parametrize("size", [b"\0\0\0\0", b"\x09\0\0\0", b"\xff\xff\xff\xff"], ids=["none", "small", "huge"])
def test_a_payload_is_read_although_its_size_is_damaged(
    engine: Path, built: tuple[Path, dict[str, StoredPoint]], size: bytes
) -> None:
    name, found = next(iter(named(engine).items()))
    page = engine / found.page
    data = page.read_bytes()
    page.write_bytes(data[: found.start] + size + data[found.start + 4 :])
    assert named(engine)[name].payload == built[1][name].payload


def test_nothing_that_is_damaged_raises(engine: Path) -> None:
    chosen = np.random.default_rng(4)
    for path in sorted(engine.rglob("*")):
        if path.is_file() and "segments" in path.parts and path.stat().st_size:
            data = bytearray(path.read_bytes()[: int(chosen.integers(1, path.stat().st_size + 1))])
            for at in chosen.integers(0, len(data), 20).tolist():
                data[at] = int(chosen.integers(256))
            path.write_bytes(data)
    for everywhere in (False, True):
        for one in salvage_payloads(engine, DIM, everywhere=everywhere):
            assert isinstance(one.payload, dict)
    assert all(len(name) == 36 for name in salvage_ids(engine))


def test_a_folder_of_nothing_gives_nothing(tmp_path: Path) -> None:
    assert list(salvage_payloads(tmp_path, DIM)) == []
    assert salvage_ids(tmp_path) == set()


# Made by hand after the format: a token of 4 bits literals and 4 bits match less 4, literals, distance, match.
BLOCKS = {
    "literals": (b"\x50hello", b"hello"),
    "match behind": (b"\x30abc\x03\x00\x50abcde", b"abcabcaabcde"),
    "match over itself": (b"\x14a\x01\x00\x10b", b"a" * 9 + b"b"),
    "long literals": (b"\xf0\x05" + b"x" * 20, b"x" * 20),
    "long match": (b"\x1fz\x01\x00\x0a\x10!", b"z" * 30 + b"!"),
}


@pytest.mark.parametrize("case", BLOCKS)
def test_blocks_are_read_after_their_format(case: str) -> None:
    data, expected = BLOCKS[case]
    assert decompress_block(b"__" + data + b"behind", 2, len(data) + 8, len(expected)) == expected


@pytest.mark.parametrize("case", BLOCKS)
def test_blocks_of_which_only_the_end_is_known(case: str) -> None:
    data, expected = BLOCKS[case]
    assert decompress_block(b"__" + data, 2, len(data) + 2, None) == expected
    with pytest.raises(ValueError, match="block"):
        decompress_block(data, 0, len(data) - 1, None)


@pytest.mark.parametrize(
    ("data", "size", "problem"),
    [
        (b"", 1, "ends after 0"),
        (b"\x10a\x01\x00", None, "unknown size ends after"),
        (b"\x50hel", 5, "literal reaches beyond"),
        (b"\x50hello", 3, "literal reaches beyond"),
        (b"\x10a\x02\x00", 9, "match reaches beyond"),
        (b"\x10a\x00\x00", 9, "match reaches beyond"),
        (b"\x1fa\x01\x00\xff\xff", 2000, "length has no end"),
        (b"\x10a", 2, "ends after 1"),
    ],
)
def test_what_is_no_block_is_refused(data: bytes, size: int, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        decompress_block(data, 0, len(data), size)


def test_a_block_of_unknown_size_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.stores.lz4_block._MOST", 1_000)
    data, _ = BLOCKS["long match"]
    assert len(decompress_block(data, 0, len(data), None)) == 31
    endless = b"\x1fz\x01\x00" + b"\xff" * 20 + b"\x00\x10!"
    with pytest.raises(ValueError, match="a match reaches beyond"):
        decompress_block(endless, 0, len(endless), None)
