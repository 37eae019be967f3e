"""An index that learns its own documents: what is switched, what stays, and what happens when something is wrong."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipelines import TwoStagePipeline
from pipelines.adapt import AdaptReport
from pipelines.rebuild import rebuild_index
from pipelines.sampling import sample_passages
from retrieval.config import Config, parse_config
from retrieval.datatypes import StoredPoint
from retrieval.errors import IndexMismatchError, ModelError, StoreError, StoreFullError
from retrieval.stores import edge_engine, json_files
from tests.adapt_corpus import CONCEPTS, DIM, WORDS, documents, word, write_model
from tests.static_models import random_table, word_tokenizer
from tests.store_folders import quick_folder

STEPS = 120
training = importlib.import_module("retrieval.training.adapt")


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    """A folder with the model ``tiny``, the index ``base`` made with it, and the same index adapted, ``adapted``."""
    with quick_folder() as folder:
        write_model(folder / "tiny")
        with TwoStagePipeline.open(folder / "base", config(folder / "tiny")) as pipeline:
            pipeline.ingest(documents())
        copied(folder / "base", folder / "adapted")
        with TwoStagePipeline.open(folder / "adapted") as pipeline:
            assert adapt(pipeline).switched
        yield folder


@pytest.fixture
def base(room: Path) -> Iterator[Path]:
    yield from _copy(room, "base")


@pytest.fixture
def adapted(room: Path) -> Iterator[Path]:
    yield from _copy(room, "adapted")


def _copy(room: Path, name: str) -> Iterator[Path]:
    with quick_folder() as folder:
        yield copied(room / name, folder / "index")


def copied(source: Path, target: Path) -> Path:
    subprocess.run(["cp", "-a", "--sparse=always", source, target], check=True)
    return target


def config(model: Path, **sections: Any) -> Config:
    return parse_config({"encoder": {"model": str(model)}, **sections})


def adapt(pipeline: TwoStagePipeline, **arguments: Any) -> AdaptReport:
    return pipeline.adapt(**{"steps": STEPS, "seed": 1, **arguments})


def synonyms_found(pipeline: TwoStagePipeline) -> float:
    """Share of the words whose nearest word of the other language has the same meaning."""
    vectors = pipeline.encoder.encode_queries(WORDS)
    nearest = (vectors[:CONCEPTS] @ vectors[CONCEPTS:].T).argmax(axis=1)
    return float((nearest == np.arange(CONCEPTS)).mean())


def contents(pipeline: TwoStagePipeline) -> dict[str, StoredPoint]:
    return {point.id: point for point in pipeline.store.scan(vectors=True)}


def generations(index: Path) -> list[str]:
    return sorted(path.name for path in (index / "generations").iterdir())


def require_vectors_of_its_encoder(pipeline: TwoStagePipeline) -> None:
    points = list(pipeline.store.scan(vectors=["dense"]))
    expected = pipeline.encoder.encode_documents([point.payload["text"] for point in points])
    np.testing.assert_allclose([point.dense for point in points], expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["edge", "memory"])
def test_an_adapted_index_knows_its_synonyms(room: Path, tmp_path: Path, kind: str) -> None:
    settings = config(room / "tiny", store={"kind": kind})
    with TwoStagePipeline.open(tmp_path / "index", settings) as pipeline:
        pipeline.ingest(documents())
        assert synonyms_found(pipeline) < 0.3
        before, manifest = contents(pipeline), pipeline.manifest
        stages: list[str] = []
        report = adapt(pipeline, on_progress=lambda progress: stages.append(progress.stage))
        assert list(dict.fromkeys(stages)) == ["reading", "training", "checking", "encoding", "switching"]
        assert synonyms_found(pipeline) > 0.6
        after = contents(pipeline)
        require_vectors_of_its_encoder(pipeline)
        assert after.keys() == before.keys()
        for name, point in after.items():
            assert point.payload == before[name].payload
            np.testing.assert_array_equal(point.sparse.indices, before[name].sparse.indices)
            np.testing.assert_array_equal(point.sparse.values, before[name].sparse.values)
        assert (report.switched, report.generation, report.previous, report.encoded) == (True, 2, 1, 240)
        assert report.rows
        assert report.steps == STEPS
        assert report.encoder.startswith("tiny-adapted@")
        now = pipeline.manifest
        assert (now.generation, now.previous, now.adapted_from) == (2, 1, manifest.encoder)
        assert now.dense_weight == report.dense_weight
        same = ("documents", "passages", "terms", "ids_digest", "average_length", "runs", "config", "chunking")
        assert all(getattr(now, name) == getattr(manifest, name) for name in same)
        assert pipeline.rollback().generation == 1
        assert synonyms_found(pipeline) < 0.3
        require_vectors_of_its_encoder(pipeline)


def test_the_same_seed_gives_the_same_model(room: Path, adapted: Path, base: Path) -> None:
    with TwoStagePipeline.open(base) as pipeline:
        encoder = adapt(pipeline).encoder
    with TwoStagePipeline.open(adapted) as pipeline:
        assert encoder == f"tiny-adapted@{pipeline.encoder.fingerprint.digest}"


def test_a_moved_index_opens_with_its_own_encoder_and_ingests_with_it(adapted: Path) -> None:
    moved = adapted.rename(adapted.with_name("moved"))
    with TwoStagePipeline.open(moved) as pipeline:
        assert synonyms_found(pipeline) > 0.6
        report = pipeline.ingest([*documents(), ("new", f"{word(3, 0)} {word(4, 1)}.")])
        assert (report.unchanged, report.added) == (240, 1)
        require_vectors_of_its_encoder(pipeline)
    with TwoStagePipeline.open(moved) as pipeline:
        (best,) = pipeline.search(f"{word(3, 0)} {word(4, 1)}", 1, first_stage="dense", rerank=False)
        assert (best.document_id, best.arms["dense"].score) == ("new", pytest.approx(1.0))


def test_a_rollback_returns_to_the_old_vectors_and_another_one_to_the_new(room: Path, adapted: Path) -> None:
    with TwoStagePipeline.open(room / "base") as pipeline:
        old = {name: point.dense for name, point in contents(pipeline).items()}
    with TwoStagePipeline.open(adapted) as pipeline:
        report = pipeline.rollback()
        assert (report.generation, report.previous, report.encoded) == (1, 2, 0)
        assert synonyms_found(pipeline) < 0.3
        for name, point in contents(pipeline).items():
            np.testing.assert_array_equal(point.dense, old[name])
        assert pipeline.manifest.dense_weight is None
    with TwoStagePipeline.open(adapted) as pipeline:
        assert pipeline.manifest.generation == 1
        assert pipeline.rollback().generation == 2
        assert synonyms_found(pipeline) > 0.6


def test_a_rollback_loses_no_document_that_came_since(adapted: Path) -> None:
    with TwoStagePipeline.open(adapted) as pipeline:
        pipeline.ingest([("new", f"{word(3, 0)} {word(4, 1)}.")])
        pipeline.delete(["007"])
        report = pipeline.rollback()
        assert (report.generation, report.previous, report.encoded) == (3, 2, 240)
        assert pipeline.manifest.documents == pipeline.store.count() == 240
        assert pipeline.search(word(3, 0), 240, rerank=False, where=_is("new"))
        assert not pipeline.search(word(3, 0), 240, rerank=False, where=_is("007"))
        require_vectors_of_its_encoder(pipeline)
        assert synonyms_found(pipeline) < 0.3
        assert generations(adapted) == ["2", "3"]
        # Nothing has changed since: the way forward is a switch again.
        assert pipeline.rollback().encoded == 0
        assert pipeline.manifest.documents == 240


def _is(document_id: str) -> dict[str, Any]:
    return {"must": [{"key": "document_id", "match": {"value": document_id}}]}


def test_without_a_previous_generation_there_is_no_way_back(base: Path, adapted: Path) -> None:
    with TwoStagePipeline.open(base) as pipeline, pytest.raises(StoreError, match="no previous generation"):
        pipeline.rollback()
    with TwoStagePipeline.open(adapted) as pipeline:
        assert pipeline.discard_previous() == 1
        assert generations(adapted) == ["2"]
        assert pipeline.discard_previous() is None
        with pytest.raises(StoreError, match="no previous generation"):
            pipeline.rollback()
    with TwoStagePipeline.open(adapted) as pipeline:
        assert synonyms_found(pipeline) > 0.6


def test_searches_go_on_while_the_index_is_adapted_and_rolled_back(base: Path) -> None:
    queries = [f"{word(n, 0)} {word(n + 1, 0)}" for n in range(8)]
    answers: list[int] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def search(pipeline: TwoStagePipeline) -> None:
        while not done.is_set():
            try:
                answers.extend(len(results) for results in pipeline.search_many(queries, 5, rerank=False))
            except BaseException as error:
                failures.append(error)
                return

    with TwoStagePipeline.open(base) as pipeline:
        threads = [threading.Thread(target=search, args=(pipeline,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            adapt(pipeline, steps=20, force=True)
            for _ in range(3):
                if pipeline.manifest.previous is not None:
                    pipeline.rollback()
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert not failures
    assert len(answers) > 100
    assert set(answers) == {5}


def test_documents_that_come_meanwhile_wait_and_get_the_new_vectors(base: Path) -> None:
    with TwoStagePipeline.open(base) as pipeline:
        begun = threading.Event()
        ingests = threading.Thread(
            target=lambda: (begun.wait(), pipeline.ingest([("late", f"{word(3, 0)} {word(4, 1)}.")]))
        )
        ingests.start()
        report = adapt(pipeline, on_progress=lambda progress: begun.set())
        ingests.join()
        assert (report.encoded, pipeline.manifest.documents, pipeline.manifest.generation) == (240, 241, 2)
        require_vectors_of_its_encoder(pipeline)


def test_a_second_adaptation_starts_from_the_first_and_keeps_one_generation(adapted: Path) -> None:
    with TwoStagePipeline.open(adapted) as pipeline:
        first = pipeline.manifest
        report = adapt(pipeline, steps=5)
        if report.switched:
            assert generations(adapted) == ["2", "3"]
            assert (report.generation, report.previous) == (3, 2)
            assert pipeline.manifest.adapted_from == first.adapted_from
            assert report.encoder.startswith("tiny-adapted@")
        else:
            assert generations(adapted) == ["1", "2"]
        assert synonyms_found(pipeline) > 0.6


def refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the training come to the verdict that it has when the check shows a loss."""
    real = training.adapt

    def judged(table: Any, *arguments: Any, **named: Any) -> Any:
        found = real(table, *arguments, **named)
        return replace(found, accepted=False, reason="the check shows a loss", dense_weight=0.9, start_weight=0.2)

    monkeypatch.setattr(training, "adapt", judged)


def test_after_a_loss_the_vectors_stay_and_only_the_weight_is_chosen(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch)
    with TwoStagePipeline.open(base) as pipeline:
        before = pipeline.encoder.fingerprint
        query = f"{word(3, 0)} {word(4, 0)} {word(5, 1)}"
        unweighted = [hit.first_stage_score for hit in pipeline.search(query, 50, rerank=False)]
        report = adapt(pipeline)
        assert (report.switched, report.accepted, report.generation) == (False, False, 1)
        assert report.reason == "the check shows a loss"
        assert (report.dense_weight, report.dense_weight_before) == (0.2, 0.4)
        assert pipeline.encoder.fingerprint == before
        assert generations(base) == ["1"]
        weighted = [hit.first_stage_score for hit in pipeline.search(query, 50, rerank=False)]
        assert weighted != unweighted
    with TwoStagePipeline.open(base) as pipeline:
        assert [hit.first_stage_score for hit in pipeline.search(query, 50, rerank=False)] == weighted
    # The configuration has the last word.
    given = parse_config({**pipeline.manifest.config, "first_stage": {"dense_weight": 0.4}})
    with TwoStagePipeline.open(base, given) as pipeline:
        assert [hit.first_stage_score for hit in pipeline.search(query, 50, rerank=False)] == unweighted


def test_force_switches_in_spite_of_a_loss(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch)
    with TwoStagePipeline.open(base) as pipeline:
        report = adapt(pipeline, force=True)
        assert (report.switched, report.accepted) == (True, False)
        assert report.dense_weight == pipeline.manifest.dense_weight == 0.9
        assert synonyms_found(pipeline) > 0.6


def test_a_dry_run_changes_nothing(base: Path) -> None:
    before = (base / "manifest.json").read_bytes()
    with TwoStagePipeline.open(base) as pipeline:
        report = adapt(pipeline, dry_run=True)
        assert (report.switched, report.accepted, report.encoded) == (False, True, 0)
        assert report.rows
        assert synonyms_found(pipeline) < 0.3
    assert (base / "manifest.json").read_bytes() == before
    assert generations(base) == ["1"]


def test_a_disk_that_fills_leaves_the_old_generation(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = False
    usage = shutil.disk_usage

    def disk_usage(path: Any) -> Any:
        return usage(path)._replace(free=0) if full else usage(path)

    monkeypatch.setattr(edge_engine.shutil, "disk_usage", disk_usage)

    def fill(progress: Any) -> None:
        nonlocal full
        full = progress.stage == "checking"

    with TwoStagePipeline.open(base) as pipeline:
        with pytest.raises(StoreFullError, match="free disk"):
            adapt(pipeline, on_progress=fill)
        assert generations(base) == ["1"]
        assert pipeline.search(word(3, 0), 5, rerank=False)
        full = True
        with pytest.raises(StoreFullError):
            adapt(pipeline)
        full = False
        assert adapt(pipeline).switched


def test_a_model_that_cannot_be_written_leaves_the_old_generation(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_to_write(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("retrieval.training.table.StaticTable.save", refuse_to_write)
    with TwoStagePipeline.open(base) as pipeline:
        with pytest.raises(StoreError, match=r"cannot write the adapted encoder .*No space left"):
            adapt(pipeline)
        assert generations(base) == ["1"]
        assert pipeline.manifest.generation == 1


def test_a_switch_that_cannot_be_written_leaves_the_old_generation(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = json_files.os.replace

    def refuse_to_switch(source: Any, target: Any) -> None:
        if Path(target) == base / "manifest.json":
            raise OSError(28, "No space left on device")
        rename(source, target)

    with TwoStagePipeline.open(base) as pipeline:
        with monkeypatch.context() as broken:
            broken.setattr(json_files.os, "replace", refuse_to_switch)
            with pytest.raises(StoreError, match=r"cannot write .*manifest\.json"):
                adapt(pipeline)
        assert generations(base) == ["1"]
        assert synonyms_found(pipeline) < 0.3
        assert len(pipeline.search(word(3, 0), 5, rerank=False)) == 5
        assert pipeline.ingest([("new", word(3, 0))]).added == 1
        assert adapt(pipeline).encoded == 241


def test_a_sentence_transformers_folder_keeps_its_rules(tmp_path: Path) -> None:
    # Unknown words count there: they have the vector of the unknown token.
    folder = tmp_path / "hub"
    folder.mkdir()
    tokenizer = word_tokenizer(WORDS)
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file({"embedding.weight": random_table(tokenizer, DIM)}, folder / "model.safetensors")
    with TwoStagePipeline.open(tmp_path / "index", config(folder)) as pipeline:
        pipeline.ingest([(name, text + " Zzz.") for name, text in documents()])
        assert pipeline.encoder.fingerprint.unknown == "keep"
        assert adapt(pipeline).switched
        assert pipeline.encoder.fingerprint.unknown == "keep"
        assert pipeline.encoder.encode_queries(["zzz"]).any()
        require_vectors_of_its_encoder(pipeline)
    with TwoStagePipeline.open(tmp_path / "index") as pipeline:
        assert pipeline.manifest.adapted_from.loader == "sentence-transformers"
        assert synonyms_found(pipeline) > 0.6


def test_a_model2vec_folder_is_adapted(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    tokenizer = word_tokenizer(WORDS)
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file({"embeddings": random_table(tokenizer, DIM)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "model2vec", "max_length": 9, "normalize": true}')
    with TwoStagePipeline.open(tmp_path / "index", config(folder)) as pipeline:
        pipeline.ingest(documents())
        adapt(pipeline)
        require_vectors_of_its_encoder(pipeline)
        assert pipeline.manifest.adapted_from.max_tokens == pipeline.encoder.fingerprint.max_tokens == 9


@pytest.mark.parametrize("count", [0, 49])
def test_too_few_passages_are_refused(room: Path, tmp_path: Path, count: int) -> None:
    with TwoStagePipeline.open(tmp_path / "index", config(room / "tiny")) as pipeline:
        pipeline.ingest(documents(count))
        with pytest.raises(StoreError, match=f"has {count} passages, too few to learn from; adapt needs at least 50"):
            adapt(pipeline)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_time_limit_that_is_none_is_refused(adapted: Path, seconds: float) -> None:
    with TwoStagePipeline.open(adapted) as pipeline, pytest.raises(ValueError, match="seconds is above 0"):
        pipeline.adapt(seconds=seconds)


def test_one_long_document_is_enough(room: Path, tmp_path: Path) -> None:
    text = "\n\n".join(text for _, text in documents(400))
    settings = config(room / "tiny", chunking={"max_tokens": 16, "overlap_tokens": 0})
    with TwoStagePipeline.open(tmp_path / "index", settings) as pipeline:
        pipeline.ingest([("book", text)])
        assert (pipeline.manifest.documents, pipeline.manifest.passages) == (1, 400)
        passages = sample_passages(pipeline.store, pipeline.manifest, 1000, 0)
        assert len({passage.document for passage in passages}) == 50
        assert adapt(pipeline).switched
        assert synonyms_found(pipeline) > 0.6


def test_a_sample_is_uniform_and_follows_its_seed(room: Path) -> None:
    with TwoStagePipeline.open(room / "base") as pipeline:
        everything = {passage.text for passage in sample_passages(pipeline.store, pipeline.manifest, 240, 0)}
        assert everything == {text for _, text in documents()}
        samples = [sample_passages(pipeline.store, pipeline.manifest, 60, seed) for seed in range(40)]
        assert samples[0] == sample_passages(pipeline.store, pipeline.manifest, 60, 0)
    assert {len({passage.text for passage in sample}) for sample in samples} == {60}
    counts = [sum(text in {passage.text for passage in sample} for sample in samples) for text in sorted(everything)]
    # 40 draws with a chance of 1/4 each: 10 on average, with a deviation of 2.7.
    assert min(counts) >= 1
    assert max(counts) <= 24


def test_an_interrupted_ingest_is_repaired_first(base: Path) -> None:
    with TwoStagePipeline.open(base) as pipeline:
        raw = dict(pipeline.store.read_manifest() or {})
        pipeline.store.write_manifest({**raw, "state": "ingesting", "documents": 1, "passages": 1})
    with TwoStagePipeline.open(base) as pipeline:
        assert adapt(pipeline).encoded == 240
        assert (pipeline.manifest.state, pipeline.manifest.documents) == ("ready", 240)


def test_truncated_vectors_are_adapted_as_they_are(room: Path, tmp_path: Path) -> None:
    settings = parse_config({"encoder": {"model": str(room / "tiny"), "dimensions": DIM // 2}})
    with TwoStagePipeline.open(tmp_path / "index", settings) as pipeline:
        pipeline.ingest(documents())
        assert adapt(pipeline).switched
        assert pipeline.encoder.dim == DIM // 2
        require_vectors_of_its_encoder(pipeline)
    with TwoStagePipeline.open(tmp_path / "index", settings) as pipeline:
        assert synonyms_found(pipeline) > 0.6
    with pytest.raises(IndexMismatchError, match="32 dims"):
        TwoStagePipeline.open(tmp_path / "index", config(room / "tiny"))


def test_an_index_opens_when_its_first_model_is_named_another_way(room: Path, adapted: Path) -> None:
    moved = Path(shutil.copytree(room / "tiny", adapted.parent / "moved-model"))
    with TwoStagePipeline.open(adapted, config(moved)) as pipeline:
        assert synonyms_found(pipeline) > 0.6
    with pytest.raises(IndexMismatchError, match=r"tiny-adapted@.* asks for tiny@"):
        TwoStagePipeline.open(adapted, config(write_model(adapted.parent / "other", seed=9)))


def test_an_adapted_index_does_not_need_its_first_model(adapted: Path, room: Path) -> None:
    hidden = (room / "tiny").rename(room / "hidden")
    try:
        with TwoStagePipeline.open(adapted) as pipeline:
            assert synonyms_found(pipeline) > 0.6
            with pytest.raises(ModelError, match="neither bundled"):
                pipeline.rollback()
            assert synonyms_found(pipeline) > 0.6
    finally:
        hidden.rename(room / "tiny")


def test_a_lost_encoder_is_named(adapted: Path) -> None:
    shutil.rmtree(adapted / "generations" / "2" / "encoder")
    with pytest.raises(ModelError, match=r"adapted to its documents, and it is not in .*generations/2/encoder"):
        TwoStagePipeline.open(adapted)


def test_a_rebuild_keeps_the_adapted_encoder_unless_another_model_is_named(room: Path, adapted: Path) -> None:
    settings = config(room / "tiny")
    with TwoStagePipeline.open(adapted) as pipeline:
        weight = pipeline.manifest.dense_weight
    rebuild_index(adapted, settings, lambda pipeline: pipeline.ingest(documents()[:100]))
    assert generations(adapted) == ["3"]
    with TwoStagePipeline.open(adapted) as pipeline:
        assert synonyms_found(pipeline) > 0.6
        now = pipeline.manifest
        assert (now.documents, now.generation, now.previous, now.dense_weight) == (100, 3, None, weight)
        require_vectors_of_its_encoder(pipeline)
    other = config(write_model(adapted.parent / "other", seed=9))
    rebuild_index(adapted, other, lambda pipeline: pipeline.ingest(documents()[:100]))
    with TwoStagePipeline.open(adapted) as pipeline:
        assert pipeline.manifest.adapted_from is None
        assert synonyms_found(pipeline) < 0.3
