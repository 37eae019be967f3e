"""Texts that differ only by polarity are found, and nothing else is."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.polarity import MOST_TEXTS, Variant, asks_for_numbers, polarity_twins

LONG = (
    "This guide is about a copper pipe in the kitchen. Shut the main valve, dry the spot with a towel, and look at the "
    "joint under a good lamp. Solder it when the metal is bright, and wait an hour with the water turned off. "
)


def are_twins(one: str, other: str, *, numbers: bool = True) -> bool:
    first, second = polarity_twins([one, other], numbers=numbers)
    assert (first is None) == (second is None)
    return first is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The pipe is broken.", "The pipe is not broken."),
        ("The tap drips at night.", "The tap doesn't drip at night."),
        ("Dogs are allowed in the garden.", "Dogs are never allowed in the garden."),
        ("Dogs are allowed in the garden.", "Dogs are forbidden in the garden."),
        ("The offer includes breakfast and parking.", "The offer excludes breakfast and parking."),
        ("A cake with sugar and butter", "A cake without sugar and butter"),
        ("The dog bit the old man.", "The old man bit the dog."),
        ("Take the pill before lunch.", "Take the pill after lunch."),
        ("The reaction is reversible at room temperature.", "The reaction is irreversible at room temperature."),
        ("Take three tablets a day with water.", "Take five tablets a day with water."),
        ("Take 3 tablets a day with water.", "Take 5 tablets a day with water."),
        ("Every student passed the exam.", "No student passed the exam."),
        (LONG + "The pipe leaks. " + LONG, LONG + "The pipe does not leak. " + LONG),
    ],
)
def test_twins(one: str, other: str) -> None:
    assert are_twins(one, other)
    assert are_twins(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The pipe is broken.", "The pipe is broken."),
        ("The pipe is broken.", "The pipe was broken"),
        ("The pipe is broken.", "the PIPE is broken"),
        ("The capital of France is Paris.", "The capital of Italy is Rome."),
        ("The pipe is broken.", "The window is not broken."),
        ("Bread rises in an hour.", "Nothing is known about the comet."),
        (LONG + "The pipe leaks. " + LONG, LONG + "The tap drips. " + LONG),
        ("", "not"),
        ("no", "yes"),
        ("7", "8"),
        ("", ""),
    ],
)
def test_others(one: str, other: str) -> None:
    assert not are_twins(one, other)


def test_numbers_make_twins_only_where_they_are_asked_for() -> None:
    one, other = "Line 17 of the log: disk is full", "Line 18 of the log: disk is full"
    assert are_twins(one, other)
    assert not are_twins(one, other, numbers=False)
    assert are_twins(one.replace(" is ", " is not "), one, numbers=False)
    assert asks_for_numbers("is it more than 5 %")
    assert asks_for_numbers("tablets three times a day")
    assert not asks_for_numbers("which tablets help against fever")


def test_groups_and_wordings_are_numbered_in_order() -> None:
    texts = [
        "A tap drips in the night.",
        "The pipe is broken.",
        "A tap does not drip in the night.",
        "The pipe is not broken.",
        "The pipe is broken!",
        "Yeast lets dough rise.",
    ]
    tap, pipe = 0, 1
    assert polarity_twins(texts) == (
        Variant(tap, 0),
        Variant(pipe, 0),
        Variant(tap, 1),
        Variant(pipe, 1),
        Variant(pipe, 0),
        None,
    )


def test_what_lies_beyond_the_first_texts_is_not_looked_at() -> None:
    texts = [
        "The pipe is broken.",
        *(f"{number} grains of sand" for number in range(MOST_TEXTS)),
        "The pipe isn't broken.",
    ]
    assert polarity_twins(texts)[-1] is None
    assert len(polarity_twins(texts)) == len(texts)


def test_many_copies_cost_no_more_than_a_bound() -> None:
    texts = [f"{LONG} The pipe {'does not leak' if number % 2 else 'leaks'}." for number in range(MOST_TEXTS)]
    found = polarity_twins(texts)
    assert {variant for variant in found if variant is not None} <= {Variant(0, 0), Variant(0, 1)}


SENTENCES = st.lists(
    st.sampled_from(
        [
            "The pipe is broken.",
            "The pipe is not broken.",
            "The broken one is the pipe.",
            "Dogs bite men.",
            "Men bite dogs.",
            "Bread rises slowly.",
            "Bread rises quickly.",
            "Nobody knows the comet.",
            "\ud800 \0 \u2019 n't",
            "",
        ]
    ),
    max_size=12,
)


@given(SENTENCES, st.randoms(use_true_random=False))
def test_the_order_of_the_texts_does_not_matter(texts: list[str], shuffle: random.Random) -> None:
    places = list(range(len(texts)))
    shuffle.shuffle(places)

    def pairs(found: tuple[Variant | None, ...], names: list[int]) -> set[frozenset[tuple[int, bool]]]:
        named = [(name, variant) for name, variant in zip(names, found, strict=True) if variant is not None]
        return {
            frozenset({(one, first.wording == second.wording), (other, first.wording == second.wording)})
            for one, first in named
            for other, second in named
            if first.group == second.group
        }

    straight = pairs(polarity_twins(texts), list(range(len(texts))))
    assert pairs(polarity_twins([texts[place] for place in places]), places) == straight


@given(st.lists(st.text(max_size=80), max_size=8))
def test_any_text_is_taken(texts: list[str]) -> None:
    assert len(polarity_twins(texts)) == len(texts)
