"""Readers for minimal pairs in the layouts in which others publish them.

Source:
    NevIR, https://arxiv.org/abs/2305.07614; ExcluIR, https://arxiv.org/abs/2404.17288; CondaQA,
    https://arxiv.org/abs/2211.00295; FEVER-symmetric, https://arxiv.org/abs/1908.05267
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from retrieval.errors import DocumentError

Row = Mapping[str, Any]
Rows = Sequence[tuple[str, Row]]
"""Where a row stands, for messages, and the row; at least one."""

_EXCLUIR_QUERIES = "test_manual_final.json"
_EXCLUIR_CORPUS = "corpus.json"


@dataclass(frozen=True, slots=True)
class Twins:
    """Two texts, the query that each answers and the other does not (``None``: no such query), and a name to group by.

    Pairs of the same name are about the same passage.
    """

    texts: tuple[str, str]
    queries: tuple[str | None, str | None]
    name: str


def read_foreign(path: Path, rows: Rows | None) -> tuple[str, list[Twins]]:
    """Pairs of a file or folder of another project, and of which kind they are.

    Args:
        path: The file, or the folder of ExcluIR.
        rows: Its rows; ``None`` for a folder.

    Raises:
        DocumentError: The layout is not known, or a row does not have it.
    """
    if rows is None:
        queries = path / _EXCLUIR_QUERIES
        if not queries.is_file():
            raise DocumentError(f"{path} is a folder without {_EXCLUIR_QUERIES}; name a file, or a folder of ExcluIR")
        return "exclusion", list(_excluir(queries, read_rows(_bytes(queries), str(queries))))
    columns = set(rows[0][1])
    if columns & {"ExcluQ", "RQ_rewrite"}:
        return "exclusion", list(_excluir(path, rows))
    for needed, kind, read in _LAYOUTS:
        if needed <= columns:
            return kind, list(read(rows))
    raise DocumentError(
        f"{path} has the columns {', '.join(sorted(columns)) or 'none'}, which is no layout of minimal pairs: NevIR "
        "has q1, q2, doc1, doc2; CondaQA question, doc1, doc2, label1, label2 or passage, question, label; "
        "ExcluIR RQ_rewrite, corpus_sub_index; FEVER-symmetric claim, evidence, label; ours id, kind, texts, queries"
    )


def read_rows(data: bytes, name: str) -> Rows:
    """Rows of a JSON list, JSON lines, CSV or TSV file, gzipped or not.

    Args:
        data: Content of the file.
        name: For messages.

    Raises:
        DocumentError: It is nothing of that, or has no row.
    """
    try:
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
        start = text.lstrip()[:1]
        if start == "[":
            rows = [(f"{name}[{number}]", row) for number, row in enumerate(json.loads(text))]
        elif start == "{":
            lines = enumerate(text.split("\n"), 1)
            rows = [(f"{name}:{number}", json.loads(line)) for number, line in lines if line.strip()]
        else:
            delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
            table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
            rows = [(f"{name}:{table.line_num}", row) for row in table]
    except (ValueError, csv.Error, OSError, EOFError, zlib.error, RecursionError) as error:
        raise DocumentError(f"{name} is neither JSON, JSON lines, CSV nor TSV in UTF-8: {error}") from error
    if not rows:
        raise DocumentError(f"{name} has no rows")
    for where, row in rows:
        if not isinstance(row, dict):
            raise DocumentError(f"{where} is a {type(row).__name__}, not an object")
        if None in row:
            raise DocumentError(f"{where} has more cells than the first line names")
    return rows


def _nevir(rows: Rows) -> Iterator[Twins]:
    for where, row in rows:
        texts, queries = [_text(where, row, "doc1"), _text(where, row, "doc2")], [row.get("q1"), row.get("q2")]
        if texts[0].strip() == texts[1].strip():
            raise DocumentError(f"{where}: doc1 and doc2 are equal")
        if not all(isinstance(query, str) and query.strip() for query in queries):
            raise DocumentError(f"{where}: q1 or q2 is empty")
        # Ids are the number of a passage and that of its edit.
        name = str(row.get("id") or where).partition("-")[0]
        yield Twins((texts[0], texts[1]), (str(queries[0]), str(queries[1])), name)


def _condaqa_contrasts(rows: Rows) -> Iterator[Twins]:
    answered = []
    for where, row in rows:
        question, labels = _text(where, row, "question"), (row.get("label1"), row.get("label2"))
        texts = (_text(where, row, "doc1"), _text(where, row, "doc2"))
        if labels in (("YES", "NO"), ("NO", "YES")):
            yes, no = texts if labels[0] == "YES" else texts[::-1]
            answered.append((str(row.get("passage_id", "")), question, yes, no))
    yield from _coupled(answered)


def _condaqa_passages(rows: Rows) -> Iterator[Twins]:
    """Edits of a passage of which one answers a question with yes and another with no."""
    passages: dict[tuple[str, str], dict[str, list[str]]] = {}
    topics: dict[tuple[str, str], str] = {}
    for where, row in rows:
        question = _text(where, row, "question" if "question" in row else "sentence2")
        passage = _text(where, row, "passage" if "passage" in row else "sentence1")
        topic = str(row.get("passage_id", row.get("PassageID", "")))
        label = str(row.get("label", ""))
        topics[topic, question] = topic
        passages.setdefault((topic, question), {}).setdefault(label, []).append(passage)
    yield from _coupled(
        [
            (topics[key], key[1], yes, no)
            for key, labels in passages.items()
            for yes in labels.get("YES", ())
            for no in labels.get("NO", ())
        ]
    )


def _fever(rows: Rows) -> Iterator[Twins]:
    evidence: dict[str, dict[str, list[str]]] = {}
    for where, row in rows:
        claim = _text(where, row, "claim")
        evidence.setdefault(claim, {}).setdefault(str(row.get("label")), []).append(_text(where, row, "evidence"))
    yield from _coupled(
        [
            ("", claim, yes, no)
            for claim, labels in evidence.items()
            for yes in labels.get("SUPPORTS", ())
            for no in labels.get("REFUTES", ())
        ]
    )


def _coupled(answered: Sequence[tuple[str, str, str, str]]) -> Iterator[Twins]:
    """Name, query, the text that answers it, the one that does not; opposite queries over two texts share a pair."""
    names: dict[tuple[str, str], str] = {}
    queries: dict[tuple[str, str], tuple[dict[str, None], dict[str, None]]] = {}
    for name, query, better, worse in answered:
        if better == worse:
            continue
        key = (better, worse) if better < worse else (worse, better)
        names.setdefault(key, name)
        queries.setdefault(key, ({}, {}))[key.index(better)][query] = None
    for texts, (first, second) in queries.items():
        for one, other in zip_longest(first, second):
            yield Twins(texts, (one, other), names[texts])


def _excluir(path: Path, rows: Rows) -> Iterator[Twins]:
    corpus_path = path.parent / _EXCLUIR_CORPUS
    if not corpus_path.is_file():
        raise DocumentError(f"{path} needs {_EXCLUIR_CORPUS} beside it, which is not there")
    try:
        corpus = json.loads(_bytes(corpus_path).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{corpus_path} is not JSON: {error}") from error
    if not isinstance(corpus, list) or not all(isinstance(text, str) for text in corpus):
        raise DocumentError(f"{corpus_path} is not a list of texts")
    for where, row in rows:
        query = _text(where, row, "RQ_rewrite" if "RQ_rewrite" in row else "ExcluQ")
        places = row.get("corpus_sub_index", row.get("index"))
        if (
            not isinstance(places, list)
            or len(places) != 2
            or not all(type(place) is int and 0 <= place < len(corpus) for place in places)
        ):
            raise DocumentError(f"{where}: {places!r} are not two places in the {len(corpus)} texts of {corpus_path}")
        excluded, wanted = (corpus[place] for place in places)
        yield Twins((wanted, excluded), (query, None), str(places))


def _text(where: str, row: Row, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DocumentError(f"{where}: {name} is {str(value)[:80]!r}, not a text")
    return value


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DocumentError(f"cannot read {path}: {error.strerror or error}") from error


_LAYOUTS: tuple[tuple[set[str], str, Callable[[Rows], Iterator[Twins]]], ...] = (
    ({"q1", "q2", "doc1", "doc2"}, "negation", _nevir),
    ({"question", "doc1", "doc2", "label1", "label2"}, "negation", _condaqa_contrasts),
    ({"passage", "question", "label"}, "negation", _condaqa_passages),
    ({"sentence1", "sentence2", "label"}, "negation", _condaqa_passages),
    ({"claim", "evidence", "label"}, "claim", _fever),
)
