"""Suites of minimal pairs: two nearly equal texts, and queries that only one of the two answers.

The suite of this project is ``data/negation.jsonl``. It is a test set: no model is trained, tuned or chosen on it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from retrieval.errors import DocumentError
from retrieval.evaluation.foreign_pairs import Rows, Twins, read_foreign, read_rows

BUNDLED = {"negation": "negation.jsonl"}
"""Suites in the package."""


@dataclass(frozen=True, slots=True)
class MinimalPair:
    """Two texts that differ in a minimal edit.

    Args:
        id: Unique in its suite.
        kind: What the edit is about: ``negation``, ``exclusion``, ``role``, ``quantity``, ``temporal``, or another.
        texts: The two texts.
        queries: The first is answered by the first text and not by the second, the second the other way round; ``None``
            where the suite has no query for a text.
        negated: Whether the words of each query negate or exclude something; ``None`` where nobody has said it.
        domain: What the texts are about.
        topic: Pairs with the same topic share texts; intervals are drawn over topics.
    """

    id: str
    kind: str
    texts: tuple[str, str]
    queries: tuple[str | None, str | None]
    negated: tuple[bool, bool] | None = None
    domain: str = ""
    topic: str = ""


@dataclass(frozen=True, slots=True)
class Suite:
    """Minimal pairs that are measured together.

    Args:
        name: Name of a suite of the package, or of the file.
        pairs: At least one; ids differ.
    """

    name: str
    pairs: tuple[MinimalPair, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds in the order in which they appear."""
        return tuple(dict.fromkeys(pair.kind for pair in self.pairs))

    @property
    def queries(self) -> tuple[tuple[MinimalPair, int], ...]:
        """All queries: a pair and the number of the query in it."""
        return tuple((pair, side) for pair in self.pairs for side in (0, 1) if pair.queries[side] is not None)

    @property
    def digest(self) -> str:
        """First 12 hex digits of a SHA-256 over queries and texts."""
        content = [[pair.id, pair.kind, pair.texts, pair.queries] for pair in self.pairs]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]

    def first(self, count: int) -> Suite:
        """The first so many pairs of each kind."""
        seen: dict[str, int] = {}
        chosen = []
        for pair in self.pairs:
            seen[pair.kind] = seen.get(pair.kind, 0) + 1
            if seen[pair.kind] <= count:
                chosen.append(pair)
        return replace(self, pairs=tuple(chosen))


def open_suite(name: str | Path) -> Suite:
    """Open a suite of the package or of a file; the layout of a file is found out from its columns.

    Layouts: that of this project (``texts`` and ``queries``, as in ``data/negation.jsonl``), NevIR (``q1``, ``q2``,
    ``doc1``, ``doc2``), ExcluIR (a folder with ``corpus.json``, or the file with the queries beside it), CondaQA
    (passages with questions and labels, or ``doc1``, ``doc2`` with two labels), and FEVER-symmetric (``claim``,
    ``evidence``, ``label``). Files are JSON, JSON lines, CSV or TSV, in UTF-8, gzipped or not.

    Args:
        name: ``negation`` for the suite of the package, else a path.

    Raises:
        DocumentError: The file is missing, malformed, or of no known layout.
    """
    if isinstance(name, str) and name in BUNDLED:
        with files(__package__).joinpath("data", BUNDLED[name]).open("rb") as file:
            rows = read_rows(file.read(), f"the suite {name!r}")
        return Suite(name, _checked(_own_pairs(rows), name))
    path = Path(name)
    if not path.exists():
        raise DocumentError(f"there is no suite {str(name)!r}: neither a file nor one of {', '.join(BUNDLED)}")
    if path.is_dir():
        pairs = _of_twins(*read_foreign(path, None))
    else:
        try:
            rows = read_rows(path.read_bytes(), str(path))
        except OSError as error:
            raise DocumentError(f"cannot read the suite {path}: {error.strerror or error}") from error
        pairs = _own_pairs(rows) if _is_own(rows) else _of_twins(*read_foreign(path, rows))
    return Suite(path.name, _checked(pairs, str(path)))


def _is_own(rows: Rows) -> bool:
    return "suite" in rows[0][1] or {"texts", "queries"} <= rows[0][1].keys()


def _own_pairs(rows: Rows) -> Iterator[MinimalPair]:
    for where, row in rows:
        if "suite" in row and "texts" not in row:
            continue
        yield MinimalPair(
            id=_string(where, row, "id"),
            kind=_string(where, row, "kind"),
            texts=_two_strings(where, row, "texts"),
            queries=_two_strings(where, row, "queries"),
            negated=_two_flags(where, row),
            domain=str(row.get("domain", "")),
            topic=str(row.get("topic", "")) or _string(where, row, "id"),
        )


def _of_twins(kind: str, twins: Sequence[Twins]) -> Iterator[MinimalPair]:
    for number, pair in enumerate(twins, 1):
        yield MinimalPair(f"{pair.name or kind}-{number}", kind, pair.texts, pair.queries, topic=pair.name)


def _checked(pairs: Iterator[MinimalPair], name: str) -> tuple[MinimalPair, ...]:
    known: dict[str, MinimalPair] = {}
    for pair in pairs:
        if pair.id in known:
            raise DocumentError(f"{name}: the id {pair.id!r} appears twice")
        texts = [text.strip() for text in pair.texts]
        if not all(texts) or texts[0] == texts[1]:
            raise DocumentError(f"{name}: the texts of {pair.id!r} are empty or equal")
        if any(query is not None and not query.strip() for query in pair.queries) or pair.queries == (None, None):
            raise DocumentError(f"{name}: {pair.id!r} has an empty query or none")
        known[pair.id] = pair if pair.topic else replace(pair, topic=pair.id)
    if not known:
        raise DocumentError(f"{name} holds no pair of texts of which one answers a query and the other does not")
    return tuple(known.values())


def _string(where: str, row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value:
        raise DocumentError(f"{where}: {name} is {value!r}, not a text")
    return value


def _two_strings(where: str, row: Mapping[str, Any], name: str) -> tuple[str, str]:
    value = row.get(name)
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(part, str) for part in value):
        raise DocumentError(f"{where}: {name} is a list of two texts, not {str(value)[:80]!r}")
    return value[0], value[1]


def _two_flags(where: str, row: Mapping[str, Any]) -> tuple[bool, bool] | None:
    value = row.get("negated")
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(part, bool) for part in value):
        raise DocumentError(f"{where}: negated is a list of two of true and false, not {str(value)[:80]!r}")
    return value[0], value[1]
