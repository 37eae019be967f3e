"""Why a query finds what it finds, over texts whose words can be compared by eye."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import TwoStagePipeline
from pipelines.explain import QueryTerms, explain, matched_spans, query_terms
from retrieval.config import parse_config

TEXTS = {
    "moon": "The moon pulls the oceans and so causes the tides twice a day.",
    "bread": "Bakers knead the dough, and the yeast makes it rise.",
    "sea": "A tide pool is a home of crabs. Crabs wait for the tide.",
}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoStagePipeline]:
    config = parse_config({"store": {"kind": "memory"}})
    with TwoStagePipeline.open(Path(tmp_path_factory.mktemp("explain")), config) as opened:
        opened.ingest(list(TEXTS.items()))
        yield opened


def test_all_candidates_come_with_their_matching_words(pipeline: TwoStagePipeline) -> None:
    explanation = explain(pipeline, "cause of tides", None, {"rerank": False})
    matched = dict(zip([hit.document_id for hit in explanation.results], explanation.matched, strict=True))
    assert matched == {"moon": ("causes", "tides"), "sea": ("tide",), "bread": ()}
    assert explanation.terms == QueryTerms(known=("cause", "of", "tides"), unknown=(), ignored=("of",))


def test_top_k_and_candidates_limit_it(pipeline: TwoStagePipeline) -> None:
    assert len(explain(pipeline, "tides", 1, {}).results) == 1
    assert len(explain(pipeline, "tides", None, {"candidates": 2}).results) == 2


def test_passages_of_one_document_stay_apart(tmp_path: Path) -> None:
    config = parse_config({"store": {"kind": "memory"}, "chunking": {"max_tokens": 16, "overlap_tokens": 0}})
    with TwoStagePipeline.open(tmp_path, config) as small:
        small.ingest([("book", " ".join(TEXTS.values()))])
        found = explain(small, "tide", None, {"group_by": "document"}).results
    assert len(found) == small.manifest.passages > 1


def test_spans_are_those_of_the_words(pipeline: TwoStagePipeline) -> None:
    text = TEXTS["sea"]
    spans = matched_spans(pipeline.sparse, "tides and the crab", text)
    assert [text[start:end] for start, end in spans] == ["tide", "crabs", "Crabs", "tide"]
    assert matched_spans(pipeline.sparse, "the", text) == []
    assert matched_spans(pipeline.sparse, "", text) == []


def test_a_query_without_words_has_no_terms(pipeline: TwoStagePipeline) -> None:
    assert query_terms(pipeline.encoder, pipeline.sparse, " ?! ") == QueryTerms((), (), ())
    unknown = query_terms(pipeline.encoder, pipeline.sparse, "tide \u16a0\u16a1")
    assert (unknown.known, unknown.unknown) == (("tide",), ("\u16a0\u16a1",))
