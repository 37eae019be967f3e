"""The queries that a change of quantization is measured with: real ones, judged ones, or ones made of the corpus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, Self

from retrieval.errors import DocumentError, StoreError
from retrieval.evaluation import BeirCollection
from retrieval.evaluation.collections import read_qrels
from retrieval.protocols import Store

PSEUDO_QUERIES = 200
REAL_QUERIES = 1_000

_MOST_LINES = 1_000_000
_TRIED_PER_QUERY = 4
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_FEWEST_WORDS = 3
_SENTENCE_WORDS = range(5, 40)
_MOST_WORDS = 16


@dataclass(frozen=True, slots=True)
class SampledQueries:
    """Queries to measure with.

    Args:
        texts: Text of each query by its id.
        kind: ``judged``, ``real``, or ``pseudo`` for titles and sentences of the corpus.
        qrels: Grades of documents for each judged query; ``None`` for the other kinds.
    """

    texts: Mapping[str, str]
    kind: Literal["judged", "real", "pseudo"]
    qrels: Mapping[str, Mapping[str, int]] | None = None

    @classmethod
    def of(
        cls,
        store: Store,
        queries: Mapping[str, str] | Sequence[str] | None,
        qrels: Mapping[str, Mapping[str, int]] | None,
        sample: int | None,
    ) -> Self:
        """A sample that is the same every time.

        Args:
            store: Gives pseudo-queries.
            queries: Real ones, by id where they are judged; ``None`` for pseudo-queries.
            qrels: Judgements by query and document id; queries without any are left out.
            sample: How many at most; ``None`` for `PSEUDO_QUERIES` or `REAL_QUERIES`.

        Raises:
            TypeError: ``queries`` is one string.
            ValueError: ``sample`` is below 1, there is no query, or none that is judged.
            StoreError: The index has no text to make queries of.
        """
        if sample is not None and sample < 1:
            raise ValueError(f"sample is a whole number from 1, not {sample}")
        if queries is None:
            if qrels is not None:
                raise ValueError("qrels judge queries by their ids; give the queries too")
            made = pseudo_queries(store, PSEUDO_QUERIES if sample is None else sample)
            return cls({str(number): text for number, text in enumerate(made, start=1)}, "pseudo")
        if isinstance(queries, str):
            raise TypeError(f"queries are a list of strings, or strings by id, not the string {queries!r}")
        given = dict(queries) if isinstance(queries, Mapping) else {str(n): q for n, q in enumerate(queries, start=1)}
        texts = {name: text for name, text in given.items() if text.strip() and (qrels is None or name in qrels)}
        if not texts:
            raise ValueError(
                "there is no query to measure with"
                if qrels is None
                else f"none of {len(given)} queries is judged; ids of queries and of judgements have to be the same"
            )
        names = evenly(list(texts), REAL_QUERIES if sample is None else sample)
        chosen = {name: texts[name] for name in names}
        if qrels is None:
            return cls(chosen, "real")
        return cls(chosen, "judged", {name: qrels[name] for name in chosen})


def evenly(items: Sequence[str], count: int) -> list[str]:
    """At most ``count`` items, evenly spread, in their order."""
    count = min(count, len(items))
    return [items[position * len(items) // count] for position in range(count)]


def pseudo_queries(store: Store, count: int) -> list[str]:
    """Titles and sentences of passages, half and half where there are titles.

    Passages come in the order of their ids, which are digests of source and place: the first of them are a sample of
    the whole index that is the same every time and needs no scan of the rest.

    Args:
        store: Open store.
        count: How many at most, without repetition.

    Raises:
        StoreError: There is no passage with three words in it.
    """
    tried = max(count * _TRIED_PER_QUERY, 100)
    made: dict[str, None] = {}
    points = store.scan(payload=["text", "title"], batch=min(tried, 1_000))
    for number, point in enumerate(islice(points, tried)):
        title, text = str(point.payload.get("title", "")), str(point.payload.get("text", ""))
        query = _title(title) if number % 2 else None
        query = query or _sentence(text) or _title(title)
        if query is not None:
            made[query] = None
        if len(made) == count:
            break
    if not made:
        raise StoreError(f"{store.location} has no passages to make queries of; ingest documents, or give real queries")
    return list(made)


def _title(title: str) -> str | None:
    words = title.split()
    return " ".join(words[:_MOST_WORDS]) if len(words) >= _FEWEST_WORDS else None


def _sentence(text: str) -> str | None:
    """The beginning of the sentence in the middle, or some words from there."""
    sentences = [words for part in _SENTENCE.split(text) if len(words := part.split()) in _SENTENCE_WORDS]
    words = sentences[len(sentences) // 2] if sentences else text.split()[len(text.split()) // 2 :] or text.split()
    if len(words) < _FEWEST_WORDS:
        words = text.split()
    return " ".join(words[:_MOST_WORDS]) if len(words) >= _FEWEST_WORDS else None


def read_judged(path: Path, queries: Path | None) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """Queries and judgements.

    Args:
        path: A BEIR folder, of which the split ``test`` is taken, or a file of judgements.
        queries: File of the queries, for a file of judgements.

    Raises:
        DocumentError: A file is missing or malformed.
        ValueError: ``queries`` is missing, or given with a folder.
    """
    if path.is_dir():
        if queries is not None:
            raise ValueError(f"{path} is a folder that has its own queries; leave {queries} out")
        collection = BeirCollection.open(path)
        return dict(collection.queries), {query: dict(grades) for query, grades in collection.qrels.items()}
    if queries is None:
        raise ValueError(f"the judgements {path} need their queries: name the file of them, or a BEIR folder instead")
    return read_queries(queries), read_qrels(path)


def read_queries(path: Path) -> dict[str, str]:
    """Queries by id: one to a line, or JSON objects with ``_id`` and ``text`` in a file ``*.jsonl``.

    Lines are their own ids by number. Of very long files the first million lines count.

    Raises:
        DocumentError: The file cannot be read, is not UTF-8, or holds no query; a line is malformed.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = enumerate(islice(file, _MOST_LINES), start=1)
            parsed = _objects(path, lines) if path.suffix == ".jsonl" else ((str(n), line) for n, line in lines)
            found = {name: text.strip() for name, text in parsed if text.strip()}
    except UnicodeDecodeError as error:
        raise DocumentError(f"{path} is not a text file in UTF-8: {error}") from error
    except OSError as error:
        raise DocumentError(f"cannot read the queries {path}: {error.strerror or error}") from error
    if not found:
        raise DocumentError(f"{path} holds no query")
    if any("\0" in text for text in found.values()):
        raise DocumentError(f"{path} is not a text file: it has zero bytes in it")
    return found


def _objects(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[str, str]]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DocumentError(f"{path}#{number} is not JSON: {error}") from error
        if not isinstance(record, dict) or not isinstance(record.get("text"), str):
            raise DocumentError(f'{path}#{number} is no query; a line looks like {{"_id": "1", "text": "a query"}}')
        yield str(record.get("_id", number)), record["text"]
