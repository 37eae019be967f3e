from __future__ import annotations

import pytest

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
        "Nord norm Norway nova",
        "\x00\ud800 \u2063",
    ],
)
def test_queries_without_negation_have_none(query: str) -> None:
    assert negation_cues(query) == ()


def test_a_number_does_not_hide_a_negation_elsewhere() -> None:
    assert negation_cues("No. 5 but not no. 6") == ("not",)
    assert negation_cues("no 5 star hotel") == ("no",)
