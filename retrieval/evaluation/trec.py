"""Runs and judgements in the files of TREC, as trec_eval and the tools around it read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.errors import DocumentError
from retrieval.evaluation.collections import read_lines
from retrieval.evaluation.measures import Qrels, Run

_LARGEST = 1e38


@dataclass(frozen=True, slots=True)
class TrecRun:
    """What a file of results holds.

    Args:
        tag: Name that the file gives its system; empty where its lines do not agree on one.
        results: Document ids with scores for each query, best first.
    """

    tag: str
    results: Mapping[str, tuple[tuple[str, float], ...]]


def read_run(path: Path) -> TrecRun:
    """Read a run: query id, ``Q0``, document id, rank, score and tag on each line; ``.gz`` files as well.

    The score decides, and the rank among equal scores. trec_eval orders equal scores by document id instead, so a run
    with ties can come out a little different there.

    Args:
        path: The file; UTF-8.

    Raises:
        DocumentError: The file cannot be read or holds no result, a line is malformed, or a document appears twice
            for a query.
    """
    found: dict[str, dict[str, tuple[float, float]]] = {}
    tags = set()
    for number, line in enumerate(read_lines(path), start=1):
        columns = line.split()
        if not columns:
            continue
        if len(columns) != 6:
            raise DocumentError(
                f"{path}#{number} has {len(columns)} columns, not query id, Q0, document id, rank, score and tag"
            )
        query, _, document, rank, score, tag = columns
        results = found.setdefault(query, {})
        if document in results:
            raise DocumentError(f"{path}#{number}: document {document!r} appears twice for query {query!r}")
        results[document] = (-_number(path, number, "score", score), _number(path, number, "rank", rank))
        tags.add(tag)
    if not found:
        raise DocumentError(f"{path} holds no result")
    ranked = {
        query: tuple((document, -results[document][0]) for document in sorted(results, key=results.__getitem__))
        for query, results in found.items()
    }
    return TrecRun(tags.pop() if len(tags) == 1 else "", ranked)


def write_run(path: Path, run: Run, tag: str) -> None:
    """Write a run that trec_eval ranks as it stands.

    trec_eval keeps scores as 32-bit floats and orders equal ones by document id; a score that is not below the one
    before it is written as the next smaller such float.

    Args:
        path: The file; replaced when it exists.
        run: Results of each query, best first.
        tag: Name of the system; blanks become underscores.

    Raises:
        ValueError: An id is empty or holds a blank, which the format has no form for, or a score is not finite.
    """
    tag = "_".join(tag.split()) or "run"
    lines = []
    for query, results in run.items():
        _require_plain("query", query)
        last = np.float32(np.inf)
        for rank, (document, score) in enumerate(results, start=1):
            _require_plain("document", document)
            if not math.isfinite(score):
                raise ValueError(f"document {document!r} of query {query!r} has the score {score}, which is not finite")
            kept = np.float32(min(max(score, -_LARGEST), _LARGEST))
            last = min(kept, np.nextafter(last, np.float32(-np.inf)))
            lines.append(f"{query} Q0 {document} {rank} {last!s} {tag}\n")
    path.write_text("".join(lines), encoding="utf-8")


def write_qrels(path: Path, qrels: Qrels) -> None:
    """Write judgements in the four columns of TREC.

    Args:
        path: The file; replaced when it exists.
        qrels: Grades of documents by query.

    Raises:
        ValueError: An id is empty or holds a blank.
    """
    lines = []
    for query, grades in qrels.items():
        _require_plain("query", query)
        for document, grade in grades.items():
            _require_plain("document", document)
            lines.append(f"{query} 0 {document} {grade}\n")
    path.write_text("".join(lines), encoding="utf-8")


def _require_plain(kind: str, name: str) -> None:
    if name.split() != [name]:
        raise ValueError(f"{kind} id {name!r} cannot stand in a TREC file, where blanks separate columns; rename it")


def _number(path: Path, line: int, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DocumentError(f"{path}#{line}: {column} {text!r} is not a finite number")
    return value
