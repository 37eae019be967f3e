"""Pairs of documents or passages that lie close in the index and are worth comparing word for word."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import TYPE_CHECKING, Literal

from retrieval.datatypes import Filter, SearchRequest

if TYPE_CHECKING:
    from pipelines.progress import StepCallback
    from retrieval.protocols import Store

Of = Literal["document", "passage"]
Within = Literal["corpus", "document"]

CANDIDATE_COSINE = 0.8
"""Only passages whose vectors are at least so close are compared word for word."""

# A list that ends while its members are still close is asked for again, longer.
_NEIGHBOURS = (20, 160, 1280)
_SEARCHES_AT_ONCE = 256
# A document may hold more than its copy, but of the smaller of two near-equal ones most passages have their like.
_LEAST_PART = 0.3
# Passages that more documents have word for word are boilerplate; they alone make no document a copy.
_MOST_OWNERS = 50


@dataclass(frozen=True, slots=True)
class Place:
    """A passage of the index.

    Args:
        id: Its id.
        document: Key of its document.
        index: Its position there.
        mark: The same for passages of the same words.
    """

    id: str
    document: str
    index: int
    mark: bytes


def candidates(
    store: Store,
    where: Filter | None,
    units: Sequence[Sequence[Place]],
    of: Of,
    within: Within,
    on_progress: StepCallback,
) -> list[tuple[str, str]]:
    """Pairs of units whose passages lie close, each pair once, the earlier unit first.

    Args:
        store: Open store.
        where: Filter on what is compared.
        units: Documents, each with its passages, or passages alone; no two have the same words.
        of: Which of both.
        within: ``document`` for pairs of the same document.
        on_progress: Called after every batch of searches.
    """
    places = {place.id: place for unit in units for place in unit}
    order: dict[str, int] = {}
    sizes: dict[str, int] = defaultdict(int)
    names = {place.id: place.document if of == "document" else place.id for place in places.values()}
    for name in names.values():
        order.setdefault(name, len(order))
        sizes[name] += 1
    matched: dict[tuple[str, str], set[str]] = defaultdict(set)
    for one, other in _close(store, where, places, of, within, on_progress):
        if names[one] == names[other]:
            continue
        first, second = sorted((one, other), key=lambda place: order[names[place]])
        pair = names[first], names[second]
        matched[pair].add(first if sizes[pair[0]] <= sizes[pair[1]] else second)
    enough = [pair for pair, found in matched.items() if len(found) >= _LEAST_PART * min(map(sizes.__getitem__, pair))]
    return sorted(enough, key=lambda pair: (order[pair[0]], order[pair[1]]))


def _close(
    store: Store, where: Filter | None, places: Mapping[str, Place], of: Of, within: Within, on_progress: StepCallback
) -> Iterator[tuple[str, str]]:
    """Pairs of passages that lie close, perhaps both ways round."""
    if of == "document":
        yield from _equal_passages(places.values())
    points = (
        point
        for point in store.scan(where, payload=False, vectors=["dense"])
        if point.dense is not None and point.id in places
    )
    done = 0
    while batch := list(islice(points, _SEARCHES_AT_ONCE)):
        asked = {point.id: (point.dense, _inside(where, places[point.id].document, within)) for point in batch}
        for limit in _NEIGHBOURS:
            requests = [SearchRequest(vector, limit, inside) for vector, inside in asked.values() if vector is not None]
            answers = dict(zip(list(asked), store.search(requests) if requests else [], strict=True))
            for name, found in answers.items():
                if len(found) == limit and found[-1].score >= CANDIDATE_COSINE and limit != _NEIGHBOURS[-1]:
                    continue
                del asked[name]
                for near in found:
                    if near.score >= CANDIDATE_COSINE and near.id != name and near.id in places:
                        yield name, near.id
        done += len(batch)
        on_progress("asking for neighbours", done, len(places))


def _equal_passages(places: Iterable[Place]) -> Iterator[tuple[str, str]]:
    """Pairs of passages of the same words, of which the neighbours of a vector might show only some."""
    equal: dict[bytes, list[str]] = defaultdict(list)
    for place in places:
        equal[place.mark].append(place.id)
    for ids in equal.values():
        if 1 < len(ids) <= _MOST_OWNERS:
            yield from combinations(ids, 2)


def _inside(where: Filter | None, document: str, within: Within) -> Filter | None:
    if within == "corpus":
        return where
    same = {"key": "document", "match": {"value": document}}
    return {"must": [same]} if not where else {"must": [where, same]}
