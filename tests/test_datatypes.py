"""The records: identity, what is indexed, results as a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import FrozenInstanceError, replace
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.datatypes import (
    ArmScore,
    Document,
    EncoderFingerprint,
    Hit,
    IngestReport,
    Passage,
    Point,
    Results,
    SparseVector,
    Timings,
)

PASSAGE_ID = str(UUID(int=1))


def hit(rank: int) -> Hit:
    """A hit as the first stage alone would leave it."""
    return Hit(
        rank=rank,
        score=1.0 / rank,
        document_id=f"d{rank}",
        passage_id=str(UUID(int=rank)),
        text="text",
        title="",
        headings=(),
        start=0,
        end=4,
        source="",
        metadata={},
        first_stage_rank=rank,
        first_stage_score=1.0 / rank,
        rerank_score=None,
        read=None,
        arms={"bm25": ArmScore(rank, 2.0)},
    )


def test_a_document_is_known_by_its_source_or_else_its_id() -> None:
    assert Document("7", "text", source="notes/a.md#7").key == "notes/a.md#7"
    assert Document("7", "text").key == "7"


def test_documents_do_not_share_metadata() -> None:
    assert Document("a", "x").metadata is not Document("b", "x").metadata


@pytest.mark.parametrize(
    ("title", "headings", "text", "expected"),
    [
        ("", (), "Turn the valve.", "Turn the valve."),
        ("Pumps", (), "Turn the valve.", "Pumps\nTurn the valve."),
        ("Pumps", ("Care", "Leaks"), "Turn the valve.", "Pumps\nCare\nLeaks\nTurn the valve."),
        ("Pumps", ("Pumps", "Leaks"), "Turn the valve.", "Pumps\nLeaks\nTurn the valve."),
        ("Pumps", ("Leaks",), "Leaks of Pumps are rare.", "Leaks of Pumps are rare."),
        ("", ("", "Leaks"), "Turn the valve.", "Leaks\nTurn the valve."),
        ("Pumps", (), "", "Pumps\n"),
    ],
)
def test_what_is_indexed_names_title_and_headings_once(
    title: str, headings: tuple[str, ...], text: str, expected: str
) -> None:
    assert Passage("d", 0, text, 0, len(text), title, headings).indexed_text == expected


def test_a_title_far_down_in_the_text_is_still_put_in_front() -> None:
    text = "x" * 200 + " Pumps"
    assert Passage("d", 0, text, 0, len(text), title="Pumps").indexed_text == f"Pumps\n{text}"


@given(title=st.text(), headings=st.lists(st.text(), max_size=4), text=st.text())
def test_what_is_indexed_ends_with_the_text_and_holds_every_heading(title: str, headings: list[str], text: str) -> None:
    indexed = Passage("d", 0, text, 0, len(text), title, tuple(headings)).indexed_text
    assert indexed.endswith(text)
    assert all(part in indexed for part in (title, *headings))


def test_results_are_a_sequence_of_hits() -> None:
    results = Results("query", (hit(1), hit(2), hit(3)))
    assert isinstance(results, Sequence)
    assert len(results) == 3
    assert [entry.document_id for entry in results] == ["d1", "d2", "d3"]
    assert results[0].rank == 1
    assert results[-1].rank == 3
    assert results[:2] == (hit(1), hit(2))
    assert hit(2) in results
    assert hit(4) not in results
    assert results.index(hit(3)) == 2
    assert [entry.rank for entry in reversed(results)] == [3, 2, 1]
    with pytest.raises(IndexError):
        results[3]


def test_empty_results_are_falsy_and_say_that_nothing_was_read() -> None:
    results = Results("query")
    assert not results
    assert list(results) == []
    assert (results.reranked, results.stopped, results.warnings, results.timings) == (0, "off", (), Timings())


def test_records_are_frozen_and_have_no_other_attributes() -> None:
    document = Document("a", "x")
    with pytest.raises(FrozenInstanceError):
        document.text = "y"  # type: ignore[misc]
    assert not hasattr(document, "__dict__")
    assert replace(document, text="y") == Document("a", "y")


def test_records_with_arrays_compare_by_identity() -> None:
    sparse = SparseVector(np.array([1], dtype=np.uint32), np.array([0.5], dtype=np.float32))
    point = Point(PASSAGE_ID, np.ones(2, dtype=np.float32), sparse, {})
    assert point == point
    assert point != replace(point)


@pytest.mark.parametrize(("passages", "seconds", "expected"), [(50, 2.0, 25.0), (50, 0.0, 0.0), (0, 1.0, 0.0)])
def test_passages_per_second(passages: int, seconds: float, expected: float) -> None:
    report = IngestReport(1, 0, 0, 0, (), 0, passages, seconds)
    assert report.passages_per_second == expected


def test_a_fingerprint_names_all_that_a_person_compares() -> None:
    fingerprint = EncoderFingerprint("starter-static", "a1b2c3d4e5f6", "two-stage", "skip", None, 256, True)
    assert str(fingerprint) == "starter-static@a1b2c3d4e5f6 (256 dims, two-stage rules, unknown tokens: skip)"


def test_the_corpus_can_be_ranked_on_paper(
    corpus: list[Document], paper_rankings: Mapping[str, tuple[str, ...]]
) -> None:
    words = {document.id: document.text.split() for document in corpus}
    assert len(words) == 12
    assert all(len(text) == len(set(text)) == 8 for text in words.values())
    for query, expected in paper_rankings.items():
        shared = {name: len(set(query.split()) & set(text)) for name, text in words.items()}
        assert [name for name, count in shared.items() if count] == list(expected)
        counts = [shared[name] for name in expected]
        assert counts == sorted(set(counts), reverse=True), "each document shares fewer words than the one before"
