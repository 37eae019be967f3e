"""Near-equal documents while they come in: the same words by a hash, nearly the same by a search of the index.

What has a negation, a number or a word in the place of another is no duplicate. A document that replaces its own older
version is kept in any case.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipelines.corpus_views.candidates import CANDIDATE_COSINE
from pipelines.corpus_views.overlap import Overlap, Wording, compare, mark_of
from pipelines.corpus_views.texts import joined
from retrieval.datatypes import FloatArray, IncomingDuplicate, Rejected, SearchRequest

if TYPE_CHECKING:
    from pipelines.document_writer import Pending
    from pipelines.tally import Tally
    from retrieval.protocols import Encoder, Store

Treatment = Literal["keep", "report", "skip"]

_PROBES = 3
_NEIGHBOURS = 8


class Incoming:
    """Sifts the documents of one run.

    Args:
        store: Open store.
        encoder: Static encoder of the index.
        tally: Told of what was found.
        skip: Leave duplicates out.
    """

    def __init__(self, store: Store, encoder: Encoder, tally: Tally, *, skip: bool) -> None:
        self._store = store
        self._encoder = encoder
        self._tally = tally
        self._skip = skip
        self._marks: dict[bytes, str] = {}

    def sift(self, pending: Sequence[Pending]) -> list[Pending]:
        """Report the duplicates among documents that are about to be written, or leave them out.

        Raises:
            StoreError: The store failed.
        """
        if not pending:
            return []
        candidates = self._candidates(pending)
        texts = self._texts({key for keys in candidates for key in keys} - {item.document.key for item in pending})
        wordings = {key: (name, Wording.of(text)) for key, (name, text) in texts.items()}
        kept = []
        for item, keys in zip(pending, candidates, strict=True):
            document = item.document
            own, mark = Wording.of(document.text), mark_of(document.text)
            known = [wordings[key] for key in sorted(keys) if key in wordings and key != document.key]
            found = self._found(mark, own, known)
            skipped = found is not None and self._skip and not item.replaces
            if found is not None:
                self._tell(item, *found, skipped=skipped)
            if not skipped:
                kept.append(item)
                self._marks.setdefault(mark, document.id)
                wordings[document.key] = (document.id, own)
        return kept

    def _found(self, mark: bytes, own: Wording, known: Sequence[tuple[str, Wording]]) -> tuple[str, Overlap] | None:
        """The id of what is most like a text, if it is near-equal."""
        if mark in self._marks:
            return self._marks[mark], Overlap("exact", 1.0)
        best: tuple[str, Overlap] | None = None
        for name, other in known:
            overlap = compare(other, own)
            if overlap.kind in {"exact", "near"} and (best is None or overlap.share > best[1].share):
                best = name, overlap
        return best

    def _tell(self, item: Pending, of: str, overlap: Overlap, *, skipped: bool) -> None:
        name = item.document.source or item.document.id
        kind: Literal["exact", "near"] = "exact" if overlap.kind == "exact" else "near"
        self._tally.duplicate(IncomingDuplicate(name, of, kind, overlap.share, skipped))
        if skipped:
            like = "the same words as" if kind == "exact" else f"near-equal ({overlap.share:.0%} of word triples) to"
            self._tally.reject(Rejected(name, f"duplicate: {like} {of!r}"))

    def _candidates(self, pending: Sequence[Pending]) -> list[set[str]]:
        """For each document the keys of those that lie close: in the index, or earlier in the same batch."""
        probes = [(number, text) for number, item in enumerate(pending) for text in _probes(item)]
        owners = np.array([number for number, _ in probes])
        vectors = self._encoder.encode_documents([text for _, text in probes])
        close: list[set[str]] = [set() for _ in pending]
        for number, key in self._stored(owners, vectors):
            close[number].add(key)
        for one, other in np.argwhere(vectors @ vectors.T >= CANDIDATE_COSINE).tolist():
            if owners[other] < owners[one]:
                close[owners[one]].add(pending[owners[other]].document.key)
        return close

    def _stored(self, owners: Sequence[int] | FloatArray, vectors: FloatArray) -> list[tuple[int, str]]:
        rows = [row for row, vector in enumerate(vectors) if vector.any()]
        answers = self._store.search([SearchRequest(vectors[row], _NEIGHBOURS) for row in rows]) if rows else []
        near = [
            (int(owners[row]), point.id)
            for row, points in zip(rows, answers, strict=True)
            for point in points
            if point.score >= CANDIDATE_COSINE
        ]
        ids = list({name for _, name in near})
        keys = {point.id: str(point.payload["document"]) for point in self._store.get(ids, payload=["document"])}
        return [(number, keys[name]) for number, name in near if name in keys]

    def _texts(self, keys: set[str]) -> Mapping[str, tuple[str, str]]:
        """Ids and texts of stored documents by key."""
        if not keys:
            return {}
        pieces: dict[str, list[tuple[int, str]]] = defaultdict(list)
        names: dict[str, str] = {}
        where = {"must": [{"key": "document", "match": {"any": sorted(keys)}}]}
        for point in self._store.scan(where, payload=["document", "document_id", "start", "text"]):
            payload = point.payload
            pieces[payload["document"]].append((int(payload["start"]), str(payload["text"])))
            names[payload["document"]] = str(payload["document_id"])
        return {key: (names[key], joined(sorted(found))) for key, found in pieces.items()}


def _probes(item: Pending) -> list[str]:
    """The passages that look for their like: first, middle and last."""
    last = len(item.passages) - 1
    places = sorted({round(step * last / (_PROBES - 1)) for step in range(_PROBES)})
    return [item.passages[place].indexed_text for place in places]
