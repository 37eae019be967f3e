"""Pairs become groups around one member, with which every other one was compared itself.

Chains are cut: where a is near b and b near c, c joins a only if it is near a too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from pipelines.corpus_views.overlap import Overlap

Judged = dict[tuple[str, str], Overlap]
Groups = dict[str, list[tuple[str, Overlap]]]

_MOST_CENTRES = 50


def group_pairs(
    names: Sequence[str],
    equal: Sequence[tuple[str, str]],
    judged: Mapping[tuple[str, str], Overlap],
    compare: Callable[[str, str], Overlap],
) -> Groups:
    """Put what is near-equal together.

    Args:
        names: All, in the order that decides who is kept: the first one of a group.
        equal: Pairs of the same words, the first one of all of them first.
        judged: Compared pairs.
        compare: Compares a pair that was not.

    Returns:
        By the one that is kept: the others, each with what comparing it with that one has found.
    """
    order = {name: number for number, name in enumerate(names)}
    near: dict[str, set[str]] = defaultdict(set)
    for (one, other), overlap in judged.items():
        if overlap.kind in {"exact", "near"}:
            near[one].add(other)
            near[other].add(one)
    groups: Groups = {}
    for family in _families(near, order):
        for centre, others in _around_centres(family, judged, compare).items():
            groups[centre] = others
    # Equal ones go where the first of them went.
    home = {name: (centre, overlap) for centre, others in groups.items() for name, overlap in others}
    for first, name in equal:
        centre, overlap = home.get(first, (first, Overlap("exact", 1.0)))
        groups.setdefault(centre, []).append((name, overlap))
    return {centre: others for centre, others in groups.items() if others}


def _families(near: Mapping[str, set[str]], order: Mapping[str, int]) -> list[list[str]]:
    """What hangs together, directly or not, each family in order."""
    seen: set[str] = set()
    families = []
    for start in sorted(near, key=order.__getitem__):
        if start in seen:
            continue
        family, waiting = [], [start]
        seen.add(start)
        while waiting:
            name = waiting.pop()
            family.append(name)
            fresh = near[name] - seen
            seen |= fresh
            waiting.extend(fresh)
        families.append(sorted(family, key=order.__getitem__))
    return families


def _around_centres(
    family: Sequence[str], judged: Mapping[tuple[str, str], Overlap], compare: Callable[[str, str], Overlap]
) -> Groups:
    centres: Groups = {}
    for name in family:
        best: tuple[str, Overlap] | None = None
        for centre in list(centres)[:_MOST_CENTRES]:
            overlap = judged.get((centre, name)) or compare(centre, name)
            if overlap.kind in {"exact", "near"} and (best is None or overlap.share > best[1].share):
                best = centre, overlap
        if best is None:
            centres[name] = []
        else:
            centres[best[0]].append((name, best[1]))
    return centres
