"""BM25 vectors, held against numbers worked out by hand and against the engine's own weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pydoc_data.topics import topics

import numpy as np
import pytest
import qdrant_edge

from retrieval.config import Bm25Config
from retrieval.datatypes import SparseVector
from retrieval.encoders import Bm25Encoder
from retrieval.encoders.bm25 import supported_languages
from retrieval.errors import ConfigError
from retrieval.protocols import SparseEncoder
from tests import static_models

TEXTS = [*static_models.NASTY, *list(topics.values())[:40], "run " * 70_000 + "cat cat"]


def weights(vector: SparseVector) -> dict[int, float]:
    return dict(zip(vector.indices.tolist(), vector.values.tolist(), strict=True))


def term(encoder: Bm25Encoder, word: str) -> int:
    [vector] = encoder.encode_queries([word])
    [index] = vector.indices.tolist()
    return int(index)


def test_weights_worked_out_by_hand() -> None:
    encoder = Bm25Encoder(Bm25Config(k1=1.0, b=0.5))
    [first, second], lengths = encoder.encode_documents(["The pipe leaks; a pipe leaked, pipes!", "star"], 4.0)
    # pipe 3 times and leak 2 times: length 5. 3 * 2 / (3 + 1 * (0.5 + 0.5 * 5 / 4)), and so on.
    assert lengths == [5, 1]
    assert weights(first) == pytest.approx(
        {term(encoder, "pipe"): 6 / 4.125, term(encoder, "leak"): 4 / 3.125}, rel=1e-6
    )
    assert weights(second) == pytest.approx({term(encoder, "star"): 2 / 1.625}, rel=1e-6)


def test_average_length_zero_takes_the_mean_of_the_texts() -> None:
    encoder = Bm25Encoder(Bm25Config())
    texts = ["copper pipe leak", "copper", "copper star"]
    by_mean, lengths = encoder.encode_documents(texts, 0)
    assert lengths == [3, 1, 2]
    stated, _ = encoder.encode_documents(texts, 2.0)
    assert [weights(vector) for vector in by_mean] == [weights(vector) for vector in stated]


@pytest.mark.parametrize(("k1", "b", "average"), [(1.2, 0.75, 256.0), (0.4, 0.0, 10.0), (10.0, 1.0, 3.5)])
def test_equals_the_engine(k1: float, b: float, average: float) -> None:
    encoder = Bm25Encoder(Bm25Config(k1=k1, b=b))
    engine = qdrant_edge.Bm25(qdrant_edge.Bm25Config(k=k1, b=b, avg_len=average, language="english"))
    ours, lengths = encoder.encode_documents(TEXTS, average)
    for text, vector, length in zip(TEXTS, ours, lengths, strict=True):
        theirs = engine.embed_document(text)
        expected = dict(zip(theirs.indices, theirs.values, strict=True))
        assert weights(vector) == pytest.approx(expected, rel=1e-6)
        assert (length == 0) == (not expected)
    for text, vector in zip(TEXTS, encoder.encode_queries(TEXTS), strict=True):
        assert set(vector.indices.tolist()) == set(engine.embed_query(text).indices)
        assert (vector.values == 1).all()


def test_lengths_and_frequencies_are_exact_for_very_many_terms() -> None:
    encoder = Bm25Encoder(Bm25Config(k1=1.0, b=0.0))
    [vector], [length] = encoder.encode_documents(["run " * 70_000 + "cat cat star"], 1.0)
    assert length == 70_003
    assert weights(vector)[term(encoder, "cat")] == pytest.approx(2 * 2 / 3, rel=1e-6)
    assert weights(vector)[term(encoder, "run")] == pytest.approx(70_000 * 2 / 70_001, rel=1e-6)


@pytest.mark.parametrize("language", ["english", "german", "multilingual"])
def test_indices_ascend_without_repetition(language: str) -> None:
    vectors, _ = Bm25Encoder(Bm25Config(language=language)).encode_documents(TEXTS, 100.0)
    for vector in vectors:
        assert vector.indices.dtype == np.uint32
        assert vector.values.dtype == np.float32
        assert len(vector.indices) == len(vector.values)
        assert (np.diff(vector.indices.astype(np.int64)) > 0).all()
        assert np.isfinite(vector.values).all()
        assert (vector.values > 0).all()


@pytest.mark.parametrize("text", ["", " \n", "the of and", "!!! ... \u2014", "\x00"])
def test_texts_without_terms(text: str) -> None:
    encoder = Bm25Encoder(Bm25Config())
    vectors, lengths = encoder.encode_documents([text], 0)
    assert lengths == [0]
    for vector in (*vectors, *encoder.encode_queries([text])):
        assert (len(vector.indices), len(vector.values)) == (0, 0)
    mixed, lengths = encoder.encode_documents([text, "pipe"], 0)
    assert lengths == [0, 1]
    assert len(mixed[1].values) == 1


def test_no_texts() -> None:
    encoder = Bm25Encoder(Bm25Config())
    assert isinstance(encoder, SparseEncoder)
    assert encoder.encode_documents([], 0) == ([], [])
    assert encoder.encode_queries([]) == []


def test_lone_surrogates_do_not_fail() -> None:
    encoder = Bm25Encoder(Bm25Config())
    [vector] = encoder.encode_queries(["pipe \ud83d leak"])
    assert {term(encoder, "pipe"), term(encoder, "leak")} == set(vector.indices.tolist())


def test_one_string_is_refused() -> None:
    encoder = Bm25Encoder(Bm25Config())
    with pytest.raises(TypeError, match="put it in a list"):
        encoder.encode_queries("pipe")
    with pytest.raises(TypeError, match="put it in a list"):
        encoder.encode_documents("pipe", 1.0)


@pytest.mark.parametrize("average", [-1.0, float("nan"), float("inf")])
def test_impossible_average_lengths_are_refused(average: float) -> None:
    with pytest.raises(ValueError, match="average_length"):
        Bm25Encoder(Bm25Config()).encode_documents(["pipe"], average)


def test_every_supported_language_opens() -> None:
    names = supported_languages()
    assert {"english", "german", "french", "russian", "chinese", "multilingual"} <= set(names)
    for name in names:
        [vector] = Bm25Encoder(Bm25Config(language=name)).encode_queries(["qdrant"])
        assert len(vector.indices) == 1


@pytest.mark.parametrize("name", ["klingon", "", "English", "en", "none"])
def test_other_languages_are_refused_with_the_supported_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name!r} is not one of .*english.*german.*multilingual"):
        Bm25Encoder(Bm25Config(language=name))


def test_languages_stem_differently() -> None:
    german, multilingual = (Bm25Encoder(Bm25Config(language=name)) for name in ("german", "multilingual"))
    assert term(german, "Rohre") == term(german, "Rohr")
    assert term(multilingual, "pipes") != term(multilingual, "pipe")
    assert term(multilingual, "PIPE") == term(multilingual, "pipe")


def test_multilingual_splits_text_without_spaces() -> None:
    encoder = Bm25Encoder(Bm25Config(language="multilingual"))
    [sentence] = encoder.encode_queries(["\u6211\u4eec\u559c\u6b22\u6c34\u7ba1 and the pipe"])
    assert len(sentence.indices) > 4
    assert term(encoder, "the") in sentence.indices, "no stop words"


def test_threads_get_the_same_vectors() -> None:
    encoder = Bm25Encoder(Bm25Config())
    texts = TEXTS[:40]
    expected = [weights(vector) for vector in encoder.encode_documents(texts, 50.0)[0]]
    with ThreadPoolExecutor(4) as pool:
        for vectors, _ in pool.map(lambda _: encoder.encode_documents(texts, 50.0), range(4)):
            assert [weights(vector) for vector in vectors] == expected
