"""Passages: budget, offsets, coverage, sections and heading paths."""

from __future__ import annotations

import json
import string
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from retrieval.chunking import CHARACTERS_PER_TOKEN, Chunker
from retrieval.config import ChunkingConfig
from retrieval.datatypes import Document, Passage
from retrieval.headings import find_headings

Count = Callable[[str], int]


def count_words(text: str) -> int:
    return len(text.split())


def word_pieces() -> Count:
    """A real WordPiece tokenizer: letters, digits, punctuation and a few longer pieces."""
    pieces = ["[UNK]", *string.ascii_lowercase, *string.digits, *string.punctuation, "pipe", "leak", "the", "東", "京"]
    pieces += ["##" + piece for piece in (*string.ascii_lowercase, *string.digits, "ing", "ed")]
    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def byte_pairs() -> Count:
    """A real byte-level tokenizer whose tokens include the space before a word."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate([*alphabet, "th", "the", "Ġthe"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("t", "h"), ("th", "e"), ("Ġ", "the")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return lambda text: len(tokenizer.encode(text).ids)


COUNTERS: dict[str, Count] = {
    "words": count_words,
    "characters": len,
    "two more than words": lambda text: count_words(text) + 2,
    "word pieces": word_pieces(),
    "byte pairs": byte_pairs(),
}


def chunk(
    text: str, max_tokens: int = 16, overlap: int = 0, count: Count = count_words, title: str = ""
) -> list[Passage]:
    config = ChunkingConfig(max_tokens=max_tokens, overlap_tokens=overlap)
    return Chunker(config, count).split(Document("d", text, title))


def numbered(first: int, last: int) -> str:
    return " ".join(f"w{number}" for number in range(first, last + 1))


def test_a_document_that_fits_is_one_passage_without_outer_whitespace() -> None:
    assert chunk(" \n one two\r\n\r\n# three \n", title="T") == [
        Passage(document_id="d", index=0, text="one two\r\n\r\n# three", start=3, end=21, title="T")
    ]


@pytest.mark.parametrize("text", ["", " ", "\n\n\t \r\n", "\u3000\u2028\x1c", " " * 100_000])
def test_no_text_gives_no_passage(text: str) -> None:
    assert chunk(text) == []


def test_exactly_the_budget_fits_and_one_more_does_not() -> None:
    assert [p.text for p in chunk(numbered(1, 16))] == [numbered(1, 16)]
    assert [p.text for p in chunk(numbered(1, 17))] == [numbered(1, 16), "w17"]


def test_punctuation_does_not_split_a_document_that_fits() -> None:
    text = "it's, that's; he's: she's! we're? they're. don't, can't; won't: isn't! aren't? wasn't."
    assert [p.text for p in chunk(text)] == [text]


def test_neighbours_overlap_by_whole_words_within_the_setting() -> None:
    passages = chunk(numbered(1, 30), overlap=4)
    assert [p.text for p in passages] == [numbered(1, 16), numbered(13, 28), numbered(25, 30)]


def test_paragraphs_stay_whole_where_they_fit() -> None:
    first, second = numbered(1, 10), numbered(11, 20)
    assert [p.text for p in chunk(f"{first}\n\n{second}")] == [first, second]


def test_sentences_stay_whole_where_they_fit() -> None:
    first, second = f"Alpha {numbered(1, 9)}.", f"Beta {numbered(10, 18)}."
    assert [p.text for p in chunk(f"{first} {second}")] == [first, second]


def test_sections_start_passages_and_carry_their_path() -> None:
    text = (
        f"Preface.\n\n# Guide\n\n## Pipes\n\n{numbered(1, 4)}\n\n### Leaks ###\n\n{numbered(5, 9)}\n\n"
        f"## Taps\n\n{numbered(10, 14)}\n\n# Index\n"
    )
    passages = chunk(text)
    assert [(p.text, p.headings) for p in passages] == [
        ("Preface.", ()),
        (f"# Guide\n\n## Pipes\n\n{numbered(1, 4)}", ("Guide", "Pipes")),
        (f"### Leaks ###\n\n{numbered(5, 9)}", ("Guide", "Pipes", "Leaks")),
        (f"## Taps\n\n{numbered(10, 14)}", ("Guide", "Taps")),
        ("# Index", ("Index",)),
    ]


def test_every_passage_of_a_long_section_carries_its_path() -> None:
    passages = chunk(f"# Pipes\n\n{numbered(1, 40)}", overlap=2)
    assert {p.headings for p in passages} == {("Pipes",)}
    assert [p.text for p in passages] == [
        f"# Pipes\n\n{numbered(1, 13)}",
        numbered(12, 27),
        numbered(26, 40),
    ]


def test_a_fitting_document_carries_the_headings_it_begins_with() -> None:
    assert chunk("\n# Guide\n## Pipes\nbody\n# Taps\nbody")[0].headings == ("Guide", "Pipes")
    assert chunk("Guide\n=====\n\nbody")[0].headings == ("Guide",)
    assert chunk("=====\nGuide\n=====\n\nbody")[0].headings == ("Guide",)
    assert chunk("intro\n\n# Guide\nbody")[0].headings == ()
    assert chunk("#hashtag and text")[0].headings == ()


def test_hashes_in_fenced_code_are_no_headings() -> None:
    text = f"# Setup\n\n```sh\n# install\n```\n~~~~\n# run\n~~~\n# still code\n~~~~\n\n# Use\n\n{numbered(1, 12)}"
    assert [h.title for h in find_headings(text)] == ["Setup", "Use"]
    assert [p.headings for p in chunk(text)] == [("Setup",), ("Use",)]


def test_levels_of_setext_and_restructured_text() -> None:
    markdown = "Sub\n---\n\ntext\n\nTop\n===\n\ntext\n\n### Deep\n"
    assert [(h.title, h.level) for h in find_headings(markdown)] == [("Sub", 2), ("Top", 1), ("Deep", 3)]
    rst = "*****\nGuide\n*****\n\nPipes\n-----\n\ntext\n\nLeaks\n~~~~~\n\ntext\r\n\r\nTaps\r\n-----\r\n"
    assert [(h.title, h.level) for h in find_headings(rst)] == [("Guide", 1), ("Pipes", 2), ("Leaks", 3), ("Taps", 2)]


@pytest.mark.parametrize(
    "text",
    [
        "---\ntitle: Guide\n---\n\ntext",
        "- item\n---\n",
        "a | b\n\n---\n\ntext",
        "a paragraph\nof two lines\n---\n",
        "    # indented code",
        "#\n\n##  \n",
        "#" * 7 + " seven",
        "# " + "x" * 201,
        "=====  =====\na      b\n=====  =====\n",
    ],
)
def test_what_is_no_heading(text: str) -> None:
    assert find_headings(text) == []


@pytest.mark.parametrize("name", COUNTERS)
def test_offsets_are_characters(name: str) -> None:
    text = "😀 naïve e\u0301te\r\n\r\n東京タワーは高い。\u2028 𝄞𝄢 # x\r\n\r\n" * 30
    passages = chunk(text, count=COUNTERS[name], max_tokens=24)
    assert len(passages) > 3
    for passage in passages:
        assert passage.text == text[passage.start : passage.end]


def test_one_endless_word_is_cut_within_the_budget() -> None:
    most = 16 * CHARACTERS_PER_TOKEN
    passages = chunk("start " + "a" * (3 * most) + " end")
    assert [(p.start, p.end) for p in passages] == [(0, 5), (6, 518), (518, 1030), (1030, 1542), (1543, 1546)]
    assert [len(p.text) for p in chunk("a" * 100, count=len)] == [16] * 6 + [4]


@pytest.mark.parametrize("unit", ["word ", "a", "[", "# x\n", "> ", "\n", "東", "```\n", "😀"])
def test_work_grows_with_the_text_and_not_with_its_square(unit: str) -> None:
    counted = 0

    def count(text: str) -> int:
        nonlocal counted
        counted += len(text)
        return count_words(text) + 1  # does not add up over words, so that nothing is answered from a table

    chunker = Chunker(ChunkingConfig(max_tokens=64, overlap_tokens=8), count)
    work = []
    for size in (40_000, 160_000):
        counted = 0
        chunker.split(Document("d", unit * (size // len(unit))))
        work.append(counted)
    assert work[1] <= 6 * work[0] + 1000


def test_counting_is_answered_from_a_table_of_words() -> None:
    calls = 0

    def count(text: str) -> int:
        nonlocal calls
        calls += 1
        return count_words(text)

    chunker = Chunker(ChunkingConfig(max_tokens=16, overlap_tokens=0), count)
    document = Document("d", numbered(1, 400))
    first = chunker.split(document)
    assert 400 <= calls < 1_000
    calls = 0
    assert chunker.split(document) == first
    assert calls == 0


def test_fingerprint_is_json_and_follows_the_settings() -> None:
    one = Chunker(ChunkingConfig(max_tokens=64, overlap_tokens=8), count_words).fingerprint
    other = Chunker(ChunkingConfig(max_tokens=64, overlap_tokens=9), count_words).fingerprint
    assert json.loads(json.dumps(one)) == {
        "version": 2,
        "max_tokens": 64,
        "overlap_tokens": 8,
        "characters_per_token": 32,
    }
    assert one != other


PIECES = st.sampled_from(
    [
        *("pipe", "leaking", "the", " ", "  ", "\n", "\r\n", "\n\n", "\t", ".", "! ", "# ", "## a\n", "---\n", "===\n"),
        *(
            "- ",
            "```\n",
            "~~~~\n",
            "> ",
            "| ",
            "[x](y)",
            "**",
            "`",
            "<b>",
            "&amp;",
            "1. ",
            "_x_y_",
            "'s",
            "…",
            "a" * 70,
        ),
        *("東京", "。", "😀", "e\u0301", "\u200b", "\ufeff", "\u3000", "\u2028", "\xa0", "\x85", "\ufdfa"),
        *("\x00", "\x0b", "\x0c", "\x1c"),
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=5), max_size=150).map("".join)


@settings(max_examples=150, deadline=None)
@given(text=TEXTS, name=st.sampled_from(sorted(COUNTERS)), overlap=st.sampled_from([0, 3, 8]))
def test_every_passage_is_in_place_in_budget_and_nothing_is_lost(text: str, name: str, overlap: int) -> None:
    count = COUNTERS[name]
    passages = chunk(text, overlap=overlap, count=count)
    covered = bytearray(len(text))
    for index, passage in enumerate(passages):
        assert passage.index == index
        assert passage.text == text[passage.start : passage.end] == passage.text.strip() != ""
        # One character can be several tokens (bytes of an emoji, a ligature written out); it cannot be cut.
        assert count(passage.text) <= 16 or len(passage.text) == 1
        covered[passage.start : passage.end] = b"\x01" * len(passage.text)
    assert [c for c, there in zip(text, covered, strict=True) if not there and not c.isspace()] == []
    assert [p.start for p in passages] == sorted(p.start for p in passages)
    assert passages == chunk(text, overlap=overlap, count=count)
    if 0 < count(text.strip()) <= 16 and text.strip() and len(text) <= 16 * CHARACTERS_PER_TOKEN:
        assert len(passages) == 1


@pytest.mark.parametrize("letter", ["x", "\u200d", "\u6771"])
def test_an_endless_word_below_a_heading_takes_few_counts(letter: str) -> None:
    counted = []

    def count(text: str) -> int:
        counted.append(len(text))
        return len(text.split())

    config = ChunkingConfig(max_tokens=64, overlap_tokens=16)
    passages = Chunker(config, count).split(Document("d", f"# Head\nsome words {letter * 50_000}\nand more"))
    assert [passage.headings for passage in passages] == [("Head",)] * len(passages)
    assert passages[0].text.startswith("# Head\nsome words")
    assert sum(len(passage.text) for passage in passages) < 1.1 * 50_000
    assert len(counted) < 500


def test_letters_without_tokens_are_not_shared_without_limit() -> None:
    def count(text: str) -> int:
        return len(text.replace("\u200d", ""))

    config = ChunkingConfig(max_tokens=16, overlap_tokens=8)
    text = "x" * 40 + "\u200d" * 300 + "y" * 40 + "\u200d" * 60 + "z" * 40
    passages = Chunker(config, count).split(Document("d", text))
    assert "".join(sorted({letter for passage in passages for letter in passage.text})) == "xyz\u200d"
    covered = 0
    for passage in passages:
        assert passage.start <= covered < passage.end
        covered = passage.end
    assert covered == len(text)
    assert sum(len(passage.text) for passage in passages) < 4 * len(text)
