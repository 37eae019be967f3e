"""Tuning a real index: replays equal searches, what is chosen holds, and the index stays as it was."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import TwoStagePipeline
from pipelines.quantization.queries import SampledQueries
from pipelines.tuning.preparing import Preparer
from pipelines.tuning.recording import RememberedReranker
from pipelines.tuning.report import TunePlan, TuneReport
from pipelines.tuning.settings import Fusion, Setting, Variant, config_with
from retrieval.config import Config, load_config
from retrieval.datatypes import Quantization, Results
from retrieval.errors import StoreError
from tests.store_folders import quick_folder
from tests.test_cli import COLUMNS, run
from tests.tune_corpus import DIM, TOPICS, documents, qrels, queries, settings, write_models

TURBO = Quantization("turbo", 2)
BINARY = Quantization("binary", 1)
ASKED = (
    "copper pipe bam",
    "pipe leak star bam cim",
    "copper pipe not night",
    "bread",
    "xylophone quetzal",
    "night bread dam dim dom",
)


@pytest.fixture(scope="module")
def sections() -> Iterator[Mapping[str, Any]]:
    with quick_folder() as folder:
        yield write_models(folder)


@pytest.fixture(scope="module")
def room(sections: Mapping[str, Any]) -> Iterator[Path]:
    with quick_folder() as folder:
        with TwoStagePipeline.open(folder / "index", settings(sections)) as pipeline:
            pipeline.ingest(documents())
        yield folder / "index"


@pytest.fixture(scope="module")
def small(sections: Mapping[str, Any]) -> Iterator[TwoStagePipeline]:
    """Over a few documents in memory, where other vectors are fewer dimensions alone."""
    with TwoStagePipeline.open(config=settings(sections, store={"kind": "memory"})) as pipeline:
        pipeline.ingest(documents()[:60])
        yield pipeline


@pytest.fixture
def few_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four kinds of vectors instead of twelve, where they are not what a test is about."""
    monkeypatch.setattr("pipelines.tuning.preparing.QUANTIZATIONS", (Quantization(), TURBO))
    monkeypatch.setattr("pipelines.tuning.settings._HALVINGS", 1)


@pytest.fixture
def index(room: Path) -> Iterator[Path]:
    with quick_folder() as folder:
        shutil.copytree(room, folder / "index")
        yield folder / "index"


def opened(index: Path, sections: Mapping[str, Any], **others: Mapping[str, Any]) -> TwoStagePipeline:
    return TwoStagePipeline.open(index, settings(sections, **others))


def content(pipeline: TwoStagePipeline) -> tuple[Any, ...]:
    points = [
        (point.id, dict(point.payload), None if point.dense is None else point.dense.tolist())
        for point in pipeline.store.scan(vectors=["dense"])
    ]
    return points, pipeline.store.quantization, pipeline.store.read_manifest(), pipeline.config


def replayed(pipeline: TwoStagePipeline, chosen: Sequence[Setting]) -> list[list[Results]]:
    """What a replay gives for each setting; everything is asked of the index once, at first."""
    from pipelines.tuning.gathering import record_lists
    from pipelines.tuning.replay import Replay

    with pipeline.reading() as serving:
        ask = Preparer(pipeline, serving, "nDCG@10", 60, lambda plan: None, lambda stage, done, total: None)
        variants = list(dict.fromkeys([ask.present.variant, *(setting.variant for setting in chosen)]))
        limit = pipeline.config.first_stage.candidates
        record, missing = record_lists(
            ask.variants, variants, ASKED, limit, pipeline.sparse, serving.store, lambda stage, done, total: None
        )
        assert not missing
        replay = Replay(ask.config, ask.present, record, ask.reranker, 10)
        found = [replay.run(setting) for setting in chosen]
    return [list(one.results) for one in found if one is not None]


def hits(results: Results) -> list[tuple[Any, ...]]:
    return [
        (hit.document_id, pytest.approx(hit.score, abs=2e-5), hit.rerank_score, hit.first_stage_rank) for hit in results
    ]


@pytest.mark.parametrize("present", [Quantization(), TURBO], ids=str)
def test_a_replay_is_a_search(sections: Mapping[str, Any], present: Quantization) -> None:
    own = settings(sections, quantization=asdict(present))
    base = Setting.present(own, DIM, present, None)
    chosen = [
        base,
        replace(base, depth=7, first_stage_weight=0.8),
        replace(base, depth=0),
        replace(base, depth=20, first_stage_weight=0.0),
        replace(base, fusion=Fusion("hybrid", "rrf", 0.5), depth=5),
        replace(base, fusion=Fusion("bm25", "minmax", 0.4)),
        replace(base, fusion=Fusion("dense", "minmax", 0.4), variant=Variant(DIM // 2, Quantization())),
        replace(base, variant=Variant(DIM, BINARY), fusion=Fusion("hybrid", "minmax", 0.8)),
        replace(base, variant=Variant(DIM // 4, TURBO), depth=10, first_stage_weight=0.2),
        replace(base, budget_ms=1e-6),
        replace(base, budget_ms=1e6),
    ]
    with quick_folder() as folder:
        # What 'ingest --rebuild' makes of each number of dimensions and compression.
        for setting in dict.fromkeys([base, *chosen]):
            with TwoStagePipeline.open(folder / str(setting.variant), config_with(own, base, setting)) as built:
                built.ingest(documents())
        with TwoStagePipeline.open(folder / str(base.variant), own) as pipeline:
            answers = replayed(pipeline, chosen)
        for setting, found in zip(chosen, answers, strict=True):
            with TwoStagePipeline.open(folder / str(setting.variant), config_with(own, base, setting)) as real:
                assert real.store.quantization == setting.variant.quantization
                for query, one in zip(ASKED, found, strict=True):
                    searched = real.search(query, 10)
                    assert hits(one) == hits(searched), (setting, query)
                    assert (one.reranked, one.stopped) == (searched.reranked, searched.stopped), (setting, query)


def test_replays_differ_where_searches_do(index: Path, sections: Mapping[str, Any]) -> None:
    with opened(index, sections) as pipeline:
        base = Setting.present(pipeline.config, DIM, Quantization(), None)
        chosen = [
            base,
            replace(base, depth=0),
            replace(base, variant=Variant(DIM // 4, BINARY)),
            replace(base, budget_ms=1e-6),
        ]
        answers = replayed(pipeline, chosen)
    shown = [[[hit.document_id for hit in one] for one in found] for found in answers]
    # Reading one pair alone changes the first stage in some place or none; everything else does in many.
    assert len({json.dumps(one) for one in shown[:3]}) == 3
    assert not any(shown[0][ASKED.index("xylophone quetzal")])
    # A pair is always read, and then the time is up.
    assert [one.reranked for one in answers[3]] == [1, 1, 1, 1, 0, 1]
    # Up to twice the depth where the query says "not".
    assert base.depth < answers[0][ASKED.index("copper pipe not night")].reranked <= 2 * base.depth


def test_a_remembered_pair_is_not_read_again_and_takes_its_time_again(sections: Mapping[str, Any]) -> None:
    from retrieval.rerankers import open_reranker

    calls: list[list[str]] = []

    class Counting:
        name = "counting"

        def score(self, query: str, texts: Sequence[str]) -> Any:
            calls.append(list(texts))
            return real.score(query, texts)

    real = open_reranker(settings(sections).rerank)
    remembered = RememberedReranker(Counting(), batch_size=2)
    texts = ["copper", "pipe pipe", "star"]
    first = remembered.score("copper pipe", texts)
    assert first.tolist() == real.score("copper pipe", texts).tolist() == [1, 2, 0]
    assert calls == [["copper", "pipe pipe"], ["star"]]
    once = remembered.clock()
    assert remembered.score("copper pipe", ["star", "copper", "pipe pipe"]).tolist() == [0, 1, 2]
    assert len(calls) == 2
    assert remembered.clock() == pytest.approx(2 * once)
    assert remembered.pairs == 3
    remembered.limit = 3
    assert remembered.score("copper pipe", ["star"]).tolist() == [0]
    with pytest.raises(RuntimeError, match="3 pairs are read"):
        remembered.score("copper pipe", ["bread"])
    assert remembered.refused


def tuned(pipeline: TwoStagePipeline, **arguments: Any) -> TuneReport:
    judged = {"queries": queries(), "qrels": qrels(documents())}
    return pipeline.tune(**{**judged, "seconds": 60.0, "folds": 3, **arguments})


@pytest.mark.usefixtures("few_vectors")
def test_judgements_find_the_blend_and_the_file_gives_it(
    index: Path, sections: Mapping[str, Any], tmp_path: Path
) -> None:
    from pipelines.tuning.written import tuned_yaml
    from retrieval.evaluation import evaluate_run

    def quality(pipeline: TwoStagePipeline) -> float:
        results = {name: pipeline.search(text, 10) for name, text in queries().items()}
        found = {name: [(hit.document_id, hit.score) for hit in one] for name, one in results.items()}
        return evaluate_run(qrels(documents()), found, ["nDCG@10"]).means["nDCG@10"]

    plans: list[TunePlan] = []
    # The cross-encoder knows what is relevant here, random vectors do not, and nobody listens to the former.
    with opened(index, sections, rerank={"first_stage_weight": 1.0}, first_stage={"dense_weight": 0.9}) as pipeline:
        before = content(pipeline)
        report = tuned(pipeline, on_plan=plans.append)
        assert content(pipeline) == before
        assert quality(pipeline) == pytest.approx(report.present.quality, abs=1e-9)
        place = tmp_path / "tuned.yaml"
        place.write_text(tuned_yaml(pipeline.config, report))
    assert (report.outcome, report.asked, report.queries, report.metric) == ("changed", "judged", 35, "nDCG@10")
    assert (plans[0].queries, plans[0].available) == (35, 35)
    assert 0 < plans[0].pairs <= report.pairs
    assert report.comparison is not None
    assert report.held_out is not None
    assert report.comparison.outcome == "better"
    assert report.held_out > report.present.quality + 0.1
    assert report.held_out == pytest.approx(
        sum(fold.quality * fold.queries for fold in report.folds) / sum(fold.queries for fold in report.folds)
    )
    assert [fold.queries for fold in report.folds] == [12, 12, 11]
    assert report.comparison.difference == pytest.approx(report.held_out - report.present.quality)
    assert report.setting.first_stage_weight < 1
    assert "better: +" in report.reason
    assert report.present in report.frontier
    assert report.chosen in report.frontier
    assert all(point.p95 >= point.p50 > 0 for point in report.frontier)
    qualities = [point.quality for point in report.frontier]
    assert qualities == sorted(qualities, reverse=True)
    if report.needs is None:
        with TwoStagePipeline.open(index, load_config(place)) as pipeline:
            assert quality(pipeline) == pytest.approx(report.chosen.quality, abs=1e-9)


def test_where_all_settings_are_as_good_the_cheapest_is_taken(small: TwoStagePipeline) -> None:
    everything = {name: dict.fromkeys((document for document, _ in documents()), 1) for name in queries()}
    report = tuned(small, qrels=everything, metric="P@10", sample=12)
    assert (report.queries, report.present.quality, report.chosen.quality, report.held_out) == (12, 1.0, 1.0, 1.0)
    assert report.comparison is not None
    assert report.comparison.verdict == "not distinguishable with 12 queries"
    # Here a millisecond decides nothing: the reader of this corpus takes less.
    assert report.chosen.p50 <= report.present.p50 + 5


def test_limits_are_kept(small: TwoStagePipeline) -> None:
    from pipelines.evaluation.footprint import sparse_bytes

    # Room for BM25 and half of the dimensions.
    bound = sparse_bytes(small) + DIM * 2
    report = tuned(small, sample=10, folds=2, max_bytes=bound)
    assert report.present.bytes_per_passage == bound + DIM * 2
    assert report.chosen.bytes_per_passage <= bound
    assert report.outcome == "changed"
    assert report.reason.startswith(f"the present configuration reads {bound + DIM * 2:,.0f} bytes a passage of the")
    # So little there is not; an arm alone with a quarter of the dimensions comes nearest.
    report = tuned(small, sample=10, folds=2, max_bytes=1)
    assert (report.chosen.arms, report.chosen.dimensions) == ("dense", DIM // 4)
    assert report.chosen.bytes_per_passage == DIM


def test_without_judgements_likeness_decides_and_nothing_dearer(index: Path, sections: Mapping[str, Any]) -> None:
    with opened(index, sections) as pipeline:
        before = content(pipeline)
        report = pipeline.tune(sample=10, folds=2, seconds=60)
        assert content(pipeline) == before
    assert (report.asked, report.queries) == ("pseudo", 10)
    assert 0 < report.chosen.quality <= 1
    assert report.chosen.bytes_per_passage <= report.present.bytes_per_passage
    # Compression was tried in the engine.
    assert report.settings_tried > 20


def test_real_queries_without_judgements(small: TwoStagePipeline) -> None:
    report = small.tune(queries=[*ASKED], folds=2, seconds=60)
    assert (report.asked, report.queries) == ("real", len(ASKED) - 1)
    assert any("1 queries find nothing" in note for note in report.notes)


def test_the_most_careful_search_is_like_itself(small: TwoStagePipeline) -> None:
    deep = small.config.rerank.model_copy(update={"depth": 20})
    with TwoStagePipeline.open(config=small.config.model_copy(update={"rerank": deep})) as pipeline:
        pipeline.ingest(documents()[:60])
        report = pipeline.tune(sample=6, folds=2, seconds=60)
    assert report.present.quality == pytest.approx(1.0)


@pytest.mark.usefixtures("few_vectors")
def test_an_exact_search_is_compared_with_exact_searches(index: Path, sections: Mapping[str, Any]) -> None:
    with opened(index, sections, first_stage={"exact": True}) as pipeline:
        report = tuned(pipeline, sample=3, folds=2)
    assert {point.quantization for point in report.frontier} == {"none"}
    assert report.present.dimensions == DIM


def test_one_query_and_two(small: TwoStagePipeline) -> None:
    one = {"q": queries()["q00"]}
    report = tuned(small, queries=one, qrels={"q": qrels(documents())["q00"]})
    assert (report.queries, report.outcome, report.held_out, report.comparison) == (1, "kept", None, None)
    assert report.folds == ()
    unknown = {"u": "xylophone quetzal", **one}
    report = tuned(small, queries=unknown, qrels={"u": {"d000": 1}, "q": qrels(documents())["q00"]}, folds=5)
    assert (report.queries, len(report.folds)) == (2, 2)
    assert report.present.quality <= 0.5


def test_what_cannot_be_tuned(small: TwoStagePipeline) -> None:
    with pytest.raises(StoreError, match="no query finds anything"):
        tuned(small, queries={"u": "xylophone"}, qrels={"u": {"d000": 1}})
    with pytest.raises(StoreError, match="no query finds anything"):
        small.tune(queries=["xylophone"])
    with pytest.raises(ValueError, match="not one of 35 queries finds a document"):
        tuned(small, qrels={name: {"elsewhere": 1} for name in queries()})
    for arguments, message in (
        ({"folds": 1}, "folds is a whole number from 2"),
        ({"metric": "nonsense"}, "measure 'nonsense' is unknown"),
        ({"latency_ms": 0.0}, "latency_ms is above 0"),
        ({"max_bytes": float("nan")}, "max_bytes is above 0"),
        ({"seconds": -1.0}, "seconds is above 0"),
        ({"max_loss": 2.0}, "max_loss is from 0 to 1"),
        ({"sample": 0}, "sample is a whole number from 1"),
    ):
        with pytest.raises(ValueError, match=message):
            tuned(small, **arguments)


def test_small_and_empty_corpora(sections: Mapping[str, Any], tmp_path: Path) -> None:
    config = settings(sections, store={"kind": "memory"})
    with TwoStagePipeline.open(tmp_path, config) as pipeline:
        with pytest.raises(StoreError, match="has no passages to make queries of"):
            pipeline.tune()
        with pytest.raises(StoreError, match="no query finds anything"):
            pipeline.tune(queries=["copper pipe"])
        pipeline.ingest([("a", f"{TOPICS[0]} {TOPICS[1]} bam"), ("b", f"{TOPICS[2]} cim dim")])
        report = pipeline.tune(seconds=30)
        assert (report.queries, report.passages) == (2, 2)
        # A store in memory compresses nothing.
        assert {point.quantization for point in report.frontier} == {"none"}


@pytest.mark.usefixtures("few_vectors")
@pytest.mark.parametrize("stage", ["vectors: 32 dims", "timing"])
def test_an_interruption_leaves_nothing(
    index: Path, sections: Mapping[str, Any], stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def interrupt(doing: str, done: int, of: int) -> None:
        if doing.startswith(stage) and done >= 1:
            raise KeyboardInterrupt

    with opened(index, sections) as pipeline:
        before = content(pipeline)
        with pytest.raises(KeyboardInterrupt):
            tuned(pipeline, sample=4, folds=2, on_progress=interrupt)
        assert content(pipeline) == before
        assert not list(tmp_path.iterdir())
        assert pipeline.ingest([("new", "copper")]).added == 1


def test_an_adapted_index_keeps_its_dimensions(small: TwoStagePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    adapted = replace(small.manifest, adapted_from=small.manifest.encoder)
    monkeypatch.setattr(small, "_manifest", adapted)
    report = tuned(small, sample=4, folds=2)
    assert {point.dimensions for point in report.frontier} == {DIM}
    assert any(note.startswith("fewer dimensions were not tried") for note in report.notes)


def test_time_decides_how_many_queries_are_used(small: TwoStagePipeline) -> None:
    report = tuned(small, seconds=0.001, folds=2)
    assert report.queries == 10
    assert any(note.startswith("10 of 35 queries were used") for note in report.notes)


def beir(folder: Path, split: str) -> Path:
    (folder / "qrels").mkdir(parents=True)
    texts = ({"_id": name, "text": text, "title": ""} for name, text in documents())
    (folder / "corpus.jsonl").write_text("".join(json.dumps(one) + "\n" for one in texts))
    asked = ({"_id": name, "text": text} for name, text in queries().items())
    (folder / "queries.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))
    rows = [f"{query}\t{name}\t{grade}\n" for query, own in qrels(documents()).items() for name, grade in own.items()]
    (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    return folder


@pytest.mark.usefixtures("few_vectors")
def test_the_command(index: Path, sections: Mapping[str, Any], tmp_path: Path) -> None:
    given = tmp_path / "mine.yaml"
    given.write_text(
        json.dumps({**sections, "rerank": {**sections["rerank"], "first_stage_weight": 1.0}, "service": {"port": 1}})
    )
    folder, out = beir(tmp_path / "set", "dev"), tmp_path / "tuned.yaml"
    shared = [
        "tune",
        "--index",
        index,
        "--config",
        given,
        "--qrels",
        folder,
        "--sample",
        20,
        "--folds",
        2,
        "--out",
        out,
    ]
    done = run(*shared)
    assert done.code == 0, done.err
    assert "rerank.first_stage_weight" in done.out
    assert f"judgements: {folder}, split dev" in done.err.replace("\n", "")
    assert "the cross-encoder reads" in done.err
    assert max(map(len, [line for line in done.out.splitlines() if not line.startswith("next: ")])) <= COLUMNS
    assert "held out" in done.out
    assert f"wrote {out}" in done.out.replace("\n", "")
    assert f"next: retrieval search QUERY --index {index} --config {out}" in done.out
    config = load_config(out)
    assert isinstance(config, Config)
    assert "port: 1" in out.read_text()
    again = run(*shared)
    assert (again.code, "exists; --force overwrites it" in again.err) == (2, True)
    record = json.loads(run(*shared, "--sample", 6, "--force", "--json", "--quiet").out)
    assert record["asked"] == "judged"
    assert record["comparison"]["queries"] == 6
    assert (record["written"] is None) is (record["outcome"] == "kept") is (not record["next"])
    assert {"present", "chosen", "frontier", "held_out", "reason"} <= record.keys()
    for wrong, message in (
        (["--split", "dev"], "--split dev belongs to --qrels with a BEIR folder"),
        (["--out", tmp_path / "no" / "where.yaml"], "make the folder"),
        (["--folds", "1"], "folds"),
        (["--metric", "nonsense", "--out", tmp_path / "x.yaml"], "measure 'nonsense' is unknown"),
        (["--queries", given.with_name("missing"), "--out", tmp_path / "x.yaml"], "cannot read the queries"),
    ):
        failed = run("tune", "--index", index, *wrong)
        assert failed.code != 0
        assert message in failed.err.replace("\n", " ")


@pytest.mark.usefixtures("few_vectors")
def test_the_command_without_judgements_says_what_it_is(
    index: Path, sections: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = tmp_path / "mine.yaml"
    given.write_text(json.dumps(dict(sections)))
    done = run("tune", "--index", index, "--config", given, "--sample", 6, "--folds", 2)
    assert done.code == 0, done.err
    assert "pseudo-queries made of titles and sentences" in " ".join(done.out.split())
    assert "likeness to exact search at full depth is not relevance" in " ".join(done.out.split())
    assert (tmp_path / "tuned.yaml").exists() is ("wrote tuned.yaml" in done.out)


def test_arrays_of_a_record_fit_together(small: TwoStagePipeline) -> None:
    with small.reading() as serving:
        ask = Preparer(small, serving, "nDCG@10", 60, lambda plan: None, lambda stage, done, total: None)
        prepared = ask.prepare(SampledQueries(dict(enumerate(ASKED)), "real"))  # type: ignore[arg-type]
        record = prepared.record
        assert list(record.queries) == list(prepared.queries.values())
        for lists in record.dense.values():
            assert len(lists.points) == len(lists.vectors) == len(lists.milliseconds) == len(record.queries)
        fused = record.fused(0, ask.present.variant, ask.present.fusion, ask.config)
        assert len(fused) == 20
        assert np.all(record.first_stage_ms(ask.present.variant, Fusion("bm25", "minmax", 0.4)) == record.sparse_ms)
