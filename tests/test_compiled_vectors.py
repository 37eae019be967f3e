"""Compiled kernels give the vectors, counts and terms of numpy, the tokenizer and the engine, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retrieval.config import Bm25Config
from retrieval.encoders import Bm25Encoder, StaticEncoder, encode_passages, prepare_compiled
from retrieval.encoders.bm25 import supported_languages
from retrieval.encoders.compiled import blocks, start
from retrieval.encoders.compiled.vectors import CompiledTexts
from retrieval.encoders.compiled.words import WordTable
from retrieval.errors import ModelError
from retrieval.token_tables import table as tables
from retrieval.token_tables.formats import Rules, open_static_model
from retrieval.token_tables.table import TokenTable
from tests import static_models
from tests.test_encoders import SOUPS, TEXTS, TOKENIZERS

ATOMS = (
    "running",
    "The",
    "dog's",
    "a.b",
    "x_y",
    "caf\u00e9",
    "\uff21\uff22",
    "\u6771\u4eac",
    "\u0301",
    "\u0130stanbul",
    "stra\u00dfe",
)
ATOMS += (
    "\u00b2",
    "\u2167",
    "\u00aa",
    "\u039f\u0394\u039f\u03a3.",
    "\u01c5",
    "\ufeff",
    "\x00",
    "z" * 300,
    "http://a.b/c?d=e",
    "\u00ad",
)
GAPS = ("", " ", "\n", "\u00a0", "\u2003", "\x85", "\x0b", "\x1c", "-", ".")
MIXTURES = st.lists(st.tuples(st.sampled_from(ATOMS), st.sampled_from(GAPS)).map("".join), max_size=12).map("".join)


@pytest.fixture(scope="module", autouse=True)
def compiled() -> Iterator[None]:
    status = prepare_compiled()
    assert status.state == "ready", status.reason
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "SMALL", 0)
        patch.setattr(blocks, "_CHARACTERS", 2**13)  # several blocks, in several threads
        yield


def plainly(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv(start.SWITCH, "0")
    return monkeypatch


def open_encoder(folder: Path, name: str, **config: object) -> StaticEncoder:
    tokenizer = TOKENIZERS[name]
    tensors = {"embeddings": static_models.random_table(tokenizer)}
    return StaticEncoder.open(static_models.write_own(folder / name, tokenizer, tensors, **config))


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StaticEncoder]:
    folder = tmp_path_factory.mktemp("models")
    return {name: open_encoder(folder, name) for name in TOKENIZERS}


def both(encoder: StaticEncoder, texts: Sequence[str]) -> tuple[bytes, bytes, list[int], list[int]]:
    """Vectors and token counts with and without kernels."""
    fast = encoder.compiled(texts)
    assert isinstance(fast, CompiledTexts)
    counts = fast.counts(texts).tolist()
    vectors = fast.encode(texts).tobytes()
    with pytest.MonkeyPatch.context() as patch:
        plainly(patch)
        assert encoder.compiled(texts) is None
        return vectors, encoder.encode_documents(texts).tobytes(), counts, encoder.count_tokens_many(texts).tolist()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_many_texts_have_the_same_bits(name: str, encoders: dict[str, StaticEncoder]) -> None:
    fast, plain, counts, expected = both(encoders[name], TEXTS)
    assert counts == expected
    assert fast == plain
    assert encoders[name].encode_documents(TEXTS).tobytes() == plain, "now that all words are known"
    assert counts == [len(e.ids) for e in TOKENIZERS[name].encode_batch(TEXTS, add_special_tokens=False)]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=40, deadline=None)
@given(texts=st.lists(SOUPS, min_size=1, max_size=4))
@example(texts=["[S\x0cEP]", "a\x85b", "obj\x1cect", "the\u00a0object", "a\x00b", "\ud800the"])
@example(texts=["not object list", "knot object", "that all in", "NOT\nObject.", "<B>not [sep]object"])
@example(texts=["a" * 2040 + " b", "a" * 2041 + " b", "a" * 100 + " " + "a" * 101, "12345678 123456789 1234567"])
def test_anything_has_the_same_bits(name: str, texts: list[str], encoders: dict[str, StaticEncoder]) -> None:
    fast, plain, counts, expected = both(encoders[name], texts)
    assert counts == expected
    assert fast == plain


def test_every_character_within_at_the_edge_of_and_between_words(encoders: dict[str, StaticEncoder]) -> None:
    planes = [*range(0x3100), *range(0xA000, 0xD800, 7), *range(0xE000, 0x10000, 3), *range(0x1F000, 0x1F100)]
    texts = [f"the{chr(code)}object {chr(code)} list{chr(code)}" for code in planes]
    fast, plain, counts, expected = both(encoders["uncased"], texts)
    assert counts == expected
    assert fast == plain


@pytest.mark.parametrize("limits", [{}, {"max_tokens": 3}, {"max_tokens": 3, "keep_end": True}, {"max_characters": 20}])
@pytest.mark.parametrize("skip", [None, 1])
def test_rules_cut_and_skip_alike(
    limits: dict[str, Any], skip: int | None, tmp_path: Path, encoders: dict[str, StaticEncoder]
) -> None:
    model = encoders["uncased"].model
    encoder = StaticEncoder(replace(model, rules=Rules("two-stage", skip, **limits)))
    fast, plain, *_ = both(encoder, TEXTS[:300])
    assert fast == plain


def _tables(tokens: int) -> dict[str, TokenTable]:
    generator = np.random.default_rng(3)
    rows = generator.normal(size=(tokens, 24)).astype(np.float32)
    rows[::7] *= -0.0
    weights = generator.uniform(0.5, 2, tokens).astype(np.float32)
    mapping = generator.integers(0, tokens, tokens)
    return {
        "int8": TokenTable(generator.integers(-128, 128, rows.shape, np.int8), weights),
        "int8 alone": TokenTable(generator.integers(-128, 128, rows.shape, np.int8)),
        "float32": TokenTable(rows),
        "float32, weights": TokenTable(rows, weights),
        "float32, mapping": TokenTable(rows, weights, mapping),
        "int8, mapping": TokenTable(generator.integers(-128, 128, rows.shape, np.int8), weights, mapping),
        "float16": TokenTable(rows.astype(np.float16), weights),
        "float64": TokenTable(rows.astype(np.float64)),
        "big-endian": TokenTable(rows.astype(">f4")),
        "columns": TokenTable(np.asfortranarray(rows)),
    }


@pytest.mark.parametrize("kind", _tables(1))
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("dimensions", [None, 1, 17])
def test_every_kind_of_table(
    kind: str,
    resident: bool,
    dimensions: int | None,
    encoders: dict[str, StaticEncoder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tables, "_RESIDENT_BYTES", 2**30 if resident else 0)
    model = encoders["uncased"].model
    encoder = StaticEncoder(replace(model, table=_tables(model.table.tokens)[kind]), dimensions)
    texts = [*TEXTS[:120], "object list " * 3000, "the " * 2048, "the " * 2049]
    fast, plain, *_ = both(encoder, texts)
    assert fast == plain
    assert np.frombuffer(fast, np.float32).any()


def test_a_weight_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    tokenizer = static_models.word_tokenizer(["red", "blue"])
    huge = {"embeddings": np.full((3, 2), 3e38, np.float32)}
    encoder = StaticEncoder.open(static_models.write_own(tmp_path, tokenizer, huge))
    assert encoder.compiled(["red"]) is not None
    with pytest.raises(ModelError, match="tiny has a vector that is not finite"):
        encoder.encode_documents(["red blue", "red"])


def test_a_memory_mapped_table_is_read_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_RESIDENT_BYTES", 0)
    tokenizer = TOKENIZERS["uncased"]
    folder = static_models.write_own(tmp_path, tokenizer, {"embeddings": static_models.random_table(tokenizer)})
    model = open_static_model(folder)
    source = tables.RowSums(model.table, 8).source()
    assert source is not None
    assert np.shares_memory(source[0], model.table.embeddings)
    fast, plain, *_ = both(StaticEncoder(model, 8), TEXTS[:100])
    assert fast == plain


def limited(encoder: StaticEncoder, words: int) -> WordTable:
    fast = encoder.compiled(["the"])
    assert fast is not None
    fast.table = WordTable(fast.table._call, fast.table._columns, max_words=words)
    return fast.table


def test_the_table_stays_bounded_and_exact(tmp_path: Path) -> None:
    encoder = open_encoder(tmp_path, "entries")
    table = limited(encoder, 300)
    for first in range(0, 6000, 100):
        texts = [" ".join(f"w{number}" for number in range(first, first + 100)), f"{'z' * 500}{first} not all in"]
        fast, plain, *_ = both(encoder, texts)
        assert fast == plain
        assert len(table.words) <= 300
    assert table.statistics.restarts > 10


def test_the_table_grows(tmp_path: Path) -> None:
    encoder = open_encoder(tmp_path, "uncased")
    texts = [
        " ".join(f"w{number}\u00e9" if number % 3 else f"w{number}" for number in range(at, at + 500))
        for at in range(0, 30_000, 250)
    ]
    fast, plain, *_ = both(encoder, texts)
    assert fast == plain
    fast_texts = encoder.compiled(texts)
    assert fast_texts is not None
    assert len(fast_texts.table.words) == 30_250
    assert fast_texts.table.words.texts(np.arange(30_250)) == list(
        dict.fromkeys(fast_texts.table.words.texts(np.arange(30_250)))
    )


def test_statistics_of_the_cache(tmp_path: Path) -> None:
    encoder = open_encoder(tmp_path, "uncased")
    encoder.learn(["the object the list"])
    learned = encoder.cache
    assert (learned.words, learned.misses, learned.hits, learned.restarts) == (3, 3, 1, 0)
    encoder.encode_documents(["object list", "new object"])
    assert (encoder.cache.words, encoder.cache.misses, encoder.cache.hits) == (4, 4, 4)
    assert encoder.cache.bytes > 1000


def test_threads_share_one_table(tmp_path: Path) -> None:
    encoder = open_encoder(tmp_path, "many entries")
    parts = [TEXTS[at : at + 25] for at in range(0, 300, 25)]
    _, _, _, _ = both(encoder, TEXTS[:1])
    with pytest.MonkeyPatch.context() as patch:
        plainly(patch)
        expected = [encoder.encode_documents(part).tobytes() for part in parts]
    table = limited(encoder, 500)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: [encoder.encode_documents(part).tobytes() for part in parts], range(8)))
    assert all(result == expected for result in results)
    assert table.restarts


@pytest.mark.parametrize("language", supported_languages())
def test_terms_of_a_text_are_those_of_its_words(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse = Bm25Encoder(Bm25Config(language=language))
    assert (sparse.compiled(["a"]) is None) == (language == "multilingual")
    texts = [*static_models.NASTY, *TEXTS[30:60], "run " * 70_000 + "cat cat star"]
    texts += [f"the{chr(code)}running {chr(code)} dogs{chr(code)}" for code in range(0, 0x3100, 3)]
    fast = sparse.encode_rows(texts, 0.0)
    plainly(monkeypatch)
    assert sparse.compiled(["a"]) is None
    assert_equal(fast, sparse.encode_rows(texts, 0.0))


@pytest.mark.parametrize("language", ["english", "german", "turkish", "greek"])
@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.one_of(MIXTURES, SOUPS), min_size=1, max_size=4), average=st.sampled_from([0.0, 3.5]))
@example(texts=["", "!!!", "\x85", "the of and"], average=0.0)
def test_terms_of_anything(language: str, texts: list[str], average: float) -> None:
    sparse = Bm25Encoder(Bm25Config(language=language))
    fast = sparse.encode_rows(texts, average)
    with pytest.MonkeyPatch.context() as patch:
        plainly(patch)
        assert_equal(fast, sparse.encode_rows(texts, average))


@pytest.mark.parametrize("name", ["uncased", "entries"])
@pytest.mark.parametrize("limits", [{}, {"max_characters": 30}])
def test_both_arms_from_one_scan(
    name: str, limits: dict[str, Any], encoders: dict[str, StaticEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = StaticEncoder(replace(encoders[name].model, rules=Rules("two-stage", 1, **limits)))
    sparse = Bm25Encoder(Bm25Config())
    fast = encode_passages(encoder, sparse, TEXTS, 0.0)
    assert_equal(fast, encode_passages(encoder, sparse, TEXTS, 0.0))
    plainly(monkeypatch)
    assert_equal(fast, encode_passages(encoder, sparse, TEXTS, 0.0))
    vectors, lengths = sparse.encode_documents(TEXTS, 0.0)
    np.testing.assert_array_equal(fast.dense, encoder.encode_documents(TEXTS))
    np.testing.assert_array_equal(fast.known, fast.dense.any(axis=1))
    assert fast.lengths.tolist() == lengths
    np.testing.assert_array_equal(fast.indices, np.concatenate([vector.indices for vector in vectors]))
    np.testing.assert_array_equal(fast.weights, np.concatenate([vector.values for vector in vectors]))
    assert np.diff(fast.offsets).tolist() == [len(vector.indices) for vector in vectors]


def test_no_passages(encoders: dict[str, StaticEncoder]) -> None:
    nothing = encode_passages(encoders["uncased"], Bm25Encoder(Bm25Config()), [], 0.0)
    assert nothing.dense.shape == (0, 32)
    assert (len(nothing), nothing.offsets.tolist(), len(nothing.indices), len(nothing.weights)) == (0, [0], 0, 0)
    assert encoders["uncased"].count_tokens_many([]).tolist() == []


def test_one_string_is_refused(encoders: dict[str, StaticEncoder]) -> None:
    encoder = encoders["uncased"]
    for call in (encoder.learn, encoder.count_tokens_many):
        with pytest.raises(TypeError, match="put it in a list"):
            call("pipe")
    with pytest.raises(TypeError, match="put it in a list"):
        encode_passages(encoder, Bm25Encoder(Bm25Config()), "pipe", 1.0)


def assert_equal(first: Any, second: Any) -> None:
    assert first.__slots__ == second.__slots__
    for name in first.__slots__:
        one, two = getattr(first, name), getattr(second, name)
        assert isinstance(one, np.ndarray)
        assert (one.dtype, one.shape) == (two.dtype, two.shape), name
        assert one.tobytes() == two.tobytes(), name
