from __future__ import annotations

import pytest

from retrieval.evaluation.minimal_pairs import open_suite
from retrieval.negation import negation_cues


@pytest.mark.parametrize(
    ("query", "cues"),
    [
        ("pipe not broken but leaking", ("not",)),
        ("There is NO evidence that it works", ("no",)),
        ("cells that never divide", ("never",)),
        ("cake without eggs or sugar", ("without",)),
        ("neither red nor blue", ("neither", "nor")),
        ("it doesn't start and won\u2019t charge", ("doesn't", "won't")),
        ("engine doesnt start", ("doesnt",)),
        ("all planets except earth, excluding dwarfs", ("except", "excluding")),
        ("a protein that lacks a signal, absence  of\ta receptor", ("lacks", "absence of")),
        ("nothing works and nobody cannot say", ("nothing", "nobody", "cannot")),
        ("not this, not that", ("not",)),
        ("all museums apart from the maritime one, aside  from Monday", ("apart from", "aside from")),
        ("rail pass that excludes expresses and a tour price which leaves out meals", ("excludes", "leaves out")),
        ("ice cream for those who avoid milk, guests who skip wine", ("avoid", "skip")),
        ("therapy during which alcohol must be avoided", ("avoided",)),
        ("alloy free from copper, participants free of diabetes", ("free from", "free of")),
        ("Gluten-free bread", ("gluten-free",)),
        ("vacuum fails to start, unable to charge it", ("fails to", "unable to")),
        ("everything but the screws, unless sold out", ("everything but", "unless")),
        ("cant log in, phone wont charge, it aint working", ("cant", "wont", "aint")),
        ("devoid of light, with the exception of January", ("devoid of", "with the exception of")),
    ],
)
def test_cues_are_found(query: str, cues: tuple[str, ...]) -> None:
    assert negation_cues(query) == cues


@pytest.mark.parametrize(
    "query",
    [
        "",
        "  \n",
        "a note on what we know about knots",
        "nonlinear systems, uncommon units, under pressure",
        "notable nordic exceptions and exceptional black holes",
        "no-code tools and not-for-profit groups",
        "Symphony no. 5 in C minor",
        "Chanel No 5",
        "should I stay or not?",
        "why not",
        "not only copper but also steel",
        "paint and cement in a tent",
        "free of charge",
        "download free from the store",
        "duty-free shops, hands-free calls, context-free grammars",
        "how to avoid frost damage",
        "avoiding plagiarism",
        "can alcohol be avoided",
        "skip list, exclude a folder in git",
        "no more than three cups, no later than May, not less than twelve characters",
        "yes/no questions, yes or no",
        "no doubt, no matter what, nothing but rain, not to mention snow",
        "villages far apart from each other",
        "the cant of a rail, as is his wont",
        "why pumps fail",
        "Nord norm Norway nova",
        "\x00\ud800 \u2063",
    ],
)
def test_queries_without_negation_have_none(query: str) -> None:
    assert negation_cues(query) == ()


def test_a_number_does_not_hide_a_negation_elsewhere() -> None:
    assert negation_cues("No. 5 but not no. 6") == ("not",)
    assert negation_cues("no 5 star hotel") == ("no",)


def test_a_bound_does_not_hide_a_negation_elsewhere() -> None:
    assert negation_cues("no more than two pills and not at night") == ("not",)


def test_the_cues_of_the_suite_are_found_and_only_they() -> None:
    """A check that nothing gets lost: the grammar was extended with these queries in view."""
    pairs = open_suite("negation").pairs
    asked = [
        (query, said)
        for pair in pairs
        for query, said in zip(pair.queries, pair.negated or (), strict=True)
        if query is not None
    ]
    assert sum(said for _, said in asked) > 100
    assert [query for query, said in asked if bool(negation_cues(query)) is not said] == []
