"""How much two texts share, word for word, and whether what differs could turn their meaning around.

Vectors alone cannot tell `pipe broken` from `pipe not broken`. Here two texts are compared by their words: the share of
word triples that both have (the Jaccard index of 3-shingles), and the words that only one of them has.

Source:
    Broder 1997, "On the resemblance and containment of documents".
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from retrieval.negation import negation_cues

DEFAULT_THRESHOLD = 0.7
"""Shared word triples from which two texts are near-equal; docs/more-uses.md has the measurement behind it."""

Kind = Literal["exact", "near", "altered", "different"]

_TRIPLE = 3
_SHOWN_WORDS = 12
_SLIP_LETTERS = 4
_MOST_COMPARED = 2_500
_SMALL_WORDS = (
    "a about after all also an and any are as at be been before being but by can could did do does for from had has "
    "have he her his how i if in into is it its may more most must of on one or our out over shall she should so some "
    "such than that the their them then there these they this those through to under up upon was we were what when "
    "where which while who will with would you your"
)
_SMALL = frozenset(_SMALL_WORDS.split())
# Scripts without spaces between words count character by character; comparisons say what letters do not.
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|\d+(?:[.,:]\d+)*(?![^\W_])|[^\W_]+(?:['\u2019][^\W_]+)*|[<>]=?|[=!]=|[\u2260\u2264\u2265]"
)


@dataclass(frozen=True, slots=True, eq=False)
class Wording:
    """The words of a text, ready to be compared.

    Args:
        words: In lower case, in their order.
        triples: Hashes of every three words in a row; of all words where there are fewer.
        cues: What negates or excludes in it.
    """

    words: tuple[str, ...]
    triples: frozenset[int]
    cues: frozenset[str]

    @classmethod
    def of(cls, text: str) -> Wording:
        """Take a text apart."""
        words = words_of(text)
        last = max(1, len(words) - _TRIPLE + 1)
        triples = frozenset(hash(tuple(words[start : start + _TRIPLE])) for start in range(last)) if words else ()
        return cls(tuple(words), frozenset(triples), frozenset(negation_cues(text)))


@dataclass(frozen=True, slots=True)
class Overlap:
    """What comparing two texts has found.

    Args:
        kind: ``exact`` where the words are the same, whatever their case and the signs between them; ``near`` where
            enough of them is, and the rest was added, left out or misspelt; ``altered`` where enough is, but a
            negation, a number or a word was exchanged for another; else ``different``.
        share: Shared word triples, 0 to 1.
        turning: Negations and numbers that only one of the texts has, and words that were exchanged.
        only_first: Words that only the first has, in their order, a few of them.
        only_second: The same of the second.
    """

    kind: Kind
    share: float
    turning: tuple[str, ...] = ()
    only_first: tuple[str, ...] = ()
    only_second: tuple[str, ...] = ()


def words_of(text: str) -> list[str]:
    """The words, numbers and comparisons of a text in lower case."""
    return _WORD.findall(_THOUSANDS.sub("", text.casefold()))


def mark_of(text: str) -> bytes:
    """16 bytes that are the same for texts of the same words."""
    return hashlib.blake2b("\0".join(words_of(text)).encode("utf-8", "replace"), digest_size=16).digest()


def compare(first: Wording, second: Wording, threshold: float = DEFAULT_THRESHOLD) -> Overlap:
    """Compare two texts word for word.

    Args:
        first: One text.
        second: The other.
        threshold: Shared word triples from which they are near-equal or altered, above 0 and at most 1.
    """
    if first.words == second.words:
        return Overlap("exact", 1.0)
    together = len(first.triples | second.triples)
    share = len(first.triples & second.triples) / together if together else 0.0
    one, other = Counter(first.words), Counter(second.words)
    only_first, only_second = _in_order(first.words, one - other), _in_order(second.words, other - one)
    turned = [word for word in (*only_first, *only_second) if _turns(word)] + sorted(first.cues ^ second.cues)
    # Of two short texts that differ in a negation few triples are shared: what counts is that the other words are.
    same_but = bool(one & other) and bool(turned) and set(turned).issuperset({*only_first, *only_second})
    if share < threshold and not same_but:
        return Overlap("different", share, (), only_first[:_SHOWN_WORDS], only_second[:_SHOWN_WORDS])
    turning = tuple(dict.fromkeys([*turned, *_exchanged(only_first, only_second)]))
    return Overlap(
        "altered" if turning else "near", share, turning, only_first[:_SHOWN_WORDS], only_second[:_SHOWN_WORDS]
    )


def check_threshold(threshold: float | None) -> float:
    """The threshold to use, `DEFAULT_THRESHOLD` for ``None``.

    Raises:
        ValueError: It is not above 0 and at most 1.
    """
    if threshold is None:
        return DEFAULT_THRESHOLD
    if isinstance(threshold, bool) or not 0 < threshold <= 1:
        raise ValueError(f"the threshold is a share of word triples, above 0 and at most 1, not {threshold!r}")
    return threshold


def _in_order(words: Sequence[str], left: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in words if left.get(word, 0) > 0))


def _turns(word: str) -> bool:
    return (
        word == "non"
        or not word[0].isalnum()
        or any(character.isdigit() for character in word)
        or bool(negation_cues(word))
    )


def _exchanged(only_first: Sequence[str], only_second: Sequence[str]) -> list[str]:
    """Words that stand in the place of others: both texts have their own, and they are no slips of the pen.

    Two texts of one template, with another name in each, share nearly all words and speak of different things.
    """
    first, second = ([word for word in words if word not in _SMALL] for words in (only_first, only_second))
    if len(first) * len(second) <= _MOST_COMPARED:
        for word in list(first):
            slip = next((other for other in second if _is_slip(word, other)), None)
            if slip is not None:
                first.remove(word)
                second.remove(slip)
    return [*first[:_SHOWN_WORDS], *second[:_SHOWN_WORDS]] if first and second else []


def _is_slip(word: str, other: str) -> bool:
    """Whether one letter was left out, added, mistaken, or exchanged with the next."""
    if min(len(word), len(other)) < _SLIP_LETTERS or abs(len(word) - len(other)) > 1:
        return False
    start = 0
    while start < min(len(word), len(other)) and word[start] == other[start]:
        start += 1
    one, two = word[start:], other[start:]
    while one and two and one[-1] == two[-1]:
        one, two = one[:-1], two[:-1]
    return max(len(one), len(two)) <= 1 or (len(one) == 2 and one == two[::-1])
