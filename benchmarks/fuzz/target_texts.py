"""Texts: cutting, headings, windows, words and vectors of any text at all."""

from __future__ import annotations

import re
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.target import Check, Target
from retrieval.chunking import CHARACTERS_PER_TOKEN, Chunker
from retrieval.config import Bm25Config, ChunkingConfig
from retrieval.datatypes import Document
from retrieval.documents.html import html_text
from retrieval.documents.plain import title_of
from retrieval.encoders import Bm25Encoder, StaticEncoder
from retrieval.headings import find_headings, front_matter_end
from retrieval.models import find_model
from retrieval.negation import negation_cues
from retrieval.rerankers.passages import windows_of


def require_cut(document: Document, passages: Any, limits: ChunkingConfig, count: Any) -> None:
    """Fail unless the passages cover the document in order, point at its text and keep to the limits."""
    text, covered = document.text, 0
    for number, passage in enumerate(passages):
        assert passage.index == number
        assert passage.text == text[passage.start : passage.end], "a passage is not the text at its place"
        assert passage.text, "an empty passage"
        assert passage.text == passage.text.strip(), "white space at the edge of a passage"
        assert not text[covered : passage.start].strip(), "text that is in no passage"
        assert passage.end > covered, "a passage that brings nothing new"
        shared = text[passage.start : covered]
        assert not shared.strip() or count(shared) <= limits.overlap_tokens, "more overlap than the setting allows"
        assert len(passage.text) <= limits.max_tokens * CHARACTERS_PER_TOKEN, "too many characters"
        assert count(passage.text) <= limits.max_tokens or len(passage.text) == 1, "too many tokens"
        covered = passage.end
    assert not text[covered:].strip(), "text behind the last passage"


def _words(text: str) -> int:
    return len(text.split())


_LONG = (
    "x" * 700,
    "\u65e5" * 600,
    "a b c d e f g h i j k l m n o p q r " * 3,
    "word. Another one! " * 8,
    "\n\n",
    "\n# Head\n\n",
)


def _document(choices: Choices) -> Document:
    pieces = choices.list_of(lambda: choices.pick(_LONG) if choices.chance(6) else choices.clean_text(4), 40)
    return Document("d", "".join(pieces), "T")


def _chunking(kind: str, folder: Path, stack: ExitStack) -> Check:
    if kind == "words":
        count, many = _words, None
    else:
        encoder = StaticEncoder.open(find_model("starter-static"))
        count, many = encoder.count_tokens, encoder.count_tokens_many

    def check(data: bytes) -> None:
        choices = Choices(data)
        most = choices.pick((16, 20, 64, 512))
        config = ChunkingConfig(max_tokens=most, overlap_tokens=choices.pick((0, 3, most // 2)))
        document = _document(choices)
        chunker = Chunker(config, count, many)
        passages = chunker.split(document)
        require_cut(document, passages, config, count)
        assert passages == chunker.split(document), "cut twice, it is cut in another way"
        assert chunker.split_many([document, document]) == [passages, passages], "two at once are cut in another way"
        for passage in passages[:2]:
            (again,) = Chunker(config, count, many).split(Document("p", passage.text)) or [None]
            assert again is not None
            assert again.text == passage.text, "a passage that fits is cut again"

    return check


def _texts(folder: Path, stack: ExitStack) -> Check:
    """What looks at the words of a query or a passage takes any text, and points into it."""
    end = re.compile(r"\S")

    def check(data: bytes) -> None:
        choices = Choices(data)
        text, words = _document(choices).text, 1 + choices.byte() % 30
        headings = find_headings(text)
        for heading in headings:
            assert 0 <= heading.start < heading.end <= len(text)
            assert heading.level >= 1
            assert heading.title.strip() == heading.title
        assert sorted(heading.start for heading in headings) == [heading.start for heading in headings]
        assert 0 <= front_matter_end(text) <= len(text)
        title_of(text)
        windows = windows_of(text, words)
        covered = 0
        for start, stop in windows:
            assert 0 <= start <= stop <= len(text)
            assert not end.search(text[covered:start]) or len(windows) == 1, "a word that is in no window"
            assert len(windows) == 1 or len(re.findall(r"\S{1,24}", text[start:stop])) <= words, "a window too long"
            covered = max(covered, stop)
        assert not end.search(text[covered:]), "words behind the last window"
        negation_cues(text)

    return check


def _html(folder: Path, stack: ExitStack) -> Check:
    pieces = ("<p>", "</p>", "<pre>", "</pre>", "<li>", "<h1>", "</h1>", "<td>", "<tr>", "<main>", "</main>",
    "<nav>", "<title>",
              "<script>", "</script>", "<!--", "-->", "<![CDATA[", "]]>", "&lt;", "&#x110000;", "&#0;", "<a b='",
              "'>", "<", ">", "<?xml?>", "<b hidden>")  # fmt: skip

    def check(data: bytes) -> None:
        choices = Choices(data)
        markup = "".join(
            choices.list_of(lambda: choices.clean_text(2) if choices.chance() else choices.pick(pieces), 60)
        )
        if markup.strip():
            text, title = html_text(markup)
            assert text == text.strip()
            assert len(text) <= 20 * len(markup) + 100
            assert "\n" not in title

    return check


def _vectors(folder: Path, stack: ExitStack) -> Check:
    """Whatever else is in the batch, in whatever order, a text has the same vector, unit length or zero."""
    encoder = StaticEncoder.open(find_model("starter-static"))
    alone: dict[str, Any] = {}

    def check(data: bytes) -> None:
        choices = Choices(data)
        texts = choices.list_of(lambda: choices.clean_text(12), 8)
        rows = encoder.encode_documents(texts)
        assert rows.shape == (len(texts), encoder.dim)
        assert rows.dtype == np.float32
        lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
        assert ((lengths == 0) | (np.abs(lengths - 1) < 1e-5)).all(), f"lengths {lengths}"
        for text, row in zip(texts, rows, strict=True):
            if len(alone) > 5_000:
                alone.clear()
            if text not in alone:
                alone[text] = encoder.encode_queries([text])[0]
            assert np.array_equal(alone[text], row), "the batch changes a vector"
        assert np.array_equal(encoder.encode_documents(texts[::-1])[::-1], rows), "the order changes a vector"

    return check


def _bm25(language: str, folder: Path, stack: ExitStack) -> Check:
    """The same terms and weights as the engine's own encoder gives; the batch changes nothing."""
    import qdrant_edge as engine

    ours = Bm25Encoder(Bm25Config(language=language))
    theirs = engine.Bm25(engine.Bm25Config(avg_len=10.0, language=language, k=1.2, b=0.75))

    def check(data: bytes) -> None:
        choices = Choices(data)
        texts = choices.list_of(lambda: choices.clean_text(12), 6)
        vectors, lengths = ours.encode_documents(texts, 10.0)
        queries = ours.encode_queries(texts)
        assert len(vectors) == len(lengths) == len(texts)
        for text, vector, query in zip(texts, vectors, queries, strict=True):
            wanted = theirs.embed_document(text)
            order = np.argsort(np.asarray(wanted.indices, np.uint32), kind="stable")
            assert vector.indices.tolist() == np.asarray(wanted.indices, np.uint32)[order].tolist(), "other terms"
            assert np.allclose(vector.values, np.asarray(wanted.values, np.float32)[order], rtol=1e-6), "other weights"
            assert sorted(query.indices.tolist()) == vector.indices.tolist(), "a query has other terms"
        backwards, _ = ours.encode_documents(texts[::-1], 10.0)
        for one, other in zip(vectors, backwards[::-1], strict=True):
            assert np.array_equal(one.values, other.values), "the order changes a vector"

    return check


TARGETS = [
    Target(
        "chunking, words", "offsets, full coverage, bounded overlap and size", partial(_chunking, "words"), weight=1.5
    ),
    Target("chunking, tokens", "the same with the bundled tokenizer", partial(_chunking, "tokens")),
    Target("texts", "headings, windows and cues lie in the text and cover it", _texts),
    Target("html", "markup of any kind gives text", _html),
    Target("vectors", "batch and order never change a vector", _vectors),
    Target("bm25 english", "terms and weights of the engine", partial(_bm25, "english")),
]
