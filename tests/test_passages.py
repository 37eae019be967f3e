from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.datatypes import EncoderFingerprint, FloatArray
from retrieval.protocols import Encoder
from retrieval.rerankers import choose_window, choose_windows

VOCABULARY = ("copper", "pipe", "star")


class WordCounter:
    """An encoder that can be followed on paper: one dimension for each word, the share of it in the text."""

    dim = len(VOCABULARY)
    fingerprint = EncoderFingerprint("words", "0" * 12, "two-stage", "skip", None, len(VOCABULARY), True)

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def encode_documents(self, texts: Sequence[str]) -> FloatArray:
        self.calls.append(list(texts))
        counts = np.array([[text.split().count(word) for word in VOCABULARY] for text in texts], dtype=np.float32)
        lengths = np.linalg.norm(counts.reshape(-1, self.dim), axis=1, keepdims=True)
        return np.divide(counts, lengths, out=np.zeros_like(counts), where=lengths > 0)

    encode_queries = encode_documents

    def count_tokens(self, text: str) -> int:
        return len(text.split())


@pytest.fixture
def encoder() -> WordCounter:
    return WordCounter()


def vector(text: str) -> FloatArray:
    return WordCounter().encode_queries([text])[0]


def words_of(text: str, span: tuple[int, int]) -> str:
    return text[slice(*span)]


def test_the_counter_is_an_encoder() -> None:
    assert isinstance(WordCounter(), Encoder)


def test_the_window_with_the_words_of_the_query_is_chosen(encoder: WordCounter) -> None:
    # Windows of 4 words start at 0, 2, 4 and at the last possible word, 6.
    text = "a b c d e copper pipe f g h"
    assert words_of(text, choose_window(vector("copper pipe"), text, encoder, 4)) == "e copper pipe f"
    assert encoder.calls == [["a b c d", "c d e copper", "e copper pipe f", "pipe f g h"]]


def test_the_first_of_equal_windows_is_chosen(encoder: WordCounter) -> None:
    text = "a b pipe c d e f pipe g h i j"
    assert words_of(text, choose_window(vector("pipe"), text, encoder, 4)) == "a b pipe c"


def test_a_query_without_a_known_word_reads_the_beginning(encoder: WordCounter) -> None:
    assert words_of("a b c d e f", choose_window(vector("unheard"), "a b c d e f", encoder, 2)) == "a b"


def test_windows_start_at_a_sentence_that_is_near(encoder: WordCounter) -> None:
    # Words 0-15, stride 4: the start at 4 moves back to 3 (a sentence), that at 8 stays (the sentence at 3 is far).
    text = "a b c. copper d e f g h i j k l m n o"
    choose_window(vector("copper"), text, encoder, 8)
    assert [window.split()[0] for window in encoder.calls[0]] == ["a", "copper", "h"]
    assert words_of(text, choose_window(vector("copper"), text, encoder, 8)) == "a b c. copper d e f g"


@pytest.mark.parametrize("end", ["c.", 'c."', "c?", "c!)", "\u7d42\u3002", "c\n\n"])
def test_what_ends_a_sentence(end: str, encoder: WordCounter) -> None:
    choose_window(vector("pipe"), f"a b {end} d e f g h i j k l m n o p", encoder, 8)
    assert encoder.calls[0][1].split()[0] == "d"


def test_short_texts_are_read_whole_and_encoded_never(encoder: WordCounter) -> None:
    assert choose_windows(vector("pipe"), ["", " \n", "one two", " a b c "], encoder, 3) == [
        (0, 0),
        (0, 2),
        (0, 7),
        (0, 7),
    ]
    assert encoder.calls == []


def test_no_number_of_words_is_the_whole_text(encoder: WordCounter) -> None:
    assert choose_window(vector("pipe"), "pipe " * 1000, encoder, None) == (0, 5000)
    assert encoder.calls == []


def test_all_texts_share_one_call(encoder: WordCounter) -> None:
    texts = ["a b c pipe", "short", "star a b c", ""]
    spans = choose_windows(vector("pipe"), texts, encoder, 2)
    assert [words_of(text, span) for text, span in zip(texts, spans, strict=True)] == ["c pipe", "short", "star a", ""]
    assert len(encoder.calls) == 1
    assert choose_windows(vector("pipe"), [], encoder, 2) == []


def test_a_run_without_spaces_does_not_make_an_endless_window(encoder: WordCounter) -> None:
    # 24 characters count as a word: 100,000 of them are 4,167 words, and a window of 10 has 240 characters.
    assert choose_window(vector("pipe"), "\u4e00" * 100_000, encoder, 10) == (0, 240)


def test_a_window_has_words(encoder: WordCounter) -> None:
    with pytest.raises(ValueError, match="at least 1 word, not 0"):
        choose_window(vector("pipe"), "a", encoder, 0)


@given(st.lists(st.sampled_from(["", ".", "?\n\n", "\n"]), min_size=1, max_size=80), st.integers(1, 12))
def test_windows_cover_the_text_and_keep_their_length(ends: list[str], words: int) -> None:
    encoder = WordCounter()
    text = " ".join(f"{number}{end}" for number, end in enumerate(ends))
    span = choose_window(vector("pipe"), text, encoder, words)
    if len(ends) <= words:
        assert (span, encoder.calls) == ((0, len(text)), [])
        return
    windows = [[int(word.strip(".?")) for word in window.split()] for window in encoder.calls[0]]
    assert all(window == list(range(window[0], window[0] + words)) for window in windows)
    assert {number for window in windows for number in window} == set(range(len(ends)))
    assert words_of(text, span) == encoder.calls[0][0]
