"""Near-equal documents or passages of an index: the index proposes by vectors, the words decide.

Every passage asks the index for its nearest ones, so that the work grows with the number of searches and not with all
pairs. What comes close is compared word for word (`overlap.compare`); what has a negation, a number
or a word in the place of another is told apart and never put into a group.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipelines.corpus_views.candidates import Of, Place, Within, candidates
from pipelines.corpus_views.grouping import Judged, group_pairs
from pipelines.corpus_views.overlap import Overlap, Wording, check_threshold, compare, mark_of
from pipelines.corpus_views.texts import joined
from retrieval.datatypes import Filter

if TYPE_CHECKING:
    from pipelines.progress import StepCallback
    from retrieval.protocols import Store

_SHOWN_TEXT = 240
_TEXTS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class DuplicateMember:
    """A document or passage that is near-equal to another one.

    Args:
        document_id: Id of the document.
        source: Where it came from.
        title: Its title.
        index: Position of the passage in the document; ``None`` for a whole document.
        text: How it begins.
        kind: ``exact`` or ``near`` as compared with the one that is kept, which is ``exact`` itself; ``altered`` in a
            pair that says something else.
        share: Word triples shared with the one that is kept, 0 to 1.
        only_here: Words that the one that is kept does not have, a few of them.
        only_kept: Words that only the one that is kept has, a few of them.
        turning: What makes it say something else: negations, numbers, exchanged words.
    """

    document_id: str
    source: str
    title: str
    index: int | None
    text: str
    kind: Literal["exact", "near", "altered"]
    share: float
    only_here: tuple[str, ...] = ()
    only_kept: tuple[str, ...] = ()
    turning: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Documents or passages that are near-equal to the first of them.

    Args:
        kept: The one that the others were compared with: the first by source or id, and position.
        others: The others, most alike first.
    """

    kept: DuplicateMember
    others: tuple[DuplicateMember, ...]


@dataclass(frozen=True, slots=True)
class DuplicatesReport:
    """What was found.

    Args:
        of: Whether documents or passages were compared.
        within: Whether passages were compared with all others, or with those of their own document.
        threshold: Shared word triples from which two are near-equal.
        compared: How many documents or passages there are.
        groups: Groups of near-equal ones, largest first.
        altered: Pairs that are near-equal but for a negation, a number or exchanged words, in no group on that ground.
        duplicates: How many could go: members of groups without the one that is kept.
        checked: Pairs that were compared word for word.
        seconds: Time it took.
    """

    of: Of
    within: Within
    threshold: float
    compared: int
    groups: tuple[DuplicateGroup, ...]
    altered: tuple[DuplicateGroup, ...]
    duplicates: int
    checked: int
    seconds: float


class Duplicates:
    """One search for duplicates over an open store.

    Args:
        store: Open store.
        where: Filter on what is compared.
        on_progress: Called with what is under way, how much of it is done, and of how much.
    """

    def __init__(self, store: Store, where: Filter | None = None, on_progress: StepCallback | None = None) -> None:
        self._store = store
        self._where = where
        self._tell = on_progress or (lambda stage, done, total: None)
        self._units: dict[str, list[Place]] = {}
        self._wordings: dict[str, Wording] = {}
        self._heads: dict[str, Mapping[str, object]] = {}

    def run(self, of: Of = "document", within: Within = "corpus", threshold: float | None = None) -> DuplicatesReport:
        """Find them.

        Args:
            of: Compare whole documents, or single passages.
            within: ``document`` compares passages only with those of the same document.
            threshold: Shared word triples from which two are near-equal; ``None`` for `DEFAULT_THRESHOLD`.

        Raises:
            ValueError: An argument is out of range.
            StoreError: The store failed or the filter is not usable.
        """
        if of not in {"document", "passage"} or within not in {"corpus", "document"}:
            raise ValueError(f"of is 'document' or 'passage', within 'corpus' or 'document', not {of!r} and {within!r}")
        if of == "document" and within == "document":
            raise ValueError("within 'document' compares passages: say of='passage'")
        limit = check_threshold(threshold)
        started = time.perf_counter()
        self._units = _units(self._places(), of)
        firsts = _firsts(self._units, within)
        equal = [(first, name) for name, first in firsts.items() if first != name]
        unlike = [self._units[name] for name, first in firsts.items() if first == name]
        judged = self._judged(candidates(self._store, self._where, unlike, of, within, self._tell), limit)
        groups = group_pairs(list(self._units), equal, judged, lambda one, other: self._compare(one, other, limit))
        altered = [(pair, overlap) for pair, overlap in judged.items() if overlap.kind == "altered"]
        shown = {name for kept, others in groups.items() for name in (kept, *(name for name, _ in others))}
        self._load_heads(shown | {name for pair, _ in altered for name in pair})
        return DuplicatesReport(
            of=of,
            within=within,
            threshold=limit,
            compared=len(self._units),
            groups=tuple(self._group(kept, others, of) for kept, others in _ordered(groups)),
            altered=tuple(self._group(pair[0], [(pair[1], overlap)], of) for pair, overlap in altered),
            duplicates=sum(map(len, groups.values())),
            checked=len(judged),
            seconds=time.perf_counter() - started,
        )

    def _places(self) -> list[Place]:
        total = self._store.count(self._where)
        places = []
        for point in self._store.scan(self._where, payload=["document", "index", "text"]):
            values = point.payload
            places.append(Place(point.id, str(values["document"]), int(values["index"]), mark_of(values["text"])))
            if len(places) % 1000 == 0:
                self._tell("reading", len(places), total)
        return sorted(places, key=lambda place: (place.document, place.index))

    def _judged(self, pairs: Sequence[tuple[str, str]], threshold: float) -> Judged:
        """Compare pairs word for word, a few hundred texts in memory at a time."""
        judged = {}
        for start in range(0, len(pairs), _TEXTS_AT_ONCE):
            some = pairs[start : start + _TEXTS_AT_ONCE]
            self._load({name for pair in some for name in pair})
            for one, other in some:
                judged[one, other] = self._compare(one, other, threshold)
            self._tell("comparing words", start + len(some), len(pairs))
        return judged

    def _compare(self, one: str, other: str, threshold: float) -> Overlap:
        self._load({one, other} - self._wordings.keys())
        return compare(self._wordings[one], self._wordings[other], threshold)

    def _load(self, names: set[str]) -> None:
        missing = names - self._wordings.keys()
        if len(self._wordings) + len(missing) > 4 * _TEXTS_AT_ONCE:
            self._wordings, missing = {}, names
        ids = [place.id for name in missing for place in self._units[name]]
        texts = {
            point.id: (int(point.payload["start"]), str(point.payload["text"]))
            for point in self._store.get(ids, payload=["start", "text"])
        }
        for name in missing:
            self._wordings[name] = Wording.of(
                joined(texts[place.id] for place in self._units[name] if place.id in texts)
            )

    def _load_heads(self, names: set[str]) -> None:
        first = {self._units[name][0].id: name for name in names}
        for point in self._store.get(list(first)):
            self._heads[first[point.id]] = point.payload

    def _group(self, kept: str, others: Sequence[tuple[str, Overlap]], of: Of) -> DuplicateGroup:
        return DuplicateGroup(
            self._member(kept, Overlap("exact", 1.0), of),
            tuple(
                self._member(name, overlap, of)
                for name, overlap in sorted(others, key=lambda one: (-one[1].share, self._units[one[0]][0].document))
            ),
        )

    def _member(self, name: str, overlap: Overlap, of: Of) -> DuplicateMember:
        head = self._heads.get(name, {})
        text = " ".join(str(head.get("text", "")).split())
        return DuplicateMember(
            document_id=str(head.get("document_id", name)),
            source=str(head.get("source", "")),
            title=str(head.get("title", "")),
            index=self._units[name][0].index if of == "passage" else None,
            text=text if len(text) <= _SHOWN_TEXT else f"{text[:_SHOWN_TEXT]}…",
            kind="near" if overlap.kind == "different" else overlap.kind,
            share=overlap.share,
            only_here=overlap.only_second,
            only_kept=overlap.only_first,
            turning=overlap.turning,
        )


def _units(places: Sequence[Place], of: Of) -> dict[str, list[Place]]:
    units: dict[str, list[Place]] = {}
    for place in places:
        units.setdefault(place.document if of == "document" else place.id, []).append(place)
    return units


def _firsts(units: Mapping[str, Sequence[Place]], within: Within) -> dict[str, str]:
    """For each unit the first one of the same words, often itself."""
    known: dict[tuple[object, ...], str] = {}
    firsts = {}
    for name, unit in units.items():
        mark = (unit[0].document if within == "document" else None, *(place.mark for place in unit))
        firsts[name] = known.setdefault(mark, name)
    return firsts


def _ordered(groups: Mapping[str, Sequence[tuple[str, Overlap]]]) -> list[tuple[str, Sequence[tuple[str, Overlap]]]]:
    return sorted(groups.items(), key=lambda group: -len(group[1]))
