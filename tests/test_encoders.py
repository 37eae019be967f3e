"""The static encoder and its word cache, held against the tokenizers library."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from retrieval.encoders import StaticEncoder
from retrieval.encoders.bert import splits_into_words
from retrieval.encoders.words import WordTokenizer
from retrieval.errors import ModelError
from retrieval.protocols import Encoder
from retrieval.token_tables import table as tables
from retrieval.token_tables.formats import Rules, open_static_model
from tests import static_models

TEXTS = static_models.texts()

# Entries that begin, end, contain or overlap others, also from within a word ("all in" in "that all in").
ENTRIES = (
    "not object",
    "not object list",
    "object list",
    "not obj",
    "at all",
    "all in",
    "the the",
    "non-local name",
    "e-e the",
    "name. the",
    "a b c",
    "b c d e",
)
PARTS = ("not", "no", "object", "list", "the", "all", "in", "x", "-", ".", "name")
TOKENIZERS: dict[str, Tokenizer] = {
    "uncased": static_models.bert_tokenizer(),
    "cased": static_models.bert_tokenizer(lowercase=False),
    "raw": static_models.bert_tokenizer(
        lowercase=False, clean_text=False, handle_chinese_chars=False, strip_accents=False
    ),
    "added": static_models.bert_tokenizer(
        added=[
            "object",
            AddedToken("TYPE", normalized=True),
            AddedToken("list", single_word=True),
            AddedToken("<B>", lstrip=True, rstrip=True),
            AddedToken("e-", normalized=False),
        ]
    ),
    "entries": static_models.bert_tokenizer(
        added=[
            *(AddedToken(entry, single_word=True, normalized=True) for entry in ENTRIES),
            AddedToken("list of", normalized=True),
            AddedToken("Of The", single_word=True),
            AddedToken("<B>", lstrip=True, rstrip=True),
        ]
    ),
    "many entries": static_models.bert_tokenizer(
        added=[AddedToken(f"{a} {b}", single_word=True) for a in PARTS for b in PARTS]
        + [AddedToken(f"non-{part}", single_word=True) for part in PARTS]
    ),
}
WORDS = [
    *static_models.SPECIAL,
    "object",
    "Type",
    "objects",
    "list",
    "a.list",
    "<b>",
    "<B>",
    "the",
    "##e",
    "e-e",
    "\u00e9",
    "not",
    "not ",
    "not\n",
    "not object list",
    "that all in",
    "all",
    "non-local",
    "name.",
    "name",
    "a b c d e",
    "Of",
]
ATOMS = st.one_of(
    st.sampled_from(WORDS),
    st.sampled_from(
        [" ", "\n", "\t", "\x0b", "\x0c", "\x1c", "\x1f", "\x85", "\u00a0", "\u2028", "\u200b", "\u0301", "\ufeff"]
    ),
    st.text(st.characters(codec="utf-8"), max_size=6),
    st.text("aeT[]-.'_\u00e9\u0130\u4e2d", max_size=6),
)
SOUPS = st.lists(ATOMS, max_size=12).map("".join)


def reference(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def split(ids: NDArray[np.int32], offsets: NDArray[np.int64]) -> list[list[int]]:
    return [part.tolist() for part in np.split(ids, offsets[1:-1])] if len(offsets) > 1 else []


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> StaticEncoder:
    tokenizer = TOKENIZERS["uncased"]
    folder = tmp_path_factory.mktemp("static")
    tensors = {"embeddings": static_models.random_table(tokenizer)}
    return StaticEncoder.open(static_models.write_own(folder, tokenizer, tensors))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_token_ids_equal_those_of_the_tokenizer(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    assert splits_into_words(tokenizer)
    words = WordTokenizer(tokenizer)
    expected = reference(tokenizer, TEXTS)
    assert split(*words.tokenize(TEXTS)) == expected
    assert split(*words.tokenize(TEXTS)) == expected, "the second time from the cache"
    assert [words.count(text) for text in TEXTS] == [len(ids) for ids in expected]
    assert len(words) > 1000


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(texts=st.lists(SOUPS, max_size=4))
@example(texts=["[S\x0cEP]", "a\x85b", "obj\x1cect", "the\u00a0object"])
@example(texts=["not object list", "knot object list", "not objects list", "that all in", "at all in", "NOT\nObject."])
@example(
    texts=["not  object", "not\r\nobject", " not object ", "not \u200b object", "not \u200bobject", "\u00b0not object"]
)
@example(
    texts=["a b c d e", "a b c  d e", "the the the the", "list of the list", "<B>not <B> object", "not [SEP]object"]
)
@example(
    texts=["no\u0301t object", "n\u00f3t obje\u0301ct", "not\u4e2d object", "\u4e2dnot object\u4e2d", "not_object list"]
)
def test_token_ids_of_anything(name: str, texts: list[str]) -> None:
    tokenizer = TOKENIZERS[name]
    assert split(*WordTokenizer(tokenizer).tokenize(texts)) == reference(tokenizer, texts)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_character_within_at_the_edge_of_and_between_words(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    planes = [*range(0x3100), *range(0xA000, 0xD800, 7), *range(0xE000, 0x10000), *range(0x1F000, 0x1F100)]
    texts = [f"the{chr(code)}object {chr(code)} list{chr(code)}" for code in planes]
    assert split(*WordTokenizer(tokenizer).tokenize(texts)) == reference(tokenizer, texts)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: setattr(t, "normalizer", normalizers.Lowercase()),
        lambda t: setattr(t, "normalizer", None),
        lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Whitespace()),
        lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Metaspace()),
        lambda t: setattr(t, "model", models.WordLevel({"the": 0, "[UNK]": 1}, unk_token="[UNK]")),
        lambda t: t.add_tokens([AddedToken("the object", normalized=False)]),
        lambda t: t.add_tokens([AddedToken("the object", lstrip=True)]),
        lambda t: t.add_tokens([AddedToken("the object", rstrip=True)]),
        lambda t: t.add_tokens(["the  object", " the", "the "]),
        lambda t: t.add_tokens([AddedToken("\u4e2d", normalized=True)]),
        lambda t: t.add_tokens([AddedToken("\u4e2d \u00e9", normalized=True)]),
        lambda t: (
            setattr(t, "normalizer", normalizers.BertNormalizer(clean_text=False)),
            t.add_tokens(["the object"]),
        ),
    ],
)
def test_other_tokenizers_take_the_direct_path(change: object) -> None:
    tokenizer = Tokenizer.from_str(TOKENIZERS["uncased"].to_str())
    assert callable(change)
    change(tokenizer)
    assert not splits_into_words(tokenizer)
    words = WordTokenizer(tokenizer)
    texts = [*static_models.NASTY, "the object \u4e2d the"]
    assert split(*words.tokenize(texts)) == reference(tokenizer, texts)
    assert len(words) == 0


def test_lone_surrogates_count_as_one_unknown_character(encoder: StaticEncoder) -> None:
    broken, replaced = "the \ud83d object\udc00 list", "the ? object? list"
    np.testing.assert_array_equal(encoder.encode_documents([broken]), encoder.encode_documents([replaced]))
    assert encoder.count_tokens(broken) == encoder.count_tokens(replaced) == 5


@pytest.mark.parametrize("name", ["uncased", "many entries"])
def test_cache_stays_bounded_and_exact(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    words = WordTokenizer(tokenizer, max_words=100, max_characters=2000)
    for start in range(0, 3000, 30):
        texts = [" ".join(f"w{number}" for number in range(start, start + 30)), "z" * 500 + str(start) + " not all"]
        assert split(*words.tokenize(texts)) == reference(tokenizer, texts)
        assert len(words) <= 100
    assert sum(map(len, words._memory.tokens)) <= 2000


def test_texts_too_long_to_remember_leave_nothing_behind() -> None:
    words = WordTokenizer(TOKENIZERS["uncased"])
    assert words.count(" ".join(map(str, range(200_000)))) >= 200_000
    assert len(words) == 0


def test_a_long_chain_of_entries_is_one_piece() -> None:
    text = "the " * 100_000
    words = WordTokenizer(TOKENIZERS["entries"])
    assert split(*words.tokenize([text])) == reference(TOKENIZERS["entries"], [text])
    assert words.count(text) == 50_000


def test_words_between_entries_come_from_the_cache() -> None:
    tokenizer = TOKENIZERS["entries"]
    words = WordTokenizer(tokenizer)
    words.tokenize(["not object list", "a name here"])
    assert "not object list" in words._memory.tokens
    known = len(words)
    words.tokenize(["a name here not object list", "here a name"])
    assert len(words) == known, "no new piece: only the entry itself is glued"


@pytest.mark.parametrize("name", ["uncased", "many entries"])
def test_threads_share_one_cache(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    expected = reference(tokenizer, TEXTS[:300])
    words = WordTokenizer(tokenizer, max_words=300)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: [split(*words.tokenize([text]))[0] for text in TEXTS[:300]], range(8)))
    assert all(result == expected for result in results)


def test_vectors_worked_out_by_hand(tmp_path: Path) -> None:
    tokenizer = static_models.word_tokenizer(["red", "blue", "none"])
    tensors: dict[str, NDArray[Any]] = {
        "embeddings": np.array([[9, 9], [3, 0], [0, 4], [0, 0]], np.int8),
        "scales": np.array([1, 1, 1, 1], np.float32),
    }
    encoder = StaticEncoder.open(static_models.write_own(tmp_path / "skip", tokenizer, tensors))
    vectors = encoder.encode_documents(["Red BLUE", "red", "green", "", "none", "red red green blue blue", "red.blue"])
    expected = [[0.6, 0.8], [1.0, 0], [0, 0], [0, 0], [0, 0], [0.6, 0.8], [0.6, 0.8]]
    np.testing.assert_allclose(vectors, np.array(expected), atol=1e-7)
    assert encoder.count_tokens("red green, blue") == 4
    kept = StaticEncoder.open(static_models.write_own(tmp_path / "keep", tokenizer, tensors, unknown="keep"))
    np.testing.assert_allclose(kept.encode_documents(["green", "red"]), [[0.5**0.5, 0.5**0.5], [1, 0]], atol=1e-7)


def test_token_limit_counts_skipped_tokens(tmp_path: Path) -> None:
    tokenizer = static_models.word_tokenizer(["red", "blue"])
    folder = static_models.write_own(tmp_path, tokenizer, {"embeddings": np.eye(3, dtype=np.float32)}, max_tokens=2)
    encoder = StaticEncoder.open(folder)
    np.testing.assert_array_equal(
        encoder.encode_documents(["red green blue", "green green blue"]), [[0, 1, 0], [0, 0, 0]]
    )
    assert encoder.count_tokens("red green blue") == 3


def test_promises_of_the_protocol(encoder: StaticEncoder) -> None:
    assert isinstance(encoder, Encoder)
    assert encoder.dim == 32
    for encode in (encoder.encode_queries, encoder.encode_documents):
        empty = encode([])
        assert empty.shape == (0, 32)
        assert empty.dtype == np.float32
        with pytest.raises(TypeError, match="not one string"):
            encode("a string")
    assert encoder.count_tokens("") == 0
    np.testing.assert_array_equal(encoder.encode_queries(TEXTS[:50]), encoder.encode_documents(TEXTS[:50]))


def test_batching_never_changes_a_vector(encoder: StaticEncoder) -> None:
    together = encoder.encode_documents(TEXTS)
    order = np.random.default_rng(3).permutation(len(TEXTS))
    shuffled = encoder.encode_documents([TEXTS[index] for index in order])
    np.testing.assert_array_equal(shuffled, together[order])
    alone = np.concatenate([encoder.encode_documents([text]) for text in TEXTS])
    np.testing.assert_array_equal(alone, together)


@pytest.mark.parametrize("limits", [{}, {"max_tokens": 3}, {"max_tokens": 3, "keep_end": True}, {"max_characters": 20}])
@pytest.mark.parametrize("skip", [None, 1])
@pytest.mark.parametrize("resident", [True, False])
def test_one_text_alone_gets_the_same_bits(
    limits: dict[str, Any], skip: int | None, resident: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_RESIDENT_BYTES", 2**30 if resident else 0)
    tokenizer = TOKENIZERS["uncased"]
    rows = static_models.random_table(tokenizer)
    rows[::7] *= -0.0  # a sum may be minus zero
    model = open_static_model(static_models.write_own(tmp_path, tokenizer, {"embeddings": rows}))
    encoder = StaticEncoder(replace(model, rules=Rules("two-stage", skip, **limits)))
    together = encoder.encode_documents(TEXTS[:300])
    assert together.any(axis=1).sum() > 250
    for text, row in zip(TEXTS[:300], together, strict=True):
        assert encoder.encode_queries([text]).tobytes() == row.tobytes()


@pytest.mark.parametrize("dimensions", [1, 5, 16, 32])
def test_truncation_is_the_beginning_at_unit_length(dimensions: int, encoder: StaticEncoder, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS["uncased"]
    folder = static_models.write_own(tmp_path, tokenizer, {"embeddings": static_models.random_table(tokenizer)})
    truncated = StaticEncoder.open(folder, dimensions=dimensions)
    assert truncated.dim == truncated.fingerprint.dim == dimensions
    assert truncated.fingerprint.digest == encoder.fingerprint.digest
    beginning = encoder.encode_documents(TEXTS)[:, :dimensions].astype(np.float64)
    norms = np.linalg.norm(beginning, axis=1, keepdims=True)
    expected = np.divide(beginning, norms, out=np.zeros_like(beginning), where=norms > 0)
    np.testing.assert_allclose(truncated.encode_documents(TEXTS), expected, atol=1e-4)


@pytest.mark.parametrize("dimensions", [0, -1, 4])
def test_impossible_dimensions_are_refused(dimensions: int, tmp_path: Path) -> None:
    tokenizer = static_models.word_tokenizer(["red", "blue"])
    folder = static_models.write_own(tmp_path, tokenizer, {"embeddings": np.eye(3, dtype=np.float32)})
    with pytest.raises(ValueError, match=f"1 to 3 for tiny, not {dimensions}"):
        StaticEncoder.open(folder, dimensions=dimensions)


def test_vectors_are_finite_or_refused(tmp_path: Path) -> None:
    tokenizer = static_models.word_tokenizer(["red", "blue"])
    huge = {"embeddings": np.full((3, 2), 3e38, np.float32)}
    encoder = StaticEncoder.open(static_models.write_own(tmp_path / "huge", tokenizer, huge))
    np.testing.assert_allclose(encoder.encode_documents(["red"]), [[0.5**0.5, 0.5**0.5]], atol=1e-7)
    with pytest.raises(ModelError, match="tiny has a vector that is not finite"):
        encoder.encode_documents(["red blue"])
    large = np.ones((70_000, 256), np.float32)
    large[2, 7] = np.nan
    encoder = StaticEncoder.open(static_models.write_own(tmp_path / "large", tokenizer, {"embeddings": large}))
    assert encoder.encode_documents(["red"]).shape == (1, 256)
    with pytest.raises(ModelError, match="not finite"):
        encoder.encode_documents(["red", "blue"])


def test_many_short_texts_need_little_more_than_their_vectors(encoder: StaticEncoder) -> None:
    texts = [f"object {number}" for number in range(100_000)]
    encoder.encode_documents(texts)
    tracemalloc.start()
    try:
        vectors = encoder.encode_documents(texts)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert vectors.shape == (100_000, 32)
    assert peak - vectors.nbytes < 32 * 2**20


def test_one_text_of_a_million_words(encoder: StaticEncoder) -> None:
    [long, short] = encoder.encode_documents(["object list " * 500_000, "object list"])
    np.testing.assert_allclose(long, short, atol=1e-3)


def test_sums_with_and_without_scipy_are_equal_to_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(3)
    rows = tables.RowSums(tables.TokenTable(generator.normal(size=(500, 32)).astype(np.float32)), 32)
    lengths = [0, 1, 7, 2047, 2048, 2049, 0, 70_000]
    ids = generator.integers(0, 500, sum(lengths)).astype(np.int32)
    offsets = np.cumsum([0, *lengths])
    fast = rows.sum(ids, offsets)
    monkeypatch.setattr(tables, "_sparse_product", lambda: None)
    plain = rows.sum(ids, offsets)
    np.testing.assert_array_equal(fast, plain)
    assert not np.shares_memory(fast, plain)
    assert plain[7].any()
    assert not plain[0].any()
