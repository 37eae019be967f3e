"""What a search promises about its hits: probabilities, a good answer or none, exact search, and settled orders."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from pipelines import TwoStagePipeline
from pipelines.confidence import Confidence
from retrieval.config import Config, parse_config
from retrieval.datatypes import FloatArray, Results, ScoredPoint, SearchRequest
from retrieval.encoders import Bm25Encoder
from retrieval.errors import StoreCorruptError
from retrieval.manifest import manifest_from_json, manifest_to_json
from retrieval.models import open_encoder
from retrieval.protocols import Reranker, Store
from retrieval.rerankers import IndexCalibration, PlattCalibration, RerankerCalibration, Threshold, TwinMargin
from retrieval.stores import open_store

PLATT = PlattCalibration(1.0, 0.0)
DOCUMENTS = [
    ("broken", "This pipe is broken and water runs out."),
    ("whole", "This pipe is not broken and water runs out."),
    ("bread", "Yeast lets the dough of a bread rise over night."),
    ("comet", "A comet has a tail of gas and dust."),
]
QUERY = "water runs out of a pipe"


class ByTheWord:
    """A cross-encoder that gives the logit of the first of its words that a text has."""

    def __init__(
        self, words: dict[str, float], calibration: RerankerCalibration | None = None, name: str = "by-the-word"
    ) -> None:
        self._words = words
        self._calibration = calibration
        self.name = name
        self.texts: list[str] = []

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        self.texts += texts
        return np.array(
            [next((logit for word, logit in self._words.items() if word in text), -9.0) for text in texts], np.float32
        )

    def digest(self) -> str:
        return "d" * 12

    def calibration(self) -> RerankerCalibration | None:
        return self._calibration


def calibrated(margin: float = 0.5) -> RerankerCalibration:
    thresholds = (Threshold(0.8, 0.5, 0.8, 0.6),)
    return RerankerCalibration(PLATT, PLATT, thresholds, "by hand", "d" * 12, TwinMargin(margin, 0.9, 0.5, "by hand"))


Opened = Callable[..., TwoStagePipeline]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    pipelines: list[TwoStagePipeline] = []

    def open_with(reranker: Reranker, documents: Any = DOCUMENTS, **sections: Any) -> TwoStagePipeline:
        config = parse_config({"store": {"kind": "memory"}, **sections})
        pipelines.append(pipeline_of(config, reranker, tmp_path))
        pipelines[-1].ingest(documents)
        return pipelines[-1]

    yield open_with
    for pipeline in pipelines:
        pipeline.close()


def pipeline_of(config: Config, reranker: Reranker, folder: Path) -> TwoStagePipeline:
    encoder = open_encoder(config.encoder)
    store = open_store(config, dim=encoder.dim, path=folder / "index")
    sparse = Bm25Encoder(config.bm25)
    return TwoStagePipeline(config, encoder=encoder, sparse=sparse, store=store, open_reranker=lambda: reranker)


def ids(results: Results) -> list[str]:
    return [hit.document_id for hit in results]


class TestProbability:
    def test_is_the_calibrated_logit_of_what_was_read(self, opened: Opened) -> None:
        results = opened(ByTheWord({"not broken": 1.0, "broken": 3.0}, calibrated())).search(QUERY, depth=2)
        assert ids(results)[:2] == ["broken", "whole"]
        assert results[0].probability == pytest.approx(1 / (1 + math.exp(-3)))
        assert results[1].probability == pytest.approx(1 / (1 + math.exp(-1)))
        assert [hit.probability for hit in results[2:]] == [None] * len(results[2:])

    def test_is_none_without_a_calibration(self, opened: Opened) -> None:
        results = opened(ByTheWord({"pipe": 2.0})).search(QUERY)
        assert results[0].rerank_score == 2.0
        assert {hit.probability for hit in results} == {None}

    def test_of_the_bundled_model_rises_with_the_logit(self, tmp_path: Path) -> None:
        with TwoStagePipeline.open(tmp_path / "index", parse_config({"store": {"min_free_mb": 0}})) as pipeline:
            pipeline.ingest(DOCUMENTS)
            results = pipeline.search("why does bread rise", group_by="passage")
            read = sorted((hit.rerank_score or 0, hit.probability or 0) for hit in results)
        assert results[0].document_id == "bread"
        assert [probability for _, probability in read] == sorted(probability for _, probability in read)
        assert read[-1][1] > 0.2 > read[0][1]


class TestMinScore:
    words: ClassVar = {"not broken": -1.0, "broken": 2.0, "comet": -5.0}

    def test_compares_with_the_probability(self, opened: Opened) -> None:
        pipeline = opened(ByTheWord(self.words, calibrated()))
        assert ids(pipeline.search(QUERY, min_score=0.5)) == ["broken"]
        assert ids(pipeline.search(QUERY, min_score=0.2)) == ["broken", "whole"]
        assert len(pipeline.search(QUERY, min_score=0)) == len(pipeline.search(QUERY))

    def test_says_when_nothing_reaches_it(self, opened: Opened) -> None:
        results = opened(ByTheWord(self.words, calibrated())).search(QUERY, min_score=0.95)
        assert len(results) == 0
        assert "no hit reaches min_score 0.95: the best probability is 0.88" in results.warnings

    def test_what_was_not_read_is_left_out_and_the_result_says_so(self, opened: Opened) -> None:
        results = opened(ByTheWord({"pipe": 2.0}, calibrated()), [("a", "pipe"), ("b", "water"), ("c", "water out")])
        found = results.search("pipe water", depth=1, min_score=0.1)
        assert len(found) <= 1
        assert any("min_score leaves out 2 of the best 3 hits, which the cross-encoder did not read" in warning
                   for warning in found.warnings)  # fmt: skip

    def test_takes_the_place_of_a_better_passage_that_fails(self, opened: Opened) -> None:
        # In one document the passage that ranks first fails the bar, and another one passes it.
        pipeline = opened(ByTheWord(self.words, calibrated()))
        assert [hit.rank for hit in pipeline.search(QUERY, min_score=0.2)] == [1, 2]

    def test_needs_the_cross_encoder(self, opened: Opened) -> None:
        pipeline = opened(ByTheWord(self.words, calibrated()), search={"min_score": 0.5})
        with pytest.raises(ValueError, match=r"min_score 0.4 compares with .* leave min_score out, or let it rerank"):
            pipeline.search(QUERY, min_score=0.4, rerank=False)
        with pytest.raises(ValueError, match="let it rerank"):
            pipeline.search(QUERY, min_score="auto", depth=0)
        configured = pipeline.search(QUERY, rerank=False)
        assert len(configured) > 1
        assert "the configured min_score 0.5 is not applied: the cross-encoder is off" in configured.warnings

    def test_needs_a_calibration(self, opened: Opened) -> None:
        pipeline = opened(ByTheWord(self.words))
        with pytest.raises(ValueError, match=r"by-the-word@dddddddddddd have no calibration; 'retrieval calibrate"):
            pipeline.search(QUERY, min_score=0.4)

    @pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan, "high", True, [0.5]])
    def test_is_a_probability(self, opened: Opened, wrong: Any) -> None:
        with pytest.raises(ValueError, match="min_score is a probability from 0 to 1 or 'auto', not"):
            opened(ByTheWord(self.words, calibrated())).search(QUERY, min_score=wrong)

    def test_from_the_configuration(self, opened: Opened) -> None:
        pipeline = opened(ByTheWord(self.words, calibrated()), search={"min_score": 0.5})
        assert ids(pipeline.search(QUERY)) == ["broken"]
        assert len(pipeline.search(QUERY, min_score=0)) > 1


class TestGoodAnswer:
    words: ClassVar = {"not broken": -1.0, "broken": 2.0}

    def test_without_a_threshold_nothing_is_said(self, opened: Opened) -> None:
        pipeline = opened(ByTheWord(self.words, calibrated()))
        assert pipeline.search(QUERY).answered is None
        with pytest.raises(ValueError, match="the index has none; 'retrieval calibrate' stores one"):
            pipeline.search(QUERY, min_score="auto")

    def test_the_threshold_of_the_model(self, opened: Opened) -> None:
        pipeline = opened(ByTheWord(self.words, calibrated()))
        report = pipeline.calibrate(target_precision=0.8)
        # Both functions of this model are the same, so its threshold for results is that of the best passage.
        assert report.threshold.probability == pytest.approx(0.5)
        assert (report.labels, report.stored, report.before) == ("model", True, None)
        found = pipeline.search(QUERY)
        assert found.answered is True
        assert ids(pipeline.search(QUERY, min_score="auto")) == ["broken"]
        only = {"must": [{"key": "document_id", "match": {"value": "comet"}}]}
        nothing = pipeline.search("tail of a comet", min_score="auto", where=only)
        assert (ids(nothing), nothing.answered) == ([], False)
        assert any(warning.startswith("no good answer: the best probability") for warning in nothing.warnings)
        assert pipeline.search(QUERY, rerank=False).answered is None

    def test_it_is_kept_with_the_index_and_can_be_erased(self, tmp_path: Path) -> None:
        config = parse_config({"store": {"min_free_mb": 0}})
        with pipeline_of(config, ByTheWord(self.words, calibrated()), tmp_path) as pipeline:
            pipeline.ingest(DOCUMENTS)
            pipeline.calibrate()
        with pipeline_of(config, ByTheWord(self.words, calibrated()), tmp_path) as pipeline:
            assert pipeline.search(QUERY).answered is True
            assert pipeline.forget_calibration() is True
            assert pipeline.search(QUERY).answered is None
            assert pipeline.forget_calibration() is False

    def test_another_cross_encoder_is_told_from_the_one_that_it_was_fitted_for(self, opened: Opened) -> None:
        pipeline = opened(ByTheWord(self.words, calibrated()))
        pipeline.calibrate()
        stored = IndexCalibration.from_json(pipeline.manifest.calibration or {})
        confidence = Confidence.of(ByTheWord({}, calibrated(), "other"), stored)
        assert confidence.threshold is None
        assert confidence.passages == PLATT
        with pytest.raises(ValueError, match=r"fitted for the cross-encoder by-the-word@d{12}, not for other@d{12}"):
            confidence.least("auto")

    def test_a_damaged_calibration_is_named(self, opened: Opened) -> None:
        pipeline = opened(ByTheWord({}))
        with pytest.raises(StoreCorruptError, match=r"unusable calibration .*'labels' is missing"):
            pipeline._serving(
                pipeline.encoder, pipeline.store, replace(pipeline.manifest, calibration={"reranker": "x"})
            )


def test_an_index_from_before_has_no_threshold(opened: Opened) -> None:
    written = manifest_to_json(opened(ByTheWord({})).manifest)
    del written["calibration"]
    assert manifest_from_json(written, "here").calibration is None


class TestCalibrate:
    def test_own_labels_decide_where_a_good_answer_begins(self, opened: Opened) -> None:
        """Forty questions: for half of them the document that answers has a high logit, for half the best is wrong."""
        kinds = ("high", "low") * 20
        documents = [(f"d{n}", f"topic{n} {kind}word and some more") for n, kind in enumerate(kinds)]
        reranker = ByTheWord({"highword": 4.0, "lowword": 1.0}, None)
        pipeline = opened(reranker, documents, first_stage={"arms": "bm25"})
        queries = {f"q{n}": f"topic{n}" for n in range(40)}
        # What has a low logit is judged right for one question in ten only.
        qrels = {f"q{n}": {f"d{n}" if kind == "high" or n % 20 == 1 else "absent": 1} for n, kind in enumerate(kinds)}
        report = pipeline.calibrate(queries=queries, qrels=qrels, target_precision=0.9, no_answer=0.0)
        high, low = report.passages.probability([4.0, 1.0])
        assert low < report.threshold.probability <= high
        assert report.threshold.precision == 1.0
        assert report.threshold.recall == pytest.approx(20 / 22)
        assert report.held_out == pytest.approx((1.0, 20 / 22))
        assert (report.queries, report.found, report.labels) == (40, 22, "own")
        assert pipeline.search("topic2").answered is True
        assert pipeline.search("topic3").answered is False
        assert ids(pipeline.search("topic3", min_score="auto")) == []
        with pytest.raises(ValueError, match=r"precision of 0\.99 on these 40 results; the best has 0\.95"):
            pipeline.calibrate(queries=queries, qrels=qrels, target_precision=0.99, no_answer=0.0)
        assert pipeline.search("topic2").answered is True

    def test_queries_without_an_answer_count_as_wrong(self, opened: Opened) -> None:
        right = [(f"d{n}", f"topic{n} strong and some more") for n in range(25)]
        others = [(f"w{n}", f"topic{n} weak and some more") for n in range(25)]
        strange = [(f"s{n}", f"foreign{n} strong and some more") for n in range(25)]
        reranker = ByTheWord({"strong": 2.0, "weak": -2.0}, None)
        pipeline = opened(reranker, [*right, *others, *strange], first_stage={"arms": "bm25"})
        queries = {f"q{n}": f"topic{n}" for n in range(25)}
        qrels = {f"q{n}": {f"d{n}": 1} for n in range(25)}
        # Without their judged documents the queries find weak ones only, which stay below the threshold.
        report = pipeline.calibrate(queries=queries, qrels=qrels, target_precision=0.9)
        weak, strong = report.passages.probability([-2.0, 2.0])
        assert weak < report.threshold.probability <= strong
        assert (report.threshold.precision, report.threshold.recall) == (1.0, 1.0)
        # These find strong ones as well: half of what reaches any threshold is wrong.
        asked = [f"foreign{n}" for n in range(25)]
        with pytest.raises(ValueError, match=r"precision of 0\.9 on these 50 results; the best has 0\.49"):
            pipeline.calibrate(queries=queries, qrels=qrels, target_precision=0.9, unanswerable=asked)

    def test_few_labels_are_refused(self, opened: Opened) -> None:
        pipeline = opened(ByTheWord({"pipe": 2.0}, calibrated()))
        with pytest.raises(ValueError, match=r"1 of \d+ passages .* judged relevant; a fit needs 20 at least"):
            pipeline.calibrate(queries={"q": QUERY}, qrels={"q": {"broken": 1}})
        with pytest.raises(ValueError, match="give qrels"):
            pipeline.calibrate(queries={"q": QUERY})
        with pytest.raises(ValueError, match=r"no threshold for a precision of 0\.85; there are some for 0\.8"):
            pipeline.calibrate(target_precision=0.85)
        assert pipeline.manifest.calibration is None

    def test_a_model_without_a_calibration_has_no_threshold_to_give(self, opened: Opened) -> None:
        with pytest.raises(ValueError, match="has no calibration to take a threshold from"):
            opened(ByTheWord({})).calibrate()


class TestTwins:
    def test_a_twin_is_read_beyond_depth(self, opened: Opened) -> None:
        reranker = ByTheWord({"not broken": 1.0, "broken": 3.0}, calibrated())
        results = opened(reranker).search(QUERY, depth=1)
        assert results.reranked == 2
        assert {hit.document_id for hit in results if hit.rerank_score is not None} == {"broken", "whole"}

    def test_a_budget_is_kept_but_for_twins(self, opened: Opened) -> None:
        reranker = ByTheWord({"not broken": 1.0, "broken": 3.0}, calibrated())
        results = opened(reranker, [*DOCUMENTS, ("more", "water runs out of a hose")]).search(QUERY, budget_ms=1e-6)
        assert results.stopped == "budget"
        assert {hit.document_id for hit in results if hit.rerank_score is not None} == {"broken", "whole"}

    @pytest.mark.parametrize(("apart", "settled"), [(0.4, False), (0.6, True)])
    def test_the_order_is_settled_from_the_margin_on(self, opened: Opened, apart: float, settled: bool) -> None:
        results = opened(ByTheWord({"not broken": 1.0, "broken": 1.0 + apart}, calibrated(0.5))).search(QUERY)
        assert ids(results)[:2] == ["broken", "whole"]
        assert results.settled is settled
        told = [warning for warning in results.warnings if warning.startswith("order not settled: hits 1 and 2")]
        assert len(told) == (0 if settled else 1)

    def test_a_twin_that_is_not_shown_is_named(self, opened: Opened) -> None:
        results = opened(ByTheWord({"not broken": 1.0, "broken": 1.1}, calibrated())).search(QUERY, top_k=1)
        assert not results.settled
        assert any("hits 1 and 'whole', which is not shown (logits 1.10 and 1.00)" in one for one in results.warnings)

    def test_without_reading_nothing_is_settled(self, opened: Opened) -> None:
        results = opened(ByTheWord({})).search(QUERY, rerank=False)
        assert not results.settled
        assert any("the cross-encoder did not read them all" in warning for warning in results.warnings)

    def test_hits_without_twins_are_settled(self, opened: Opened) -> None:
        assert opened(ByTheWord({}, calibrated()), DOCUMENTS[1:]).search(QUERY).settled


class Shuffled:
    """A store whose answers come in another order each time; everything else is the store's."""

    def __init__(self, store: Store, seed: int) -> None:
        self._store = store
        self._random = random.Random(seed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def search(self, requests: Sequence[SearchRequest]) -> list[list[ScoredPoint]]:
        answers = [list(points) for points in self._store.search(requests)]
        for points in answers:
            self._random.shuffle(points)
        return answers


@pytest.mark.parametrize("seed", range(5))
def test_the_order_in_which_the_store_answers_does_not_matter(opened: Opened, seed: int) -> None:
    pipeline = opened(ByTheWord({"not broken": 1.0, "broken": 1.1}, calibrated()))
    straight = pipeline.search(QUERY, depth=1)
    search = pipeline._switch.serving.search
    search._store = Shuffled(search._store, seed)  # type: ignore[assignment]
    other = pipeline.search(QUERY, depth=1)
    assert replace(other, timings=straight.timings) == straight


def test_exact_goes_to_the_store(opened: Opened) -> None:
    class Noting(Shuffled):
        asked: ClassVar[list[SearchRequest]] = []

        def search(self, requests: Sequence[SearchRequest]) -> list[list[ScoredPoint]]:
            self.asked += requests
            return self._store.search(requests)

    for configured in (False, True):
        pipeline = opened(ByTheWord({}), first_stage={"exact": configured})
        search = pipeline._switch.serving.search
        store = Noting(search._store, 0)
        search._store = store  # type: ignore[assignment]
        store.asked.clear()
        for exact in (None, True, False):
            pipeline.search(QUERY, exact=exact, rerank=False)
        arms = len(store.asked) // 3
        wanted = [one for one in (configured, True, False) for _ in range(arms)]
        assert [request.exact for request in store.asked] == wanted


def test_calibration_json_of_the_bundled_model_has_a_margin_for_twins() -> None:
    from retrieval.models import find_model

    content = json.loads((find_model("starter-reranker") / "calibration.json").read_text())
    twins = RerankerCalibration.from_json(content).twins
    assert twins is not None
    assert 0 < twins.logits < 5
    assert twins.right_above > 0.85 > twins.right_below
