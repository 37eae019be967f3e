"""Which of the passages that could be read can be used, and which are missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.counts import Counts
from pipelines.deep.passages import ROUNDING
from pipelines.points import passage_from_payload, passage_id
from pipelines.progress import StepCallback
from pipelines.repair.reading import Kept, Reader
from retrieval.datatypes import Document, IndexManifest
from retrieval.protocols import Encoder

_PASSAGES_PER_BATCH = 512
_FURTHER = 1_000


@dataclass(slots=True)
class Taken:
    """What is known of the passages of a damaged index.

    Args:
        expected: Ids that the index had, where that is proven; ``None`` where it is not.
        counts: Of what can be used.
        ids: Ids of what can be used.
        doubtful: Ids of what was read from a damaged place; their text is that of their vector.
        disagreeing: Ids of which text and vector do not belong together, and nothing tells which of them is right.
        refused: Ids of which the text was read from a damaged place and is not that of their vector.
        documents: Content hash and highest position for each document.
        roots: Files and folders that the documents came from.
    """

    expected: frozenset[str] | None
    counts: Counts = field(default_factory=Counts)
    ids: set[str] = field(default_factory=set)
    doubtful: dict[str, str] = field(default_factory=dict)
    disagreeing: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    documents: dict[str, tuple[str, int]] = field(default_factory=dict)
    roots: set[Path] = field(default_factory=set)

    @property
    def missing(self) -> set[str]:
        """Ids that the index had and that cannot be used."""
        return set() if self.expected is None else set(self.expected - self.ids)

    def is_complete(self, manifest: IndexManifest) -> bool:
        """Whether this is what the manifest counts."""
        return (self.counts.passages, self.counts.ids_digest) == (manifest.passages, manifest.ids_digest)

    def incomplete(self) -> dict[str, set[str]]:
        """Missing ids by document, of documents of which another passage was read; see also `missing`."""
        left, found = self.missing, {}
        for key, (digest, highest) in self.documents.items() if left else ():
            last = highest + 1 + min(len(left), _FURTHER)
            own = {name for index in range(last) if (name := passage_id(key, digest, index)) in left}
            if own:
                found[key] = own
        return found

    def kept_of(self, key: str) -> int:
        """How many passages of a document can be used."""
        digest, highest = self.documents[key]
        return sum(passage_id(key, digest, index) in self.ids for index in range(highest + 1))


def expected_ids(ids: Set[str], manifest: IndexManifest | None) -> frozenset[str] | None:
    """Ids from the trackers of the engine, where the manifest proves them."""
    if manifest is None or manifest.state != "ready":
        return None
    counts = Counts()
    for point_id in ids:
        counts.add(point_id, {"index": 1, "terms": 0})
    proven = (counts.passages, counts.ids_digest) == (manifest.passages, manifest.ids_digest)
    return frozenset(ids) if proven else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What texts are compared with.

    Args:
        encoder: The encoder of the stored vectors; ``None`` where it is gone, which leaves texts uncompared.
        digest: Content hash of a document, as the ingest makes it.
        sealed: Whether there is a seal, so that what is not proven lies in a damaged place.
        tell: Called while reading.
    """

    encoder: Encoder | None
    digest: Callable[[Document], str]
    sealed: bool
    tell: StepCallback


def take(read: Reader, taken: Taken, comparison: Comparison, only: Set[str] | None) -> None:
    """Read all passages once and note which can be used.

    Args:
        read: Reads them.
        taken: Takes the notes.
        comparison: What they are compared with.
        only: Ids that count; ``None`` for all.
    """
    for batch in _batches(read(), taken.ids, only):
        for kept, agrees in zip(batch, _agree(batch, comparison.encoder), strict=True):
            _note(taken, kept, agrees, comparison)
        comparison.tell("reading texts", taken.counts.passages, 0)


def _note(taken: Taken, kept: Kept, agrees: bool | None, comparison: Comparison) -> None:
    key, payload = str(kept.payload["document"]), kept.payload
    digest, highest = taken.documents.get(key, (payload["hash"], 0))
    taken.documents[key] = (digest, max(highest, int(payload["index"])))
    taken.roots.add(_root(str(payload["source"]), str(payload["document_id"])))
    if not kept.proven and not _has_its_hash(payload, comparison.digest):
        if kept.id in taken.refused:
            return
        if agrees is False and comparison.sealed:  # the place is damaged, and the vector belongs to another text
            taken.refused.add(kept.id)
            return
        if agrees is False:
            taken.disagreeing[kept.id] = key
        elif comparison.sealed:
            taken.doubtful[kept.id] = key
    taken.ids.add(kept.id)
    taken.counts.add(kept.id, payload)


def _has_its_hash(payload: Mapping[str, Any], digest: Callable[[Document], str]) -> bool:
    """Whether a passage that may be a whole document has the content hash of that document, so that all of it is right.

    What follows the last passage of a file is not known; it is nothing or the end of a line.
    """
    if payload["start"]:
        return False
    for end in ("", "\n"):
        whole = Document(
            id=payload["document_id"],
            text=payload["text"] + end,
            title=payload["title"],
            metadata=payload.get("metadata", {}),
            source=payload["source"],
        )
        if digest(whole) == payload["hash"]:
            return True
    return False


def _agree(batch: list[Kept], encoder: Encoder | None) -> list[bool | None]:
    """Whether each text has the vector that is stored for it; ``None`` where that is not known, or need not be."""
    compared = [kept for kept in batch if not kept.proven and kept.dense is not None]
    if encoder is None or not compared:
        return [None] * len(batch)
    rows = iter(encoder.encode_documents([passage_from_payload(kept.payload).indexed_text for kept in compared]))
    wanted = {id(kept) for kept in compared}
    return [
        bool(np.allclose(kept.dense, next(rows), rtol=0.0, atol=ROUNDING))
        if id(kept) in wanted and kept.dense is not None
        else None
        for kept in batch
    ]


def _batches(stream: Iterator[Kept], known: Set[str], only: Set[str] | None) -> Iterator[list[Kept]]:
    seen: set[str] = set()
    fresh = (kept for kept in stream if kept.id not in known and (only is None or kept.id in only))
    while batch := list(islice(fresh, _PASSAGES_PER_BATCH)):
        single = {kept.id: kept for kept in batch if kept.id not in seen}
        seen |= single.keys()
        yield list(single.values())


def _root(source: str, document_id: str) -> Path:
    """What was ingested, as far as a document tells: the folder that its id is a path below, or its file."""
    file, mark, _ = source.rpartition("#")
    if mark:
        return Path(file)
    if source.endswith(document_id) and len(source) > len(document_id):
        return Path(source[: -len(document_id)])
    return Path(source)
