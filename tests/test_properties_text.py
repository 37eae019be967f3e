"""Any text whatever: it is cut into passages that point at it, and whatever looks at words points into it."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.fuzz.target_texts import require_cut
from retrieval.chunking import CHARACTERS_PER_TOKEN, Chunker
from retrieval.config import ChunkingConfig
from retrieval.datatypes import Document
from retrieval.documents.cleaning import clean, clean_title
from retrieval.encoders import StaticEncoder
from retrieval.headings import find_headings
from retrieval.models import find_model
from retrieval.rerankers.passages import choose_windows, windows_of
from tests.properties import ANY_TEXT, TEXT, budget

PARTS = st.one_of(
    TEXT,
    st.sampled_from(
        ["word " * 30, "# Head\n", "Title\n=====\n", "```\ncode\n```\n", "- item\n" * 5, "\n\n", "\0", "\u3000"]
    ),
    st.builds(lambda letter, times: letter * times, st.sampled_from("x\u65e5\u0301\u200d"), st.integers(1, 1500)),
)
TEXTS = st.lists(PARTS, max_size=12).map("".join)
LIMITS = st.tuples(st.sampled_from([16, 17, 40, 512]), st.sampled_from([0.0, 0.1, 0.5]))


@pytest.fixture(scope="module")
def encoder() -> StaticEncoder:
    return StaticEncoder.open(find_model("starter-static"))


def settings_of(limits: tuple[int, float]) -> ChunkingConfig:
    return ChunkingConfig(max_tokens=limits[0], overlap_tokens=int(limits[0] * limits[1]))


@budget(60)
@given(text=TEXTS, limits=LIMITS)
@example(text="\u0301" * 2000, limits=(16, 0.5))
@example(text="x" * (16 * CHARACTERS_PER_TOKEN * 3 + 1), limits=(16, 0.0))
@example(text=" \u2028\x85\x1c ", limits=(16, 0.0))
def test_passages_cover_a_text_in_order_within_the_limits(text: str, limits: tuple[int, float]) -> None:
    config = settings_of(limits)
    chunker = Chunker(config, lambda piece: len(piece.split()))
    document = Document("d", text)
    passages = chunker.split(document)
    require_cut(document, passages, config, lambda piece: len(piece.split()))
    assert chunker.split(document) == passages
    assert Chunker(config, lambda piece: len(piece.split())).split_many([document] * 2) == [passages] * 2


@budget(40)
@given(text=TEXTS, limits=LIMITS)
def test_the_same_in_tokens_of_the_model(encoder: StaticEncoder, text: str, limits: tuple[int, float]) -> None:
    config = settings_of(limits)
    chunker = Chunker.of_encoder(config, encoder)
    document = Document("d", text)
    passages = chunker.split(document)
    require_cut(document, passages, config, encoder.count_tokens)
    assert chunker.split_many([document]) == [passages]


@budget(40)
@given(text=TEXTS)
def test_a_passage_is_not_cut_again(text: str) -> None:
    config = ChunkingConfig(max_tokens=24, overlap_tokens=6)
    chunker = Chunker(config, lambda piece: len(piece.split()))
    for passage in chunker.split(Document("d", text)):
        (again,) = chunker.split(Document("p", passage.text))
        assert (again.text, again.start) == (passage.text, 0)


@budget(100)
@given(text=ANY_TEXT)
def test_cleaning_keeps_what_utf8_can_carry_and_is_done_once(text: str) -> None:
    cleaned = clean(text)
    cleaned.encode("utf-8")
    assert clean(cleaned) == cleaned
    assert not any(unicodedata.category(letter) == "Cs" for letter in cleaned)
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert cleaned == whole
    title = clean_title(text)
    assert "\n" not in title
    assert len(title) <= 1_000
    assert clean_title(title) == title


@budget(80)
@given(text=st.lists(PARTS, max_size=12).map("\n".join))
@example(text="# ===\n===\n===\n")
def test_headings_stand_one_after_the_other(text: str) -> None:
    headings = find_headings(text)
    for one, following in pairwise(headings):
        assert one.end <= following.start
    assert all(text[each.start : each.end].strip() for each in headings)


@budget(60)
@given(text=TEXTS, words=st.integers(1, 40))
@example(text="0" * 55, words=1)
def test_windows_cover_the_text_and_one_of_them_is_chosen(encoder: StaticEncoder, text: str, words: int) -> None:
    windows = windows_of(text, words)
    covered = 0
    for start, end in windows:
        assert 0 <= start <= end <= len(text)
        assert not text[covered:start].strip() or start < covered
        covered = max(covered, end)
    assert not text[covered:].strip()
    vector = encoder.encode_queries(["copper pipe"])[0]
    (chosen,) = choose_windows(vector, [text], encoder, words)
    assert chosen in windows
    assert choose_windows(vector, ["other", text, text], encoder, words)[1:] == [chosen, chosen]


@budget(30)
@given(texts=st.lists(TEXT, max_size=6), order=st.randoms(use_true_random=False))
def test_neither_batch_nor_order_changes_a_vector(encoder: StaticEncoder, texts: list[str], order: object) -> None:
    rows = encoder.encode_documents(texts)
    mixed = list(range(len(texts)))
    order.shuffle(mixed)  # type: ignore[attr-defined]
    assert np.array_equal(encoder.encode_documents([texts[at] for at in mixed]), rows[mixed])
    for text, row in zip(texts, rows, strict=True):
        assert np.array_equal(encoder.encode_queries([text])[0], row)
        assert np.array_equal(encoder._encode_plain([text])[0], row)
