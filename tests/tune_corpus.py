"""A small index whose cross-encoder counts shared words, while its static vectors are random and know nothing."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from retrieval.config import Config, parse_config
from tests.pair_graphs import FIRST_WORD, write_shared_words
from tests.pair_graphs import WORDS as PAIR_WORDS
from tests.static_models import random_table, word_tokenizer, write_own

DIM = 64
TOPICS = PAIR_WORDS[FIRST_WORD:]
"""The six words that the cross-encoder knows."""
FILLERS = [f"{letter}{vowel}m" for letter in "bcdfghklnr" for vowel in "aiou"]


def write_models(folder: Path) -> dict[str, Any]:
    """A static model and a cross-encoder, and the sections of a configuration that name them."""
    tokenizer = word_tokenizer([*TOPICS, *FILLERS])
    static = write_own(folder / "static", tokenizer, {"embeddings": random_table(tokenizer, DIM, 7)}, name="tiny")
    reader = write_shared_words(folder / "reader")
    return {
        "encoder": {"model": str(static)},
        "rerank": {"model": str(reader), "window_words": 16, "threads": 1, "depth": 8},
        "first_stage": {"candidates": 20},
    }


def settings(sections: Mapping[str, Any], **others: Mapping[str, Any]) -> Config:
    """A configuration; sections are merged key by key."""
    names = [*sections, *(name for name in others if name not in sections)]
    return parse_config({name: {**sections.get(name, {}), **others.get(name, {})} for name in names})


def documents(count: int = 120, seed: int = 1) -> list[tuple[str, str]]:
    """Documents of 12 to 60 words, so that many are longer than a window; some of their words are topics."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        topics = [chance.choice(TOPICS) for _ in range(chance.randrange(5))]
        words = topics + [chance.choice(FILLERS) for _ in range(chance.randrange(12, 56))]
        chance.shuffle(words)
        made.append((f"d{number:03}", " ".join(words)))
    return made


def queries() -> dict[str, str]:
    """All sets of two and of three topics, with a filler: 35 queries."""
    sets = [*combinations(TOPICS, 2), *combinations(TOPICS, 3)]
    return {f"q{number:02}": " ".join((*words, FILLERS[number])) for number, words in enumerate(sets)}


def qrels(made: list[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Relevant is what says the topics of a query most often: the more often, the higher the grade."""
    judged = {}
    for name, query in queries().items():
        wanted = set(query.split()) & set(TOPICS)
        counts = {document: sum(word in wanted for word in text.split()) for document, text in made}
        judged[name] = {document: count for document, count in counts.items() if count >= 2}
    return judged
