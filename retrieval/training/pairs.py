"""Training pairs: reading them, holding some out, and making more from plain passages."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.errors import DocumentError

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(])|\n+")


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and a passage that answers it.

    Args:
        query: The query.
        positive: The passage.
        negatives: Passages that look alike and do not answer it.
        answer: The answer as a string of the passage, empty when unknown.
        source: Name of the collection.
        documents: Ids of the documents that answer it, empty when unknown; training never takes the positive of one
            pair as a negative of another pair with the same document.
    """

    query: str
    positive: str
    negatives: tuple[str, ...] = ()
    answer: str = ""
    source: str = ""
    documents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PairSettings:
    """Which rows of pair files are used.

    Args:
        files: Names without ``.jsonl.gz`` or ``.jsonl``; ``None`` takes every file of the folder.
        sources: For some files, the values of ``source`` that may be used; other files are taken whole.
        refused_stances: Rows whose ``stance`` is one of these (any case) contradict their query and are left out.
        dev_share: Part of the queries that is held out, chosen by a hash of the query.
    """

    files: tuple[str, ...] | None = None
    sources: Mapping[str, tuple[str, ...]] | None = None
    refused_stances: tuple[str, ...] = ("refutes", "refuted", "contradicts")
    dev_share: float = 0.02


def read_pairs(folder: str | Path, settings: PairSettings = PairSettings()) -> tuple[list[Pair], list[Pair]]:
    """Read the pair files of a folder.

    A line is a JSON object with ``query`` and ``positive``, and perhaps ``negatives`` (list), ``answer``, ``source``
    and ``stance``.

    Args:
        folder: Holds ``NAME.jsonl`` or ``NAME.jsonl.gz``.
        settings: Which rows are used.

    Returns:
        Pairs to train on and pairs that were held out, both in file order; ``Pair.source`` is the name of the file.

    Raises:
        DocumentError: A file is missing or a line is not such an object.
    """
    root = Path(folder)
    found = {_name_of(path): path for path in sorted(root.glob("*.jsonl*"))}
    names = tuple(found) if settings.files is None else settings.files
    training: list[Pair] = []
    held_out: list[Pair] = []
    for name in names:
        if name not in found:
            raise DocumentError(f"no pair file {name}.jsonl or {name}.jsonl.gz in {root}")
        for pair in _usable_pairs(name, found[name], settings):
            (held_out if is_held_out(pair.query, settings.dev_share) else training).append(pair)
    return training, held_out


def stream_pairs(path: str | Path, settings: PairSettings = PairSettings()) -> Iterator[Pair]:
    """The pairs of one file, held out ones too, as it is read.

    Args:
        path: ``NAME.jsonl`` or ``NAME.jsonl.gz``.
        settings: ``sources`` and ``refused_stances`` are used.

    Raises:
        DocumentError: The file cannot be read, or a line is not a pair; the message names file and line.
    """
    return _usable_pairs(_name_of(Path(path)), Path(path), settings)


def _name_of(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".jsonl")


def is_held_out(query: str, share: float) -> bool:
    """Whether a query belongs to the held-out ``share``; the same in every run and on every machine."""
    digest = hashlib.sha256(query.strip().lower().encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


def _usable_pairs(name: str, path: Path, settings: PairSettings) -> Iterator[Pair]:
    allowed = (settings.sources or {}).get(name)
    for number, row in _read_rows(path):
        if allowed is not None and row.get("source") not in allowed:
            continue
        if str(row.get("stance", "")).lower() in settings.refused_stances:
            continue
        try:
            pair = Pair(
                query=row["query"].strip(),
                positive=row["positive"].strip(),
                negatives=_texts(row, "negatives", f"{path}:{number}"),
                answer=str(row.get("answer") or "").strip(),
                source=name,
                documents=_texts(row, "documents", f"{path}:{number}"),
            )
        except (KeyError, AttributeError) as error:
            raise DocumentError(f"{path}:{number}: a pair needs the strings 'query' and 'positive'") from error
        if pair.query and pair.positive:
            yield pair


def _texts(row: Mapping[str, Any], key: str, place: str) -> tuple[str, ...]:
    value = row.get(key) or []
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise DocumentError(f"{place}: {key!r} is a list of strings")
    return tuple(value)


def _read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects with the numbers of their lines."""
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise DocumentError(f"{path}:{number}: a pair is a JSON object, not {type(row).__name__}")
                yield number, row
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{path}:{number}: not JSON: {error}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DocumentError(f"cannot read {path} behind line {number}: {error}") from error


def passages_of(pairs: Iterable[Pair]) -> list[str]:
    """Every different passage of the pairs, positives and negatives, in the order of their first appearance."""
    return list(dict.fromkeys(text for pair in pairs for text in (pair.positive, *pair.negatives)))


def split_sentences(text: str) -> list[str]:
    """Sentences and lines of a text, in order, without blank ones."""
    return [part for part in _SENTENCE_END.split(text) if part.strip()]
