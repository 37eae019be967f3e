"""A document put together again from its passages."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import TwoStagePipeline
from pipelines.stored_document import StoredPassage, joined_text, read_document, text_slice
from retrieval.config import parse_config
from retrieval.datatypes import Document

# Characters 0-19 in two passages that share four, whitespace of four characters that nobody kept, then the rest.
TEXT = "abcdefghijklmnopqrst    uvwxyz"


def passage(index: int, start: int, end: int) -> StoredPassage:
    return StoredPassage(f"p{index}", index, start, end, TEXT[start:end], ())


PASSAGES = [passage(0, 0, 12), passage(1, 8, 20), passage(2, 24, 30)]


def test_overlaps_stand_once_and_gaps_are_a_blank_line() -> None:
    assert joined_text(PASSAGES) == "abcdefghijklmnopqrst\n\nuvwxyz"
    assert joined_text(PASSAGES[1:]) == "ijklmnopqrst\n\nuvwxyz"
    assert joined_text([]) == ""


@pytest.mark.parametrize(
    ("offset", "length", "text", "start", "end"),
    [
        (0, 5, "abcde", 0, 5),
        (6, 8, "ghijklmn", 6, 14),
        (10, 4, "klmn", 10, 14),
        (18, 8, "st\n\nuv", 18, 26),
        (26, 100, "wxyz", 26, 30),
        (0, 1000, "abcdefghijklmnopqrst\n\nuvwxyz", 0, 30),
        (30, 5, "", 30, 30),
        (99, 5, "", 30, 30),
    ],
)
def test_a_slice_counts_in_characters_of_the_document(
    offset: int, length: int, text: str, start: int, end: int
) -> None:
    part = text_slice(PASSAGES, offset, length)
    assert (part.text, part.start, part.end, part.length) == (text, start, end, 30)


def test_slices_that_follow_each_other_give_the_whole_text() -> None:
    whole = "".join(text_slice(PASSAGES[:2], at, 7).text for at in range(0, 21, 7))
    assert whole == TEXT[:20]


def test_one_of_several_documents_with_the_same_id(tmp_path: Path) -> None:
    config = parse_config({"store": {"kind": "memory"}, "chunking": {"max_tokens": 16, "overlap_tokens": 4}})
    text = " ".join(f"word{number} glacier" for number in range(40))
    with TwoStagePipeline.open(tmp_path, config) as pipeline:
        pipeline.ingest([Document("same", text, source="b"), Document("same", "another one", title="A", source="a")])
        first = read_document(pipeline, "same")
        assert first is not None
        assert (first.source, first.title, first.other_sources) == ("a", "A", ("b",))
        second = read_document(pipeline, "same", source="b")
        assert second is not None
        assert second.total_passages == len(second.passages) > 3
        assert joined_text(second.passages) == text
        assert text_slice(second.passages, 50, 60).text == text[50:110]
        assert read_document(pipeline, "same", source="c") is None
        assert read_document(pipeline, "other") is None
        nothing = read_document(pipeline, "same", source="b", offset=1000)
        assert nothing is not None
        assert (nothing.passages, nothing.total_passages) == ((), second.total_passages)
