"""A seal notices what the engine does not: files that are missing, shorter, or not what they were."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.checked_json import CHECKSUM, parse_mapping, with_checksum
from retrieval.config import Config, parse_config
from retrieval.datatypes import Point, Quantization, SparseVector
from retrieval.errors import StoreCorruptError
from retrieval.manifest import peek_manifest
from retrieval.stores import edge_sealing, file_digests, seal
from retrieval.stores.edge import EdgeStore
from retrieval.stores.file_digests import BLOCK, digest_file, notes_writes
from retrieval.stores.index_folder import find_live
from retrieval.stores.index_layout import MANIFEST_COPY
from retrieval.stores.json_files import read_json, write_json
from retrieval.stores.seal import SEAL, Seal, read_seal
from retrieval.stores.seal_differences import compare_digests, require_same_sizes, touched_files, whole_blocks
from tests.store_folders import quick_folder

DIM = 8


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as made:
        yield made


def points(first: int, last: int) -> list[Point]:
    rows = np.random.default_rng(1).normal(size=(last + 1, DIM)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    terms = SparseVector(np.array([1], np.uint32), np.ones(1, np.float32))
    return [
        Point(f"00000000-0000-4000-8000-{number:012d}", rows[number], terms, {"document": f"d{number}", "n": number})
        for number in range(first, last + 1)
    ]


def open_edge(path: Path, config: Config | None = None, **arguments: Any) -> EdgeStore:
    return EdgeStore(config or Config(), dim=DIM, path=path, **arguments)


@pytest.fixture
def index(folder: Path) -> Path:
    """A closed index of twenty points."""
    with open_edge(folder / "index") as store:
        store.upsert(points(1, 20))
        store.write_manifest({"schema_version": 1, "state": "ready", "passages": 20})
    return folder / "index"


def generation(index: Path) -> Path:
    return index / "generations" / "1"


def sealed(index: Path) -> Seal:
    found = read_seal(generation(index))
    assert found is not None
    return found


def different(index: Path) -> list[str]:
    return [item.name for item in compare_digests(generation(index), sealed(index))]


def find(index: Path, pattern: str) -> Path:
    return next(path for path in sorted(generation(index).glob(pattern)) if path.is_file())


def flip(path: Path, at: int | None = None) -> None:
    """Change one bit, of the first byte that is not zero where no place is given."""
    data = bytearray(path.read_bytes())
    at = next(place for place, byte in enumerate(data) if byte) if at is None else at
    data[at] ^= 1
    path.write_bytes(data)


def test_a_seal_is_made_at_the_close_after_a_write_and_lifted_before_the_next(index: Path) -> None:
    before = sealed(index)
    assert {name.partition("/")[0] for name in before.files} == {"engine"}
    assert "engine/edge_config.json" not in before.files
    with open_edge(index) as store:
        store.count()
        assert (generation(index) / SEAL).exists()
        store.upsert(points(21, 21))
        assert not (generation(index) / SEAL).exists()
    assert sealed(index) != before
    assert different(index) == []


def test_a_writer_that_dies_leaves_no_seal(index: Path) -> None:
    store = open_edge(index)
    store.delete([points(3, 3)[0].id])
    # What a kill leaves behind: nothing is closed.
    assert read_seal(generation(index)) is None
    store.close()


STEPS: dict[str, Callable[[EdgeStore], object]] = {
    "nothing": lambda store: None,
    "upsert": lambda store: store.upsert(points(18, 25)),
    "delete": lambda store: store.delete([point.id for point in points(2, 4)]),
    "facet of a new field": lambda store: store.facet("n"),
    "optimize": lambda store: store.optimize(),
    "graph": lambda store: store._engine.optimize(graph=True),
    "quantization": lambda store: store.set_quantization(Quantization("turbo", 2)),
    "quantization off": lambda store: store.set_quantization(Quantization()),
    "upsert behind": lambda store: store.upsert(points(30, 40)),
}


def test_reading_changes_no_file_that_is_sealed_whatever_was_written_before(index: Path) -> None:
    for step in STEPS.values():
        with open_edge(index, verify=False) as store:
            step(store)
        found = sealed(index)
        for _ in range(2):
            with open_edge(index, verify=False) as store:
                store.count()
                list(store.scan(vectors=True))
                store.facet("document")
                store.flush()
            assert different(index) == []
        assert sealed(index) == found


def test_missing_and_cut_files_are_refused_by_name_before_the_engine_sees_them(index: Path) -> None:
    path = find(index, "engine/segments/*/payload_storage/tracker.dat")
    saved = path.read_bytes()
    path.write_bytes(saved[:100])
    cut = rf"tracker.dat is damaged \(it has 100 bytes, and had {len(saved):,} when the index was last closed\)"
    with pytest.raises(StoreCorruptError, match=cut):
        open_edge(index)
    with pytest.raises(StoreCorruptError, match=cut):
        open_edge(index, verify=False)
    path.unlink()
    with pytest.raises(
        StoreCorruptError, match=r"payload_storage has no tracker.dat, which was there .*'retrieval repair'"
    ):
        open_edge(index)
    assert not path.exists()


def test_a_segment_that_nobody_has_sealed_is_refused(index: Path) -> None:
    (generation(index) / "engine/segments/stray").mkdir()
    with pytest.raises(StoreCorruptError, match=r"segments/stray is damaged .it was not there"):
        open_edge(index)


def test_flipped_bits_are_found_by_their_digest(index: Path) -> None:
    names = [
        "payload_storage/page_0.dat",
        "vector_storage-dense/vectors/chunk_0.mmap",
        "vector_storage-bm25/store/page_0.dat",
    ]
    for name in names:
        flip(find(index, f"engine/segments/*/{name}"))
    flip(find(index, "engine/wal/open-*"))
    assert sorted(item.rpartition("/")[2] for item in different(index)) == sorted(
        ["page_0.dat", "chunk_0.mmap", "page_0.dat", "open-1"]
    )
    require_same_sizes(generation(index), sealed(index))


def test_a_changed_file_is_not_sealed_with_the_new(index: Path) -> None:
    path = find(index, "engine/segments/*/vector_storage-dense/vectors/chunk_0.mmap")
    flip(path)
    with (
        open_edge(index) as store,
        pytest.raises(StoreCorruptError, match=r"chunk_0.mmap is damaged .*nothing was written"),
    ):
        store.upsert(points(21, 21))
    assert sealed(index).files
    assert [item.rpartition("/")[2] for item in different(index)] == ["chunk_0.mmap"]


def test_a_bit_that_falls_over_without_a_write_is_not_sealed_with_the_new(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else the times of files that were written a moment before are not trusted, and a fast machine notices at once.
    monkeypatch.setattr(seal, "_TICK_NS", 0)
    with open_edge(index, verify=False) as store:
        store.upsert(points(30, 300))
        store.optimize()
    path = find(index, "engine/segments/*/vector_storage-dense/matrix.dat")
    times = os.stat(path)
    flip(path, 100)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with open_edge(index, verify=False) as store:
        store.upsert(points(21, 21))
    if notes_writes(index):
        assert [item.rpartition("/")[2] for item in different(index)] == ["matrix.dat"]


def test_only_changed_files_are_read_again(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As if all files had been written long ago: what was written just now is read again in any case.
    monkeypatch.setattr(seal, "_TICK_NS", -(10**18))
    with open_edge(index, verify=False) as store:
        store.upsert(points(30, 300))
        store.optimize()
    read: list[str] = []
    digest = file_digests.digest_file

    def noted(path: Path, *, sync: bool = False) -> file_digests.FileDigest:
        read.append(Path(path).name)
        return digest(path, sync=sync)

    monkeypatch.setattr(file_digests, "digest_file", noted)
    with open_edge(index, verify=False) as store:
        store.upsert(points(21, 21))
    assert ("matrix.dat" in read) is not notes_writes(index)
    assert {"page_0.dat", "chunk_0.mmap"} <= set(read)


def test_lost_settings_come_back_from_the_seal(index: Path) -> None:
    with open_edge(index) as store:
        store.set_quantization(Quantization("turbo", 2))
        store.delete([points(1, 1)[0].id])
    (generation(index) / "store.json").unlink()
    with open_edge(index, verify=False) as store:
        assert store.quantization == Quantization("turbo", 2)
        assert store._settings.has_deletes


def test_another_build_of_the_engine_may_write_its_files_anew(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_sealing, "engine_build", lambda: 1)
    with open_edge(index):
        assert read_seal(generation(index)) is None
    assert sealed(index).engine == 1


def test_what_cannot_be_sealed_is_closed_with_a_warning(
    index: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with open_edge(index) as store:
        store.upsert(points(21, 21))
        monkeypatch.setattr(edge_sealing, "write_seal", full)
        with caplog.at_level(logging.WARNING):
            store.close()
    assert "damage to its files would not be noticed" in caplog.text
    assert read_seal(generation(index)) is None


def test_digests_do_not_depend_on_holes(folder: Path) -> None:
    blocks = np.random.default_rng(2).integers(1, 256, (2, BLOCK), np.uint8)
    full, holes = folder / "full", folder / "holes"
    full.write_bytes(blocks[0].tobytes() + bytes(5 * BLOCK) + blocks[1].tobytes() + bytes(100))
    with holes.open("wb") as file:
        file.write(blocks[0].tobytes())
        file.seek(6 * BLOCK)
        file.write(blocks[1].tobytes())
        file.truncate(7 * BLOCK + 100)
    assert digest_file(full) == digest_file(holes)
    assert set(digest_file(full).blocks) == {0, 6}
    os.truncate(holes, 7 * BLOCK)
    flip(full, 3 * BLOCK)
    assert digest_file(full).digest != digest_file(holes).digest


def test_the_blocks_of_payload_pages_are_known_one_by_one(index: Path) -> None:
    with open_edge(index) as store:
        long = "x" * 200
        store.upsert(
            [Point(p.id, p.dense, p.sparse, {"text": f"{n}{long * (n % 7)}"}) for n, p in enumerate(points(1, 2000))]
        )
    page = find(index, "engine/segments/*/payload_storage/page_0.dat")
    name = page.relative_to(generation(index)).as_posix()
    before = whole_blocks(page, sealed(index).files[name])
    assert len(before) >= 4
    flip(page, 2 * BLOCK + 17)
    assert whole_blocks(page, sealed(index).files[name]) == before - {2}


def test_times_alone_are_no_difference(index: Path) -> None:
    path = find(index, "engine/segments/*/version.info")
    os.utime(path, ns=(1, 1))
    assert touched_files(generation(index), sealed(index)) >= {path.relative_to(generation(index)).as_posix()}
    assert different(index) == []
    with open_edge(index) as store:
        store.upsert(points(21, 21))


@pytest.mark.parametrize(
    "name", ["manifest.json", f"generations/1/{MANIFEST_COPY}", "generations/1/store.json", f"generations/1/{SEAL}"]
)
def test_every_flipped_bit_of_our_files_is_noticed(index: Path, name: str) -> None:
    path = index / name
    written, saved, refused, tried = read_json(path), path.read_bytes(), 0, 0
    assert written is not None
    assert b'"checksum"' in saved
    for at in range(0, len(saved), max(1, len(saved) // 150)):
        for bit in (1, 32):
            path.write_bytes(saved[:at] + bytes([saved[at] ^ bit]) + saved[at + 1 :])
            read = written
            with contextlib.suppress(StoreCorruptError):
                read = read_json(path)
            # What is read all the same differs in white space, or in the name of the checksum itself.
            assert read is not None
            assert {key: value for key, value in read.items() if key in written} == written
            refused += read is written
            tried += 1
    assert refused > tried / 2


def test_a_file_without_a_checksum_is_an_older_one(index: Path) -> None:
    path = index / "manifest.json"
    plain = read_json(path)
    assert plain is not None
    write_json(path, plain, checksum=False)
    assert read_json(path) == plain
    assert CHECKSUM not in path.read_text()
    assert parse_mapping(str(with_checksum({"a": 1})).replace("'", '"').encode()) == {"a": 1}


def test_the_manifest_has_a_second_copy_in_the_live_generation_only(index: Path) -> None:
    copy = generation(index) / MANIFEST_COPY
    assert read_json(copy) == read_json(index / "manifest.json")
    (index / "manifest.json").write_text("{")
    live = find_live(index)
    assert live is not None
    assert (live.number, live.copied) == (1, True)
    with pytest.raises(StoreCorruptError, match=r"manifest.json cannot be read: .*'retrieval repair'"):
        peek_manifest(index)
    write_json(index / "manifest.json", read_json(copy) or {})
    with open_edge(index, parse_config({"store": {"kind": "edge"}})) as store:
        grown = store.start_generation(DIM)
        grown.write_manifest({"schema_version": 1})
        grown.make_live({"schema_version": 1, "state": "ready", "passages": 0, "previous": 1})
        grown.close()
    assert not copy.exists()
    assert read_json(index / "generations" / "2" / MANIFEST_COPY) == read_json(index / "manifest.json")
