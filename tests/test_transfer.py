"""Push and pull: the copy is the same index, it appears at once or not at all, and nothing else is lost for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from pipelines import TwoStagePipeline
from pipelines.transfer.push_pull import TransferReport, pull_index, push_index
from retrieval.config import Config, parse_config
from retrieval.datatypes import IndexManifest, Quantization, Results
from retrieval.errors import ConfigError, ModelError, StoreBusyError, StoreCorruptError, StoreError
from retrieval.manifest import peek_manifest
from retrieval.protocols import Store
from retrieval.stores.json_files import write_json
from tests.adapt_corpus import documents, word, write_model
from tests.live_server import HAS_SERVER, LIVE_KINDS, NO_SERVER, live_config
from tests.qdrant_double import QdrantDouble, qdrant_double
from tests.store_folders import quick_folder
from tests.test_adapt import copied, generations

__all__ = ["qdrant_double"]
DOCUMENTS = 80
PASSAGES = 81


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    """A folder with a tiny model and an index; one passage has no dense vector, because the model knows none of it."""
    with quick_folder() as folder:
        with TwoStagePipeline.open(folder / "index", settings(write_model(folder / "tiny"))) as pipeline:
            pipeline.ingest([*documents(DOCUMENTS), ("unknown", "quibble zephyr")])
        yield folder


@pytest.fixture
def index(room: Path) -> Iterator[Path]:
    with quick_folder() as folder:
        yield copied(room / "index", folder / "index")


@pytest.fixture
def server(qdrant_double: QdrantDouble, room: Path) -> Config:
    return on(qdrant_double, room)


def settings(model: Path, **sections: Any) -> Config:
    return parse_config({"encoder": {"model": str(model)}, **sections})


def on(double: QdrantDouble, room: Path, store: dict[str, Any] | None = None, **sections: Any) -> Config:
    return settings(
        room / "tiny", store={"kind": "server", "url": double.url, "retries": 0, **(store or {})}, **sections
    )


def contents(store: Store) -> dict[str, Any]:
    """Everything that a store holds, with the bits of its vectors."""
    return {
        point.id: (
            dict(point.payload),
            None if point.dense is None else point.dense.tobytes(),
            None
            if point.sparse is None
            else dict(zip(point.sparse.indices.tolist(), point.sparse.values.tolist(), strict=True)),
        )
        for point in store.scan(vectors=True)
    }


def close_to(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether two contents are the same but for the last bit of a vector that was divided by its length again."""

    def dense(point: Any) -> Any:
        return np.zeros(1) if point[1] is None else np.frombuffer(point[1], np.float32)

    return ours.keys() == theirs.keys() and all(
        (ours[key][0], ours[key][2]) == (theirs[key][0], theirs[key][2])
        and (ours[key][1] is None) == (theirs[key][1] is None)
        and np.allclose(dense(ours[key]), dense(theirs[key]), rtol=0, atol=1e-7)
        for key in ours
    )


def lasting(manifest: IndexManifest) -> IndexManifest:
    return replace(manifest, generation=0, previous=None, updated="")


def collections(double: QdrantDouble) -> tuple[list[str], dict[str, str]]:
    client = QdrantClient(url=double.url, check_compatibility=False)
    names = sorted(collection.name for collection in client.get_collections().collections)
    aliases = {alias.alias_name: alias.collection_name for alias in client.get_aliases().aliases}
    client.close()
    return names, aliases


def found(pipeline: TwoStagePipeline) -> list[list[str]]:
    return [[hit.document_id for hit in hits] for hits in searched(pipeline)]


def scores(pipeline: TwoStagePipeline) -> list[float]:
    return [hit.score for hits in searched(pipeline) for hit in hits]


def searched(pipeline: TwoStagePipeline) -> list[Results]:
    queries = [word(concept, language) for concept in range(6) for language in (0, 1)]
    return pipeline.search_many(queries, 10, rerank=False)


def passed(report: TransferReport) -> list[str]:
    assert all(check.ok for check in report.checks)
    return [check.name for check in report.checks]


def test_a_pushed_index_is_the_same_index(index: Path, server: Config, qdrant_double: QdrantDouble) -> None:
    report = push_index(index, server)
    assert (report.copied, report.passages, report.written, report.continued) == (True, PASSAGES, PASSAGES, 0)
    assert (report.generation, report.previous, report.notes) == (2, None, ())
    assert passed(report) == ["counts", "contents", "dense search", "BM25 search"]
    # The empty collection that was live in the meantime is gone.
    assert collections(qdrant_double) == (["passages-g2"], {"passages": "passages-g2"})
    with TwoStagePipeline.open(config=server) as theirs, TwoStagePipeline.open(index) as ours:
        here, there = contents(ours.store), contents(theirs.store)
        assert close_to(here, there)
        assert sum(point[1] is None for point in there.values()) == 1
        assert lasting(theirs.manifest) == lasting(ours.manifest)
        assert found(theirs) == found(ours)
        assert scores(theirs) == pytest.approx(scores(ours), abs=1e-5)
        # An ingest goes on where the folder stood: what is known is known.
        assert theirs.ingest(documents(DOCUMENTS)).unchanged == DOCUMENTS


def test_the_second_push_has_nothing_to_do(index: Path, server: Config, qdrant_double: QdrantDouble) -> None:
    push_index(index, server)
    before = qdrant_double.count("PUT .*/points|PATCH|DELETE|POST /collections/aliases")
    report = push_index(index, server)
    assert (report.copied, report.generation, report.written, report.checks) == (False, 2, 0, ())
    assert qdrant_double.count("PUT .*/points|PATCH|DELETE|POST /collections/aliases") == before


def test_a_pulled_index_is_the_same_index(index: Path, server: Config, room: Path) -> None:
    push_index(index, server)
    with quick_folder() as folder:
        report = pull_index(server, folder / "back")
        assert (report.copied, report.written, report.previous) == (True, PASSAGES, None)
        assert passed(report) == ["counts", "contents", "dense search", "BM25 search"]
        assert generations(folder / "back") == ["2"]
        # It opens with the settings that it was built with.
        with TwoStagePipeline.open(folder / "back") as back, TwoStagePipeline.open(index) as ours:
            assert close_to(contents(ours.store), contents(back.store))
            assert lasting(back.manifest) == lasting(ours.manifest)
            assert found(back) == found(ours)
            assert back.ingest(documents(DOCUMENTS)).unchanged == DOCUMENTS
        assert not pull_index(server, folder / "back").copied


def test_vectors_are_compressed_as_in_the_folder_unless_the_configuration_says(
    index: Path, qdrant_double: QdrantDouble, room: Path
) -> None:
    with TwoStagePipeline.open(index) as pipeline:
        pipeline.store.set_quantization(Quantization("turbo", 4))
    for collection, sections, kind, bits in (
        ("same", {}, "turbo", 4),
        ("other", {"quantization": {"kind": "binary", "bits": 1}}, "binary", 1),
    ):
        server = on(qdrant_double, room, {"collection": collection}, **sections)
        push_index(index, server)
        with TwoStagePipeline.open(config=server) as theirs, quick_folder() as folder:
            assert (theirs.store.quantization.kind, theirs.store.quantization.bits) == (kind, bits)
            pull_index(server, folder)
            with TwoStagePipeline.open(folder) as back:
                assert (back.store.quantization.kind, back.store.quantization.bits) == (kind, bits)


def test_an_adapted_index_brings_its_encoder(index: Path, qdrant_double: QdrantDouble, room: Path) -> None:
    with TwoStagePipeline.open(index) as pipeline:
        assert pipeline.adapt(steps=40, seed=1, force=True).switched
        expected = found(pipeline)
    with pytest.raises(ConfigError, match=r"store\.models"):
        push_index(index, on(qdrant_double, room))
    assert collections(qdrant_double) == (["passages-g1"], {"passages": "passages-g1"})
    with quick_folder() as folder:
        server = on(qdrant_double, room, {"models": str(folder / "models")})
        report = push_index(index, server)
        assert passed(report)[0] == "encoder"
        assert report.notes == (f"every machine that serves the index needs its encoder, {folder}/models/passages-g2",)
        with TwoStagePipeline.open(config=server) as theirs:
            assert theirs.encoder.fingerprint.name == "tiny-adapted"
            assert found(theirs) == expected
        shutil.move(folder / "models", folder / "away")
        with pytest.raises(ModelError, match="copy that folder"):
            pull_index(server, folder / "back")
        shutil.move(folder / "away", folder / "models")
        pull_index(server, folder / "back")
        with TwoStagePipeline.open(folder / "back") as back:
            assert found(back) == expected


def test_a_push_of_what_changed_replaces_the_copy_and_lets_readers_finish(
    index: Path, server: Config, qdrant_double: QdrantDouble
) -> None:
    push_index(index, server)
    with TwoStagePipeline.open(config=server) as reader:
        before = found(reader)
        with TwoStagePipeline.open(index) as pipeline:
            pipeline.ingest([("new", word(3, 0))])
            pipeline.delete(["000"])
        report = push_index(index, server)
        assert (report.written, report.generation, report.previous) == (PASSAGES, 3, 2)
        assert found(reader) == before
    assert collections(qdrant_double) == (["passages-g2", "passages-g3"], {"passages": "passages-g3"})
    with TwoStagePipeline.open(config=server) as theirs, TwoStagePipeline.open(index) as ours:
        assert found(theirs) == found(ours) != before
        ours.ingest([("newer", word(3, 0))])
    assert push_index(index, server, keep_previous=False).previous is None
    assert collections(qdrant_double) == (["passages-g4"], {"passages": "passages-g4"})


def test_work_travels_between_both_sides(index: Path, server: Config) -> None:
    push_index(index, server)
    with TwoStagePipeline.open(config=server) as theirs:
        theirs.ingest([("there", word(3, 0))])
    # The folder is what the server was before: nothing is lost.
    assert pull_index(server, index).written == PASSAGES + 1
    with TwoStagePipeline.open(index) as ours:
        ours.ingest([("here", word(3, 0))])
    assert push_index(index, server).written == PASSAGES + 2
    with TwoStagePipeline.open(config=server) as theirs:
        assert {"there", "here"} <= {hit.document_id for hit in theirs.search(word(3, 0), 200, rerank=False)}


def test_an_index_that_exists_nowhere_else_is_not_replaced(index: Path, server: Config, room: Path) -> None:
    push_index(index, server)
    with TwoStagePipeline.open(config=server) as theirs:
        theirs.ingest([("there", word(3, 0))])
    with TwoStagePipeline.open(index) as ours:
        ours.ingest([("here", word(3, 0))])
    for refused in (lambda: push_index(index, server), lambda: pull_index(server, index)):
        with pytest.raises(StoreError, match=r"82 passages that are not a copy of .*--replace"):
            refused()
    with quick_folder() as folder:
        with TwoStagePipeline.open(folder / "other", settings(room / "tiny")) as other:
            other.ingest([("other", word(4, 0))])
        with pytest.raises(StoreError, match="82 passages that are not a copy of"):
            push_index(folder / "other", server)
        report = push_index(folder / "other", server, replace_other=True)
        assert (report.passages, report.previous) == (1, 2)
        assert pull_index(server, index, replace_other=True).passages == 1


class Meanwhile:
    """Does something else once, while points are copied."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act: Callable[[], object] | None = act

    def __call__(self, stage: str, done: int, of: int) -> None:
        if stage == "copying" and done == of and self._act is not None:
            act, self._act = self._act, None
            act()


def in_the_copy(double: QdrantDouble, use: Callable[[QdrantClient, str], object]) -> Meanwhile:
    def act() -> None:
        client = QdrantClient(url=double.url, check_compatibility=False)
        use(client, collections(double)[0][-1])
        client.close()

    return Meanwhile(act)


def test_a_copy_that_differs_is_erased(index: Path, server: Config, qdrant_double: QdrantDouble) -> None:
    with TwoStagePipeline.open(index) as pipeline:
        first, second = [point.id for point in pipeline.store.scan()][:2]

    def lose(client: QdrantClient, copy: str) -> None:
        client.delete(copy, models.PointIdsList(points=[first]))

    def change(client: QdrantClient, copy: str) -> None:
        client.set_payload(copy, {"title": "another"}, models.PointIdsList(points=[second]))

    for damage, message in (
        (lose, "counts: documents 80, the source says 81; passages 80"),
        (change, f"contents: 1 of 81 passages differ, {second} first"),
    ):
        with pytest.raises(StoreCorruptError, match=f"{message}.*nothing was switched"):
            push_index(index, server, on_progress=in_the_copy(qdrant_double, damage))
        assert collections(qdrant_double) == (["passages-g1"], {"passages": "passages-g1"})
    assert push_index(index, server).copied


def test_an_index_that_changes_meanwhile_is_not_switched_to(index: Path, server: Config) -> None:
    push_index(index, server)

    def ingest() -> None:
        with TwoStagePipeline.open(config=server) as theirs:
            theirs.ingest([("there", word(3, 0))])

    with quick_folder() as folder:
        with pytest.raises(StoreError, match="was changed while it was copied"):
            pull_index(server, folder / "back", on_progress=Meanwhile(ingest))
        assert generations(folder / "back") == []
        with TwoStagePipeline.open(index) as ours:
            ours.ingest([("here", word(3, 0))])
        pull_index(server, folder / "back")
        push_index(index, server, replace_other=True)
        with TwoStagePipeline.open(index) as ours:
            ours.ingest([("more", word(3, 0))])
        with pytest.raises(StoreError, match="was changed meanwhile"):
            push_index(index, server, on_progress=Meanwhile(ingest))
        with TwoStagePipeline.open(config=server) as theirs:
            assert "there" in {hit.document_id for hit in theirs.search(word(3, 0), 200, rerank=False)}
        with pytest.raises(StoreError, match="--replace"):
            push_index(index, server)


def test_a_failed_push_is_continued(index: Path, server: Config, qdrant_double: QdrantDouble, room: Path) -> None:
    server = on(qdrant_double, room, {"batch_size": 20})
    qdrant_double.fail("PUT .*/points$", status=500, skip=3, times=1)
    with pytest.raises(StoreError, match="500"):
        push_index(index, server)
    assert collections(qdrant_double) == (["passages-g1", "passages-g2"], {"passages": "passages-g1"})
    with TwoStagePipeline.open(config=server) as theirs:
        assert theirs.store.count() == 0
    report = push_index(index, server)
    assert (report.continued, report.written) == (60, 21)
    assert collections(qdrant_double) == (["passages-g2"], {"passages": "passages-g2"})
    # What another index has left half copied is not mixed with this one.
    qdrant_double.fail("PUT .*/points$", status=500, skip=3, times=1)
    with TwoStagePipeline.open(index) as ours:
        ours.ingest([("here", word(3, 0))])
    with pytest.raises(StoreError, match="500"):
        push_index(index, server)
    with TwoStagePipeline.open(index) as ours:
        ours.ingest([("more", word(3, 0))])
    assert push_index(index, server).continued == 0


def test_what_cannot_be_copied_is_refused(index: Path, server: Config, room: Path) -> None:
    with quick_folder() as folder:
        with pytest.raises(StoreError, match="there is no index in"):
            push_index(folder / "none", server)
        with pytest.raises(StoreError, match="there is no collection 'passages'"):
            pull_index(server, folder / "none")
        assert not (folder / "none").exists()
        for config in (Config(), parse_config({"store": {"kind": "memory"}})):
            with pytest.raises(ConfigError, match="name the server with --config"):
                push_index(index, config)
        TwoStagePipeline.open(config=server).close()
        with pytest.raises(StoreError, match="empty"):
            pull_index(server, folder / "none")
        manifest = (index / "manifest.json").read_text()
        write_json(index / "manifest.json", {**json.loads(manifest), "state": "ingesting"})
        with pytest.raises(StoreError, match="run the same 'retrieval ingest' again"):
            push_index(index, server)
        (index / "manifest.json").write_text(manifest)
        with TwoStagePipeline.open(index), pytest.raises(StoreBusyError):
            push_index(index, server)
        (folder / "damaged").mkdir()
        shutil.copytree(index / "generations", folder / "damaged" / "generations")
        push_index(index, server)
        with pytest.raises(StoreError, match="damaged index; --replace"):
            pull_index(server, folder / "damaged")
        pull_index(server, folder / "damaged", replace_other=True)
        restored = peek_manifest(folder / "damaged")
        assert restored is not None
        assert (restored.passages, generations(folder / "damaged")) == (PASSAGES, ["2"])


def test_settings_that_do_not_fit_are_named(index: Path, qdrant_double: QdrantDouble) -> None:
    server = parse_config({"store": {"kind": "server", "url": qdrant_double.url}, "bm25": {"k1": 0.9}})
    notes = push_index(index, server).notes
    assert len(notes) == 2
    assert "has {'model': 'starter-static', 'dimensions': None}: change it there" in notes[0]
    assert "built with bm25 {" in notes[1]


def test_indexing_waits_for_the_last_passage_also_after_a_failure(
    index: Path, qdrant_double: QdrantDouble, room: Path
) -> None:
    server = on(qdrant_double, room, {"bulk": True, "batch_size": 20})
    client = QdrantClient(url=qdrant_double.url, check_compatibility=False)

    def threshold() -> int | None:
        return client.get_collection("passages-g2").config.optimizer_config.indexing_threshold

    seen: list[int | None] = []

    def look(stage: str, done: int, of: int) -> None:
        # Sixty of them were there before this run has written one.
        if stage == "copying" and done > 60:
            seen.append(threshold())

    qdrant_double.fail("PUT .*/points$", status=500, skip=3, times=1)
    with pytest.raises(StoreError, match="500"):
        push_index(index, server, on_progress=look)
    assert threshold()
    assert push_index(index, server, on_progress=look).continued == 60
    assert set(seen) == {0}
    assert threshold()
    client.close()


@pytest.mark.skipif(not HAS_SERVER, reason=NO_SERVER)
@pytest.mark.parametrize("kind", LIVE_KINDS)
@pytest.mark.parametrize("shards", [1, 3])
def test_a_real_server_takes_an_index_and_gives_it_back(index: Path, room: Path, kind: str, shards: int) -> None:
    with ExitStack() as stack, quick_folder() as folder:
        live = live_config(kind, stack, shard_number=shards)
        server = settings(room / "tiny", store=live.store.model_dump())
        assert push_index(index, server).written == PASSAGES
        assert not push_index(index, server).copied
        assert pull_index(server, folder / "back").written == PASSAGES
        with TwoStagePipeline.open(folder / "back") as back, TwoStagePipeline.open(index) as ours:
            assert close_to(contents(ours.store), contents(back.store))
            assert found(back) == found(ours)
