"""Candidates that differ only by polarity: which of them have to be read, and whether their order is settled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.hits import Fetched, Outcome
from retrieval.datatypes import Hit
from retrieval.polarity import Variant, asks_for_numbers, polarity_twins

_NAMED = 3


@dataclass(frozen=True, slots=True)
class Twins:
    """The twins among the candidates of one query whose payloads are loaded.

    Args:
        variants: Of each candidate, by id; candidates without twins are left out.
        groups: Positions of the candidates of each group.
    """

    variants: Mapping[str, Variant]
    groups: tuple[tuple[int, ...], ...]

    @classmethod
    def among(cls, query: str, found: Fetched) -> Twins:
        """Find them; numbers make a difference only where the query asks for one."""
        texts = [str(payload["text"]) for payload in found.payloads]
        variants = polarity_twins(texts, numbers=asks_for_numbers(query))
        groups: dict[int, list[int]] = defaultdict(list)
        by_id: dict[str, Variant] = {}
        for position, (name, variant) in enumerate(zip(found.candidates.ids, variants, strict=False)):
            if variant is not None:
                groups[variant.group].append(position)
                by_id[name] = variant
        return cls(by_id, tuple(tuple(group) for group in groups.values()))

    def to_read(self, depth: int) -> list[int]:
        """Positions beyond ``depth`` that have a twin before it."""
        return sorted(at for group in self.groups if min(group) < depth for at in group if at >= depth)


def unsettled(
    twins: Twins, found: Fetched, outcomes: Mapping[str, Outcome], hits: Sequence[Hit], margin: float
) -> tuple[str, ...]:
    """A sentence where the order of hits and their twins is not settled; empty where it is.

    Args:
        twins: Twins among the candidates.
        found: Candidates with payloads.
        outcomes: What became of each candidate, by id.
        hits: What is shown.
        margin: Distance of two logits from which on their order is settled.
    """
    if not twins.variants:
        return ()
    shown = {hit.passage_id: hit for hit in hits}
    read_text = _read_texts(found, outcomes)
    document = {
        name: str(payload["document"]) for name, payload in zip(found.candidates.ids, found.payloads, strict=False)
    }
    close: list[str] = []
    unread: list[str] = []
    for hit in hits:
        variant = twins.variants.get(hit.passage_id)
        for name, other in twins.variants.items() if variant is not None else ():
            if variant is None or other.group != variant.group or other.wording == variant.wording:
                continue
            if document[name] == document[hit.passage_id] or (name in shown and shown[name].rank < hit.rank):
                continue
            pair = f"{hit.rank} and {_named(shown.get(name), found, name)}"
            first, second = outcomes[hit.passage_id].logit, outcomes[name].logit
            if first is None or second is None:
                unread.append(pair)
            elif abs(first - second) < margin and read_text[hit.passage_id] != read_text[name]:
                close.append(f"{pair} (logits {first:.2f} and {second:.2f})")
    what = "differ only by a negation, an opposite, a quantity or the order of their words"
    sentences = []
    if close:
        sentences.append(
            f"order not settled: hits {_some(close)} {what}, and the cross-encoder hardly tells them apart"
        )
    if unread:
        sentences.append(f"order not settled: hits {_some(unread)} {what}, and the cross-encoder did not read them all")
    return tuple(sentences)


def _read_texts(found: Fetched, outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    texts = {}
    for name, payload in zip(found.candidates.ids, found.payloads, strict=False):
        start, end = outcomes[name].read or (0, 0)
        texts[name] = str(payload["text"])[start:end]
    return texts


def _named(hit: Hit | None, found: Fetched, name: str) -> str:
    if hit is not None:
        return str(hit.rank)
    return f"{found.payloads[found.candidates.ids.index(name)]['document_id']!r}, which is not shown"


def _some(pairs: Sequence[str]) -> str:
    more = len(pairs) - _NAMED
    return "; ".join(pairs[:_NAMED]) + (f"; and {more} more" if more > 0 else "")
