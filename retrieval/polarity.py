"""Texts that differ only by polarity: a negation, an opposite, a number, or the order of their words.

A first stage gives such twins nearly the same score, whatever is asked. They are told by hashing: each text is reduced
to the words that its twins have too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from retrieval.opposites import opposites, past_to_base

MOST_TEXTS = 200
"""Texts that are looked at, the first ones."""

_MOST_CHANGED = 60
"""Characters that an edit may add, remove or exchange, as the counts of letters show them."""
_FEWEST_WORDS = 2
_MOST_OTHERS = 4
_MOST_PAIRS = 300
_BINS = 28

_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:['\u2019][^\W\d_]+)?")
_NEGATION_TEXT = """
not no never without neither nor none nothing nobody nowhere cannot unless except excepting excepted excluding only but
lack lacks lacking lacked absent absence instead rather other apart aside despite although though however nevertheless
hardly rarely seldom barely still yet already anymore fail fails failed unable
"""
_QUANTITY_TEXT = """
all any some every each both either half double twice once few fewer many more most much less least several
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion dozen
first second third fourth fifth sixth seventh eighth ninth tenth
"""
_ORDER_TEXT = """
before after until since while when then later earlier by from to into out of at on off in over under above below up
down than with
"""
_NEUTRAL_TEXT = """
the a an is are was were be been being am do does did doing done has have had having can could will would shall should
may might must it its that this these those there as for and or so too also just even if who which
"""
_MORE_OPPOSITES = """
allow/forbid allowed/forbidden allow/prohibit permit/forbid allowed/banned legal/banned
open/shut full/empty alive/deceased
"""
_NEGATION = frozenset(_NEGATION_TEXT.split())
_QUANTITY = frozenset(_QUANTITY_TEXT.split())
_ORDER = frozenset(_ORDER_TEXT.split())
_NEUTRAL = frozenset(_NEUTRAL_TEXT.split())
_NUMBER_ASKED = re.compile(
    r"\d|%|(?<!\w)(?:per\s?cent|than|at (?:least|most)|up to|maximum|minimum|"
    rf"{'|'.join(sorted(_QUANTITY - {'other', 'any', 'some', 'second'}))})(?!\w)",
    re.IGNORECASE,
)
_PREFIX = re.compile(r"(?:un|in|im|il|ir|dis|non)(?=[^\W\d_]{4})")
_ENDING = re.compile(r"(?<=[^\W\d_]{3})(?:ing|ed|es|s|e|ly)$")


@dataclass(frozen=True, slots=True)
class Variant:
    """The place of a text among its twins.

    Args:
        group: Number of the group of twins.
        wording: Number of its wording in the group; texts with the same one say the same.
    """

    group: int
    wording: int


def polarity_twins(texts: Sequence[str], *, numbers: bool = True) -> tuple[Variant | None, ...]:
    """Find the texts that differ only by polarity.

    Twins have the same words, in any order, once negations, exclusions, quantities, words of order and function words
    are left out, opposites are taken for one word, and endings and negating prefixes are cut. Where a negation, an
    exclusion or a quantity differs, up to four other words may differ as well, a tenth of a long text. A small English
    grammar for nearly equal texts; whole copies of each other are no twins.

    Args:
        texts: In any order; those beyond the first `MOST_TEXTS` have no twins.
        numbers: Whether texts that differ by nothing but numbers in figures are twins.

    Returns:
        For each text its variant, ``None`` when it has no twin. Groups are numbered by their first text.

    Example:
        >>> polarity_twins(["The pipe is broken.", "A tap drips.", "The pipe is not broken."])
        (Variant(group=0, wording=0), None, Variant(group=0, wording=1))
    """
    considered = list(texts[:MOST_TEXTS])
    close = _close_pairs(considered)
    reduced = {at: _reduced(considered[at], numbers=numbers) for at in sorted({at for pair in close for at in pair})}
    leader = {at: at for at in reduced}

    def find(at: int) -> int:
        while leader[at] != at:
            at = leader[at]
        return at

    twins: set[int] = set()
    for one, other in close:
        # Pairs within a group that is known need no look: thousands of equal lines are compared once each.
        if find(one) == find(other) and {one, other} <= twins:
            continue
        if _same_but_for_polarity(reduced[one], reduced[other]):
            leader[max(find(one), find(other))] = min(find(one), find(other))
            twins |= {one, other}
    return _variants(len(texts), {at: find(at) for at in sorted(twins)}, reduced)


def _variants(count: int, group_of: Mapping[int, int], reduced: Mapping[int, _Reduced]) -> tuple[Variant | None, ...]:
    found: list[Variant | None] = [None] * count
    groups: dict[int, tuple[int, dict[tuple[str, ...], int]]] = {}
    for at, root in group_of.items():
        number, wordings = groups.setdefault(root, (len(groups), {}))
        found[at] = Variant(number, wordings.setdefault(reduced[at].wording, len(wordings)))
    return tuple(found)


def asks_for_numbers(query: str) -> bool:
    """Whether a query says a number, a quantity or a comparison, so that texts with other numbers answer it otherwise.

    Args:
        query: The query as given.

    Example:
        >>> asks_for_numbers("no more than three tablets"), asks_for_numbers("side effects of aspirin")
        (True, False)
    """
    return _NUMBER_ASKED.search(query) is not None


@dataclass(frozen=True, slots=True)
class _Reduced:
    """A text as its twins have it, and as they have not.

    Args:
        core: How often each word occurs that twins share.
        size: How many these are.
        turns: How often each negation, exclusion or quantity occurs.
        wording: Everything but function words, in order.
    """

    core: Mapping[str, int]
    size: int
    turns: Mapping[str, int]
    wording: tuple[str, ...]


def _same_but_for_polarity(one: _Reduced, other: _Reduced) -> bool:
    allowed = min(_MOST_OTHERS, max(one.size, other.size) // 10)
    if (
        min(one.size, other.size) < _FEWEST_WORDS
        or abs(one.size - other.size) > allowed
        or one.wording == other.wording
    ):
        return False
    words = one.core.keys() | other.core.keys()
    differing = sum(abs(one.core.get(word, 0) - other.core.get(word, 0)) for word in words)
    return not differing or (differing <= allowed and one.turns != other.turns)


def _close_pairs(texts: Sequence[str]) -> list[tuple[int, int]]:
    """The pairs whose counts of letters are close: all that can be twins, and some more; closest first."""
    if len(texts) < 2:
        return []
    counts = _letters(texts)
    sizes = counts.sum(axis=1)
    # Sorted by size, a text is close to none whose size differs by more than an edit can.
    order = np.argsort(sizes, kind="stable")
    counts, sizes = counts[order], sizes[order]
    rows: list[NDArray[np.int64]] = []
    for step in range(1, len(texts)):
        left = np.flatnonzero(sizes[step:] - sizes[:-step] <= _MOST_CHANGED)
        if not len(left):
            break
        apart = np.abs(counts[left + step] - counts[left]).sum(axis=1)
        # Short texts have nearly the same letters anyway; half of them has to be the same.
        near = (apart <= _MOST_CHANGED) & (2 * apart <= sizes[left])
        rows.append(np.stack([apart[near], order[left[near]], order[left[near] + step]], axis=1))
    pairs = np.concatenate(rows) if rows else np.empty((0, 3), np.int64)
    low, high = np.minimum(pairs[:, 1], pairs[:, 2]), np.maximum(pairs[:, 1], pairs[:, 2])
    chosen = np.lexsort((high, low, pairs[:, 0]))[:_MOST_PAIRS]
    return [(int(one), int(other)) for one, other in zip(low[chosen], high[chosen], strict=True)]


def _letters(texts: Sequence[str]) -> NDArray[np.int64]:
    """How often each letter from a to z occurs in each text, and all that is not ASCII together."""
    raw = [text.encode("utf-8", "replace") for text in texts]
    bins = _BIN_OF[np.frombuffer(b"".join(raw), dtype=np.uint8)]
    starts = np.repeat(np.arange(len(raw)) * _BINS, [len(one) for one in raw])
    counts = np.bincount(starts + bins, minlength=len(raw) * _BINS).reshape(len(raw), _BINS)
    return counts[:, : _BINS - 1]


def _bins() -> NDArray[np.int64]:
    table = np.full(256, _BINS - 1, dtype=np.int64)
    for letter in range(26):
        table[[ord("a") + letter, ord("A") + letter]] = letter
    table[128:] = 26
    return table


_BIN_OF = _bins()


def _reduced(text: str, *, numbers: bool) -> _Reduced:
    core: Counter[str] = Counter()
    turns: Counter[str] = Counter()
    wording: list[str] = []
    for match in _WORD.finditer(text.lower()):
        word = match.group().replace("\u2019", "'")
        if word in _NEUTRAL:
            continue
        if word.endswith("n't"):
            word = "not"
        if word[0].isdigit():
            # Where numbers make no twins they have to be the same.
            wording.append(word)
            if not numbers:
                core[word] += 1
        elif word in _NEGATION or word in _QUANTITY:
            wording.append(word)
            turns[word] += 1
        elif word in _ORDER:
            wording.append(word)
        else:
            wording.append(_stem(word))
            core[_class_of(word)] += 1
    return _Reduced(core, core.total(), turns, tuple(wording))


@lru_cache(maxsize=65_536)
def _stem(word: str) -> str:
    return _ENDING.sub("", past_to_base().get(word, word))


@lru_cache(maxsize=65_536)
def _class_of(word: str) -> str:
    """One name for a word, its forms and its opposites."""
    known = _classes().get(word)
    if known is not None:
        return known
    stem = _stem(word)
    return _classes().get(stem) or _PREFIX.sub("", stem, count=1)


@cache
def _classes() -> dict[str, str]:
    """The smallest word of each set of words that are opposites of each other, by each word and each stem of it."""
    leader: dict[str, str] = {}

    def find(word: str) -> str:
        while leader.setdefault(word, word) != word:
            word = leader[word]
        return word

    more = [tuple(pair.split("/")) for pair in _MORE_OPPOSITES.split()]
    for one, other in (*opposites().items(), *more):
        if " " not in one and " " not in other:
            for low, high in ((one, other), (one, _stem(one))):
                first, second = sorted((find(low), find(high)))
                leader[second] = first
    return {word: find(word) for word in leader}
