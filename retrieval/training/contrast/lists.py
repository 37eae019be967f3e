"""Contrast lists: a query and two nearly equal passages of which only one answers it, made from pairs by rules."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from retrieval.training.contrast.queries import rephrase
from retrieval.training.contrast.twins import Twins, agreeing_twins, answering_twins
from retrieval.training.pairs import Pair
from retrieval.training.reranker.lists import RankingList


@dataclass(frozen=True, slots=True)
class ContrastSettings:
    """How contrast lists are made.

    Args:
        window_words: Longest text, in words; the window holds what was edited.
        negatives: Ordinary negatives beside the edited twin.
        per_pair: Lists made from a pair at most, both directions counted.
        overlap: Content words that a statement must share with a sentence to be answered by it, as a share of its own.
        seed: Chooses edits, wordings and ordinary negatives.
    """

    window_words: int = 90
    negatives: int = 2
    per_pair: int = 4
    overlap: float = 0.5
    seed: int = 0


def contrast_lists(
    pairs: Sequence[Pair],
    settings: ContrastSettings = ContrastSettings(),
    *,
    refuted: Sequence[Pair] = (),
    ordinary: Mapping[str, tuple[str, ...]] | None = None,
) -> list[RankingList]:
    """Make contrast lists from pairs: the first negative of each is the twin of the positive, one edit away.

    Pairs whose query is a statement give a query that says what their passage says. Passages of any pair give queries
    made of one of their own sentences. Each edit gives two lists, in which the twins change places.

    Args:
        pairs: Queries and passages that answer them.
        settings: How many, how long.
        refuted: Statements with passages that contradict them; edits that make the passage agree are used.
        ordinary: For the query of a pair, negatives beside the twin; ``None``, or no entry, draws other passages.

    Returns:
        Lists in the order of the pairs; the same for the same arguments. ``RankingList.source`` is ``contrast-KIND``.
    """
    generator = random.Random(settings.seed)
    pool = list(dict.fromkeys(pair.positive for pair in pairs))
    lists: list[RankingList] = []
    for pair, twins_of in [*((pair, answering_twins) for pair in pairs), *((pair, agreeing_twins) for pair in refuted)]:
        found = list(twins_of(pair, settings.window_words, settings.overlap))
        generator.shuffle(found)
        for twins in _different_kinds(found)[: max(1, settings.per_pair // 2)]:
            given = (ordinary or {}).get(pair.query, ())
            wording = generator.random()
            queries = [rephrase(statement, random.Random(wording)) for statement in twins.statements]
            if queries[0] == queries[1]:
                continue  # what was edited is not in the shortened statement
            for lead, query in enumerate(queries):
                others = _ordinary(given, pool, pair, settings, generator)
                negatives = (twins.texts[1 - lead], *others)
                lists.append(RankingList(query, twins.texts[lead], negatives, f"contrast-{twins.kind}"))
    return lists


def judged_lists(rows: Iterable[tuple[str, str, bool]], settings: ContrastSettings, source: str) -> list[RankingList]:
    """Lists from judged texts: every text that answers a query against every one that does not.

    Args:
        rows: Query, text, and whether the text answers it (says yes to it, supports it).
        settings: Only ``window_words`` is used: both texts are cut around the words in which they differ.
        source: Name for the lists.
    """
    groups: dict[str, tuple[list[str], list[str]]] = {}
    for query, text, answers in rows:
        groups.setdefault(query, ([], []))[0 if answers else 1].append(text)
    return [
        RankingList(query, *_windows_of_both(yes, no, settings.window_words), source)
        for query, (affirming, denying) in groups.items()
        for yes in affirming
        for no in denying
    ]


def _windows_of_both(one: str, other: str, words: int) -> tuple[str, tuple[str]]:
    left, right = one.split(), other.split()
    same = 0
    while same < min(len(left), len(right)) and left[same] == right[same]:
        same += 1
    start = max(0, min(same - words // 3, max(len(left), len(right)) - words))
    return " ".join(left[start : start + words]), (" ".join(right[start : start + words]),)


def _different_kinds(found: Sequence[Twins]) -> list[Twins]:
    """One of each kind first."""
    first = {twins.kind: twins for twins in reversed(found)}
    return [*first.values(), *(twins for twins in found if first[twins.kind] is not twins)]


def _ordinary(
    given: Sequence[str], pool: Sequence[str], pair: Pair, settings: ContrastSettings, generator: random.Random
) -> list[str]:
    chosen = generator.sample(given, min(len(given), settings.negatives))
    while len(chosen) < settings.negatives and len(pool) > settings.negatives + 1:
        text = " ".join(pool[generator.randrange(len(pool))].split()[: settings.window_words])
        if text not in chosen and not pair.positive.startswith(text):
            chosen.append(text)
    return chosen
