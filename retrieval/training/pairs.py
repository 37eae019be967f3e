"""Training pairs: reading them, holding some out, and making more from plain passages."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    """

    query: str
    positive: str
    negatives: tuple[str, ...] = ()
    answer: str = ""
    source: str = ""


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
    found = {path.name.removesuffix(".gz").removesuffix(".jsonl"): path for path in sorted(root.glob("*.jsonl*"))}
    names = tuple(found) if settings.files is None else settings.files
    training: list[Pair] = []
    held_out: list[Pair] = []
    for name in names:
        if name not in found:
            raise DocumentError(f"no pair file {name}.jsonl or {name}.jsonl.gz in {root}")
        for pair in _usable_pairs(name, found[name], settings):
            (held_out if is_held_out(pair.query, settings.dev_share) else training).append(pair)
    return training, held_out


def is_held_out(query: str, share: float) -> bool:
    """Whether a query belongs to the held-out ``share``; the same in every run and on every machine."""
    digest = hashlib.sha256(query.strip().lower().encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


def _usable_pairs(name: str, path: Path, settings: PairSettings) -> Iterator[Pair]:
    allowed = (settings.sources or {}).get(name)
    for number, row in enumerate(_read_rows(path), 1):
        if allowed is not None and row.get("source") not in allowed:
            continue
        if str(row.get("stance", "")).lower() in settings.refused_stances:
            continue
        try:
            pair = Pair(
                query=row["query"].strip(),
                positive=row["positive"].strip(),
                negatives=tuple(row.get("negatives") or ()),
                answer=str(row.get("answer") or "").strip(),
                source=name,
            )
        except (KeyError, AttributeError) as error:
            raise DocumentError(f"{path}:{number}: a pair needs the strings 'query' and 'positive'") from error
        if pair.query and pair.positive:
            yield pair


def _read_rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DocumentError(f"{path}:{number}: not JSON: {error}") from error
            if not isinstance(row, dict):
                raise DocumentError(f"{path}:{number}: a pair is a JSON object, not {type(row).__name__}")
            yield row


def passages_of(pairs: Iterable[Pair]) -> list[str]:
    """Every different passage of the pairs, positives and negatives, in the order of their first appearance."""
    return list(dict.fromkeys(text for pair in pairs for text in (pair.positive, *pair.negatives)))


def sentence_pairs(passages: Sequence[str], *, per_passage: int = 1, seed: int = 0) -> list[Pair]:
    """Pairs without labels: a sentence as the query, the rest of its passage as the positive.

    Passages with fewer than two sentences of 4 to 40 words give none.

    Args:
        passages: Plain passages.
        per_passage: How many sentences of each are used at most.
        seed: Chooses the sentences.

    Source:
        Inverse cloze task, https://arxiv.org/abs/1906.00300
    """
    generator = random.Random(seed)
    pairs: list[Pair] = []
    for passage in passages:
        sentences = [part for part in _SENTENCE_END.split(passage) if part.strip()]
        usable = [index for index, text in enumerate(sentences) if 4 <= len(text.split()) <= 40]
        if len(sentences) < 2:
            continue
        for chosen in generator.sample(usable, min(per_passage, len(usable))):
            rest = " ".join(sentences[:chosen] + sentences[chosen + 1 :])
            pairs.append(Pair(sentences[chosen], rest, source="sentences"))
    return pairs
