"""Training pairs and triplets from files.

A row has a query, a text that belongs to it, and perhaps texts that do not. Columns are known by their names:
``query``/``positive``/``negatives``, ``anchor``/``positive``/``negative``, ``question``/``answer``,
``sentence1``/``sentence2`` and more of the usual ones (`QUERY_COLUMNS` and so on), or by `RowSettings`.
Rows that cannot be used are reported with file, line and reason, and the stream goes on behind them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.datatypes import Rejected
from retrieval.errors import DocumentError
from retrieval.training.contrastive.row_files import Row, read_rows
from retrieval.training.pairs import Pair

OnRejected = Callable[[Rejected], None]

QUERY_COLUMNS = ("query", "anchor", "question", "sentence1", "sentence_a", "premise", "english", "text1")
POSITIVE_COLUMNS = (
    *("positive", "positives", "pos", "passage", "document", "context", "answer", "response"),
    *("sentence2", "sentence_b", "entailment", "hypothesis", "non_english", "text2"),
)
SCORE_COLUMNS = ("score", "similarity_score", "similarity", "label")

_NEGATIVE = re.compile(r"(hard_)?negatives?(_?\d+)?|neg|contradiction")
_CONTRADICTING = ("refutes", "refuted", "contradicts")
_SHOWN_COLUMNS = 30


@dataclass(frozen=True, slots=True)
class RowSettings:
    """How the rows of a file are read.

    Args:
        query: Column of the query; ``None`` looks for `QUERY_COLUMNS` in any case.
        positive: Column of the text that belongs to it, or of a list of such texts, each of which makes a pair;
            ``None`` looks for `POSITIVE_COLUMNS`.
        negatives: Columns of texts, or lists of texts, that do not belong to it; ``None`` takes ``negative``,
            ``negatives``, ``negative_1`` and the like, an empty tuple none.
        score: Column of a number that says how well the two fit; ``None`` looks for `SCORE_COLUMNS`.
        min_score: Pairs with a lower score are left out; ``None`` refuses files with scores, because pairs that do
            not fit would be trained as if they did.
        limit: Only the first so many usable pairs; ``None`` for all.
        max_characters: Longer texts are cut.
    """

    query: str | None = None
    positive: str | None = None
    negatives: tuple[str, ...] | None = None
    score: str | None = None
    min_score: float | None = None
    limit: int | None = None
    max_characters: int = 20_000


def read_training_pairs(
    path: str | Path, settings: RowSettings = RowSettings(), on_rejected: OnRejected = lambda rejected: None
) -> Iterator[Pair]:
    """Yield the pairs of one file as it is read; `Pair.source` is the name of the file without its extensions.

    Rows whose ``stance`` says that the text contradicts the query, and pairs below ``min_score``, are left out without
    a report.

    Args:
        path: The file; `retrieval.training.contrastive.row_files.EXTENSIONS` are known.
        settings: See `RowSettings`.
        on_rejected: Called with ``file:line`` and the reason for every row that cannot be used.

    Raises:
        DocumentError: The file is missing, damaged, empty or of an unknown format, lacks a column, or has scores and
            no ``min_score`` was given.
        MissingExtraError: A Parquet file, and pyarrow is not installed.
    """
    path = Path(path)

    def reject(number: int, reason: str) -> None:
        on_rejected(Rejected(f"{path}:{number}", reason))

    reader = _RowReader(path, settings)
    taken = 0
    for number, row in read_rows(path, reject):
        try:
            pairs = reader.pairs(row)
        except ValueError as error:
            reject(number, str(error))
            continue
        for pair in pairs:
            if settings.limit is not None and taken >= settings.limit:
                return
            taken += 1
            yield pair


def source_name(path: Path) -> str:
    """Name of a data set: that of its file without extensions."""
    return Path(path.name.removesuffix(".gz")).stem


@dataclass(frozen=True, slots=True)
class _Columns:
    query: str
    positive: str
    negatives: tuple[str, ...]
    score: str | None


class _RowReader:
    """Makes pairs of the rows of one file; JSON lines need not have the same fields in every line."""

    def __init__(self, path: Path, settings: RowSettings) -> None:
        self._path = path
        self._settings = settings
        self._name = source_name(path)
        self._columns: dict[tuple[str, ...], _Columns] = {}

    def pairs(self, row: Row) -> list[Pair]:
        """The pairs of a row; none when it is to be left out.

        Raises:
            ValueError: The row cannot be used.
            DocumentError: No row of the file can be used: a column is missing from the first one, or a score column
                was not expected.
        """
        columns = self._columns_of(tuple(row))
        if str(row.get("stance") or "").lower() in _CONTRADICTING or self._scores_low(row, columns):
            return []
        queries, positives = self._texts(row, columns.query), self._texts(row, columns.positive)
        for texts, name in ((queries, columns.query), (positives, columns.positive)):
            if not texts:
                raise ValueError(f"column {name!r} is empty")
        if len(queries) > 1:
            raise ValueError(f"column {columns.query!r} holds {len(queries)} texts, not one")
        if queries[0] in positives:
            raise ValueError(f"columns {columns.query!r} and {columns.positive!r} hold the same text")
        negatives = [text for name in columns.negatives for text in self._texts(row, name)]
        kept = tuple(text for text in dict.fromkeys(negatives) if text not in positives)
        return [Pair(queries[0], positive, kept, source=self._name) for positive in dict.fromkeys(positives)]

    def _texts(self, row: Row, column: str) -> list[str]:
        value = row.get(column)
        texts = []
        for item in value if isinstance(value, list | tuple) else [value]:
            if item is None or (isinstance(item, float) and math.isnan(item)):
                continue
            if not isinstance(item, str):
                raise ValueError(f"column {column!r} holds a {type(item).__name__}, not text")
            # Half of a surrogate pair, which JSON can carry and no tokenizer takes.
            text = item[: self._settings.max_characters].encode("utf-8", "replace").decode("utf-8").strip()
            if text:
                texts.append(text)
        return texts

    def _scores_low(self, row: Row, columns: _Columns) -> bool:
        least, column = self._settings.min_score, columns.score
        if column is None:
            return False
        score = _number(row.get(column))
        if least is None:
            if score is not None:
                raise DocumentError(
                    f"{self._path} has scores in column {column!r}; say from which score on a pair fits (min_score), "
                    "or pairs that do not fit would be trained as if they did"
                )
            return False
        if score is None:
            raise ValueError(f"column {column!r} holds {row.get(column)!r}, not a number")
        return score < least

    def _columns_of(self, names: tuple[str, ...]) -> _Columns:
        if names not in self._columns:
            if len(self._columns) >= 256:
                self._columns = dict([next(iter(self._columns.items()))])
            try:
                self._columns[names] = _find_columns(names, self._settings)
            except ValueError as error:
                if not self._columns:
                    raise DocumentError(f"{self._path}: {error}") from error
                raise
        return self._columns[names]


def _find_columns(names: tuple[str, ...], wanted: RowSettings) -> _Columns:
    for name, role in (
        *((name, "negatives") for name in wanted.negatives or ()),
        (wanted.query, "query"),
        (wanted.positive, "positive"),
        (wanted.score, "score"),
    ):
        if name is not None and name not in names:
            raise ValueError(f"no column {name!r} for the {role}; {_listed(names)}")
    query = wanted.query or _first(names, QUERY_COLUMNS)
    positive = wanted.positive or _first([name for name in names if name != query], POSITIVE_COLUMNS)
    for found, usual, role in ((query, QUERY_COLUMNS, "query"), (positive, POSITIVE_COLUMNS, "positive")):
        if found is None:
            raise ValueError(
                f"no column for the {role} (such as {', '.join(usual[:3])}): name it in the settings; {_listed(names)}"
            )
    assert query is not None
    assert positive is not None
    others = [name for name in names if name not in {query, positive}]
    negatives = wanted.negatives
    if negatives is None:
        negatives = tuple(name for name in others if _NEGATIVE.fullmatch(name.strip().lower()))
    return _Columns(query, positive, negatives, wanted.score or _first(others, SCORE_COLUMNS))


def _first(names: Sequence[str], usual: Sequence[str]) -> str | None:
    folded = {name.strip().lower(): name for name in reversed(names)}
    return next((folded[name] for name in usual if name in folded), None)


def _listed(names: Sequence[str]) -> str:
    return f"columns found: {', '.join(map(repr, names[:_SHOWN_COLUMNS])) or 'none'}"


def _number(value: Any) -> float | None:
    """A finite number, also one that a CSV holds as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
