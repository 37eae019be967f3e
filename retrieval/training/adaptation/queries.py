"""Pseudo-queries of several kinds, cut from held-out passages by rules."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from retrieval.training.adaptation.corpus import CorpusPassage, split_sentences

QUESTION = "question"

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_FRAMES = ("what is {}", "how does {} work", "why {}", "when was {}", "who {}", "which {}", "tell me about {}", "{}?")


@dataclass(frozen=True, slots=True)
class PseudoQuery:
    """A query whose answer is known because it was cut from that passage.

    Args:
        kind: How it was made.
        text: The query.
        source: Number of its passage.
        rest: What is left of the passage's indexed text; ``None`` when nothing was taken out.
    """

    kind: str
    text: str
    source: int
    rest: str | None


def words_of(text: str) -> list[str]:
    """Words of a text in lower case."""
    return _WORD.findall(text.lower())


def count_words(texts: Iterable[str]) -> Mapping[str, int]:
    """In how many texts each word is."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(set(words_of(text)))
    return counts


def indexed_text(passage: CorpusPassage, body: str | None = None) -> str:
    """What both arms read of a passage: title and headings that the text does not repeat, then the text."""
    body = passage.text if body is None else body
    head = [part for part in dict.fromkeys((passage.title, *passage.headings)) if part and part not in body[:200]]
    return "\n".join((*head, body))


def pseudo_queries(
    passages: Sequence[CorpusPassage], sources: Sequence[int], counts: Mapping[str, int], seed: int
) -> list[PseudoQuery]:
    """At most one query of each kind from each source.

    Args:
        passages: All passages.
        sources: Numbers of the passages to ask for.
        counts: In how many passages each word is.
        seed: Chooses sentences and words.
    """
    generator = random.Random(seed)
    found: list[PseudoQuery] = []
    for source in sources:
        found.extend(_of_passage(passages[source], source, counts, len(passages), generator))
    return found


def _of_passage(
    passage: CorpusPassage, source: int, counts: Mapping[str, int], size: int, generator: random.Random
) -> list[PseudoQuery]:
    sentences = split_sentences(passage.text)
    usable = [index for index, text in enumerate(sentences) if len(words_of(text)) >= 4]
    if not usable:
        return []
    chosen = generator.choice(usable)
    words = words_of(sentences[chosen])
    found: list[PseudoQuery] = []
    if len(sentences) > 1:
        rest = indexed_text(passage, " ".join(sentences[:chosen] + sentences[chosen + 1 :]))
        found.append(PseudoQuery("sentence", sentences[chosen], source, rest))
        known = set(words_of(rest))
        unlike = [word for word in words if word not in known]
        if len(unlike) >= 3:
            found.append(PseudoQuery("other words", " ".join(unlike), source, rest))
    elif len(words) >= 8:
        picked = sorted(generator.sample(range(len(words)), len(words) // 2))
        left = " ".join(word for index, word in enumerate(words) if index not in set(picked))
        found.append(
            PseudoQuery("half", " ".join(words[index] for index in picked), source, indexed_text(passage, left))
        )
    found.append(PseudoQuery(QUESTION, _question(words, counts, size, generator), source, None))
    return found


def _question(words: Sequence[str], counts: Mapping[str, int], size: int, generator: random.Random) -> str:
    rarity = {word: math.log((size + 1) / counts.get(word, 1)) for word in words}
    most = generator.randint(2, 4)
    rare = sorted(rarity, key=lambda word: -rarity[word] * generator.uniform(0.5, 1.0))[:most]
    return generator.choice(_FRAMES).format(" ".join(word for word in dict.fromkeys(words) if word in rare))
