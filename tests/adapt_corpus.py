"""A corpus whose synonyms can be learned from it, and a tiny model whose random vectors know nothing of them."""

from __future__ import annotations

import random
from pathlib import Path

from tests.static_models import random_table, word_tokenizer, write_own

CONCEPTS = 24
DIM = 32


def word(concept: int, language: int) -> str:
    """The word of a concept in one of two languages that share no word: ``bca`` and ``bcz`` mean the same."""
    return chr(ord("b") + concept // 5) + chr(ord("b") + concept % 5) + "az"[language]


WORDS = [word(concept, language) for language in (0, 1) for concept in range(CONCEPTS)]


def write_model(folder: Path, seed: int = 5) -> Path:
    """A model with one random vector for each word."""
    tokenizer = word_tokenizer(WORDS)
    return write_own(folder, tokenizer, {"embeddings": random_table(tokenizer, DIM, seed)}, name="tiny")


def documents(count: int = 240, seed: int = 3) -> list[tuple[str, str]]:
    """Documents that say four concepts three times: in each language, and two of them in each."""
    chosen = random.Random(seed)
    result = []
    for number in range(count):
        concepts = chosen.sample(range(CONCEPTS), 4)
        ways = [(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 0, 1)]
        chosen.shuffle(ways)
        sentences = [" ".join(map(word, chosen.sample(concepts, 4), way)).capitalize() for way in ways]
        result.append((f"{number:03}", ". ".join(sentences) + "."))
    return result
