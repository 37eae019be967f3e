"""Snapshots of an index on a server: the requests, files that come and go whole, and what is brought back."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import TwoStagePipeline
from retrieval.config import Config, ServerStoreConfig, parse_config
from retrieval.datatypes import Point
from retrieval.errors import ConfigError, IndexMismatchError, StoreCorruptError, StoreError, StoreFullError
from retrieval.stores.server import ServerStore
from retrieval.stores.server import connection as server_connection
from retrieval.stores.server.snapshots import (
    create_snapshot,
    delete_snapshot,
    download_snapshot,
    list_snapshots,
    restore_snapshot,
)
from tests.adapt_corpus import write_model
from tests.qdrant_double import QdrantDouble
from tests.qdrant_stub import Answer, Qdrant, Sent, running

DATA = bytes(range(256)) * 20_000  # five blocks of a transfer
NAME = "books-g1-1-2026-01-02-03-04-05.snapshot"
SAID = {
    "name": NAME,
    "size": len(DATA),
    "creation_time": "2026-01-02T03:04:05",
    "checksum": hashlib.sha256(DATA).hexdigest(),
}
PATH = f"/collections/books-g1/snapshots/{NAME}"
HERE = {"peer_id": 1, "shard_count": 2, "local_shards": [{"shard_id": 0}, {"shard_id": 1}], "remote_shards": []}


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between attempts, recorded and not made."""
    made: list[float] = []
    monkeypatch.setattr(server_connection, "_sleep", made.append)
    return made


@pytest.fixture
def qdrant() -> Iterator[Qdrant]:
    """A server whose alias ``books`` stands for ``books-g1``, which has one snapshot."""
    with running(Qdrant()) as script:
        script.results["/aliases"] = {"aliases": [{"alias_name": "books", "collection_name": "books-g1"}]}
        script.results["/collections"] = {"collections": [{"name": "books-g1"}, {"name": "others-g3"}]}
        script.results["/snapshots"] = [SAID]
        script.results[f"/snapshots/{NAME}"] = True
        script.files[f"/snapshots/{NAME}"] = DATA
        yield script


def books(url: str, **store: Any) -> ServerStoreConfig:
    return settings(url, **store).store  # type: ignore[return-value]


def settings(url: str, **store: Any) -> Config:
    return parse_config({"store": {"kind": "server", "url": url, "collection": "books", **store}})


def test_a_snapshot_is_made_of_the_live_generation(qdrant: Qdrant) -> None:
    qdrant.results |= {"/cluster": HERE, "/snapshots": SAID}
    info = create_snapshot(books(qdrant.url))
    assert (info.name, info.bytes, info.created) == (NAME, len(DATA), "2026-01-02T03:04:05")
    assert (info.checksum, info.generation) == (SAID["checksum"], 1)
    (made,) = qdrant.to("POST", "/snapshots")
    assert (made.path, made.query, made.body) == ("/collections/books-g1/snapshots", "wait=true", None)


def test_a_snapshot_whose_answer_was_lost_is_not_made_twice(qdrant: Qdrant, pauses: list[float]) -> None:
    qdrant.results["/cluster"] = HERE
    qdrant.fail("POST /snapshots", 503)
    with pytest.raises(StoreError, match=r"create snapshot failed at .*: 503 the server's own words"):
        create_snapshot(books(qdrant.url))
    assert (len(qdrant.to("POST", "/snapshots")), pauses) == (1, [])


def test_a_part_of_a_cluster_is_not_taken_for_the_whole(qdrant: Qdrant) -> None:
    remote = [{"shard_id": 1, "peer_id": 2}, {"shard_id": 2, "peer_id": 2}, {"shard_id": 2, "peer_id": 3}]
    qdrant.results["/cluster"] = {**HERE, "remote_shards": remote}
    with pytest.raises(StoreError, match="would lack shards 2 of books-g1, which are on other nodes"):
        create_snapshot(books(qdrant.url))
    assert not qdrant.to("POST", "/snapshots")


def test_there_is_nothing_to_make_a_snapshot_of(qdrant: Qdrant) -> None:
    qdrant.exists = False
    qdrant.results |= {"/aliases": {"aliases": []}, "/collections": {"collections": []}}
    with pytest.raises(StoreError, match="there is no collection 'books' on http"):
        create_snapshot(books(qdrant.url))
    assert list_snapshots(books(qdrant.url)) == []


def test_snapshots_of_all_generations_are_listed_newest_first(qdrant: Qdrant) -> None:
    qdrant.results["/collections"] = {"collections": [{"name": "books-g1"}, {"name": "books-g2"}]}
    older = {**SAID, "name": "older", "creation_time": "2025-01-01T00:00:00", "checksum": None}
    answer = qdrant.answer

    def by_generation(sent: Sent) -> Answer:
        qdrant.results["/snapshots"] = [older] if "books-g2" in sent.path else [SAID]
        return answer(sent)

    qdrant.answer = by_generation  # type: ignore[method-assign]
    found = list_snapshots(books(qdrant.url))
    assert [(info.name, info.generation) for info in found] == [(NAME, 1), ("older", 2)]


def test_a_snapshot_is_deleted_by_its_name(qdrant: Qdrant) -> None:
    delete_snapshot(books(qdrant.url), NAME)
    (sent,) = qdrant.to("DELETE", "")
    assert (sent.path, sent.query) == (PATH, "wait=true")
    for name in ("missing", "../../books-g1", ""):
        with pytest.raises(StoreError, match=f"there is no snapshot {name!r} of books .*there are: {NAME}"):
            delete_snapshot(books(qdrant.url), name)
    assert len(qdrant.to("DELETE", "")) == 1


def test_the_key_travels_with_every_request(qdrant: Qdrant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOKS_KEY", "s3cret")
    download_snapshot(books(qdrant.url, api_key_env="BOOKS_KEY"), NAME, tmp_path)
    assert {sent.headers.get("api-key") for sent in qdrant.sent} == {"s3cret"}
    qdrant.fail("GET /snapshots", 401)
    with pytest.raises(StoreError, match="put its API key into"):
        list_snapshots(books(qdrant.url))


def test_a_download_is_there_when_it_is_whole(qdrant: Qdrant, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    target = tmp_path / "index.snapshot"
    target.write_bytes(b"an older one")
    info = download_snapshot(books(qdrant.url), NAME, target, lambda *done: seen.append(done))
    assert (target.read_bytes() == DATA, info.name) == (True, NAME)
    assert seen[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    # Into a folder it goes under its own name.
    download_snapshot(books(qdrant.url), NAME, tmp_path)
    assert (tmp_path / NAME).read_bytes() == DATA
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME, "index.snapshot"]


def test_a_download_that_breaks_off_goes_on_where_it_was(qdrant: Qdrant, tmp_path: Path, pauses: list[float]) -> None:
    # It announces more than comes.
    short = {"Content-Length": str(len(DATA)), "Connection": "close"}
    qdrant.fail(f"GET /snapshots/{NAME}", 200, headers=short, body=DATA[: 3 * 2**20])
    download_snapshot(books(qdrant.url), NAME, tmp_path)
    assert (tmp_path / NAME).read_bytes() == DATA
    first, second = qdrant.to("GET", NAME)
    assert "range" not in first.headers
    start = int(second.headers["range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < start <= 3 * 2**20
    assert len(pauses) == 1


def test_a_server_that_begins_again_is_followed(qdrant: Qdrant, tmp_path: Path) -> None:
    short = {"Content-Length": str(len(DATA)), "Connection": "close"}
    qdrant.fail(f"GET /snapshots/{NAME}", 200, headers=short, body=DATA[: 2**20])
    qdrant.failures[f"GET /snapshots/{NAME}"].append((200, {}, DATA))
    download_snapshot(books(qdrant.url), NAME, tmp_path)
    assert (tmp_path / NAME).read_bytes() == DATA


@pytest.mark.parametrize("damaged", [DATA[:-1] + b"x", DATA[:-1], b""], ids=["changed", "short", "empty"])
def test_a_damaged_download_is_refused_and_leaves_what_was_there(
    qdrant: Qdrant, tmp_path: Path, damaged: bytes
) -> None:
    qdrant.files[f"/snapshots/{NAME}"] = damaged
    (tmp_path / NAME).write_bytes(b"an older one")
    with pytest.raises(StoreCorruptError, match=f"{len(damaged)} bytes with SHA-256 .* announced {len(DATA)}"):
        download_snapshot(books(qdrant.url), NAME, tmp_path)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(NAME, b"an older one")]


def test_a_place_that_cannot_be_written_is_named(
    qdrant: Qdrant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreError, match=r"cannot write .*missing/x: No such file"):
        download_snapshot(books(qdrant.url), NAME, tmp_path / "missing" / "x")

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreFullError, match=r"needs 5,120,000 bytes, and the disk is full"):
        download_snapshot(books(qdrant.url), NAME, tmp_path)
    assert list(tmp_path.iterdir()) == []


def restored(qdrant: Qdrant, manifest: dict[str, Any] | None, points: int = 3) -> None:
    """What the server will say of the collection that it has restored."""
    qdrant.metadata["manifest"] = json.dumps(manifest)
    qdrant.results["/points/count"] = {"count": points}
    qdrant.results["/snapshots/recover"] = qdrant.results["/snapshots/upload"] = True


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The manifest of a real index of three passages."""
    folder = tmp_path_factory.mktemp("books")
    config = parse_config({"encoder": {"model": str(write_model(folder / "tiny"))}, "store": {"kind": "memory"}})
    with TwoStagePipeline.open(config=config) as pipeline:
        pipeline.ingest([(f"d{number}", f"word{number}") for number in range(3)])
        return dict(pipeline.store.read_manifest() or {})


def test_a_snapshot_on_the_server_becomes_the_next_generation(
    qdrant: Qdrant, manifest: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOKS_KEY", "s3cret")
    restored(qdrant, manifest)
    report = restore_snapshot(books(qdrant.url, api_key_env="BOOKS_KEY"), NAME)
    assert (report.collection, report.generation, report.points, report.previous) == ("books-g2", 2, 3, 1)
    (sent,) = qdrant.to("PUT", "/recover")
    assert (sent.path, sent.query) == ("/collections/books-g2/snapshots/recover", "wait=true")
    assert sent.body == {
        "location": qdrant.url + PATH,
        "priority": "snapshot",
        "checksum": SAID["checksum"],
        "api_key": "s3cret",
    }
    written = json.loads(qdrant.to("PATCH", "/books-g2")[0].body["metadata"]["manifest"])
    assert (written["generation"], written["previous"], written["passages"]) == (2, 1, 3)
    (switched,) = qdrant.to("POST", "/collections/aliases")
    assert switched.body["actions"][1]["create_alias"] == {"collection_name": "books-g2", "alias_name": "books"}
    assert qdrant.lines().index("POST /collections/aliases") > qdrant.lines().index("PATCH /collections/books-g2")


def test_a_url_of_somebody_else_does_not_get_our_key(
    qdrant: Qdrant, manifest: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOKS_KEY", "s3cret")
    restored(qdrant, manifest)
    store, url = books(qdrant.url, api_key_env="BOOKS_KEY"), "https://elsewhere.example/one.snapshot"
    restore_snapshot(store, url, checksum="ab" * 32)
    with pytest.raises(ConfigError, match="environment variable ELSEWHERE_KEY with the key for https://elsewhere"):
        restore_snapshot(store, url, source_key_env="ELSEWHERE_KEY")
    monkeypatch.setenv("ELSEWHERE_KEY", "theirs")
    restore_snapshot(store, url, source_key_env="ELSEWHERE_KEY")
    first, second = [sent.body for sent in qdrant.to("PUT", "/recover")]
    assert first == {"location": url, "priority": "snapshot", "checksum": "ab" * 32}
    assert second == {"location": url, "priority": "snapshot", "api_key": "theirs"}


def test_a_file_is_uploaded_and_not_kept_twice(qdrant: Qdrant, manifest: dict[str, Any], tmp_path: Path) -> None:
    restored(qdrant, manifest)
    qdrant.results["/snapshots/mine.snapshot"] = True
    (tmp_path / "mine.snapshot").write_bytes(DATA)
    seen: list[tuple[int, int]] = []
    restore_snapshot(
        books(qdrant.url), tmp_path / "mine.snapshot", checksum="cd" * 32, on_progress=lambda *done: seen.append(done)
    )
    (sent,) = qdrant.to("POST", "/upload")
    assert sent.path == "/collections/books-g2/snapshots/upload"
    assert sent.query == f"wait=true&priority=snapshot&checksum={'cd' * 32}"
    assert b'name="snapshot"; filename="mine.snapshot"' in sent.body[:300]
    assert DATA in sent.body
    assert seen[-1] == (len(DATA), len(DATA))
    assert len(seen) > 1  # read in pieces, not at once
    assert [sent.path for sent in qdrant.to("DELETE", "")] == ["/collections/books-g2/snapshots/mine.snapshot"]


def test_a_restore_that_fails_leaves_the_live_generation(qdrant: Qdrant, manifest: dict[str, Any]) -> None:
    restored(qdrant, manifest)
    qdrant.fail("PUT /snapshots/recover", 500)
    with pytest.raises(StoreError, match=rf"500 the server's own words; the server fetches it from {qdrant.url}"):
        restore_snapshot(books(qdrant.url), NAME)
    assert len(qdrant.to("PUT", "/recover")) == 1
    assert [sent.path for sent in qdrant.to("DELETE", "")] == ["/collections/books-g2"]
    assert not qdrant.to("POST", "/collections/aliases")


@pytest.mark.parametrize(
    ("change", "points", "error", "message"),
    [
        ({"passages": 4}, 3, StoreCorruptError, "the snapshot has 3 points, and its manifest says 4"),
        ({"schema_version": 99}, 3, IndexMismatchError, "schema version 99"),
        (None, 3, StoreCorruptError, "manifest"),
        ({"adapted_from": "own", "generation": 5}, 3, ConfigError, r"name the folder of its encoder in store\.models"),
    ],
    ids=["count", "future", "none", "encoder"],
)
def test_what_is_not_a_whole_index_does_not_go_live(
    qdrant: Qdrant,
    manifest: dict[str, Any],
    change: dict[str, Any] | None,
    points: int,
    error: type[Exception],
    message: str,
) -> None:
    changed = None if change is None else {**manifest, **change}
    if changed is not None and changed["adapted_from"] == "own":
        changed["adapted_from"] = manifest["encoder"]
    restored(qdrant, changed, points)
    if changed is None:
        del qdrant.metadata["manifest"]
    with pytest.raises(error, match=message):
        restore_snapshot(books(qdrant.url), NAME)
    assert [sent.path for sent in qdrant.to("DELETE", "")] == ["/collections/books-g2"]
    assert not qdrant.to("POST", "/collections/aliases")


def test_the_encoder_of_an_adapted_index_comes_along(qdrant: Qdrant, manifest: dict[str, Any], tmp_path: Path) -> None:
    restored(qdrant, {**manifest, "adapted_from": manifest["encoder"], "generation": 5})
    with pytest.raises(ConfigError, match=r"its encoder is not in .*books-g5; copy it there"):
        restore_snapshot(books(qdrant.url, models=str(tmp_path)), NAME)
    (tmp_path / "books-g5").mkdir()
    (tmp_path / "books-g5" / "weights").write_text("w")
    restore_snapshot(books(qdrant.url, models=str(tmp_path)), NAME)
    assert (tmp_path / "books-g2" / "weights").read_text() == "w"


def test_a_server_without_the_index_does_not_take_a_half_of_it(qdrant: Qdrant, manifest: dict[str, Any]) -> None:
    restored(qdrant, {**manifest, "passages": 4})
    answer = qdrant.answer
    made: list[str] = []

    def remember(sent: Sent) -> Answer:
        if sent.method == "PUT" and sent.path.endswith("/recover"):
            made.append("books-g1")
        qdrant.exists = False
        qdrant.results |= {"/aliases": {"aliases": []}, "/collections": {"collections": [{"name": n} for n in made]}}
        return answer(sent)

    qdrant.answer = remember  # type: ignore[method-assign]
    with pytest.raises(StoreCorruptError, match="has 3 points"):
        restore_snapshot(books(qdrant.url), "https://elsewhere.example/one.snapshot")
    assert [sent.path for sent in qdrant.to("DELETE", "")] == ["/collections/books-g1"]
    assert not qdrant.to("POST", "/collections/aliases")


def test_a_cluster_is_not_restored_by_halves(qdrant: Qdrant) -> None:
    qdrant.results["/cluster"] = {"status": "enabled", "peers": {"1": {}, "2": {}, "3": {}}}
    with pytest.raises(StoreError, match=r"is a cluster of 3 nodes, .* 'retrieval push'"):
        restore_snapshot(books(qdrant.url), NAME)
    assert {sent.method for sent in qdrant.sent} == {"GET"}


def numbered(count: int) -> list[Point]:
    unit = np.array([1, 0, 0, 0], np.float32)
    return [Point(f"00000000-0000-4000-8000-{number:012d}", unit, None, {"n": number}) for number in range(count)]


def test_an_index_goes_out_and_comes_back(tmp_path: Path, manifest: dict[str, Any]) -> None:
    with QdrantDouble() as double:
        store = books(double.url)
        with ServerStore(settings(double.url), dim=4) as live:
            live.upsert(numbered(3))
            live.write_manifest(manifest)
            taken = create_snapshot(store)
            live.delete([numbered(1)[0].id])
            assert live.count() == 2
        assert [info.name for info in list_snapshots(store)] == [taken.name]
        download_snapshot(store, taken.name, tmp_path)
        for source in (taken.name, str(tmp_path / taken.name)):
            report = restore_snapshot(store, source)
            with ServerStore(settings(double.url), dim=4) as back:
                assert back.generation == report.generation
                assert [point.payload["n"] for point in back.scan()] == [0, 1, 2]
                back.delete([numbered(1)[0].id])
        assert report.generation == 3
        # Onto a server that has never seen it.
        with QdrantDouble() as other:
            report = restore_snapshot(books(other.url), tmp_path / taken.name)
            assert (report.generation, report.previous) == (1, None)
            with ServerStore(settings(other.url), dim=4) as back:
                assert (back.count(), (back.read_manifest() or {})["passages"]) == (3, 3)


def test_a_name_and_a_file_that_are_neither_are_refused(qdrant: Qdrant, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no snapshot '.*nowhere'"):
        restore_snapshot(books(qdrant.url), tmp_path / "nowhere")
