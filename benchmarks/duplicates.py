"""Where the threshold of near-equality should lie: copies of real texts with known changes, against real neighbours.

Copies are made of a sample of each collection, and each is changed in one way. What should be found: the copies that
say the same. What should not be found: two different texts of the collection, and copies whose meaning was turned
around.

    python benchmarks/duplicates.py FOLDER... --json benchmarks/duplicates.json
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipelines.corpus_views.candidates import CANDIDATE_COSINE
from pipelines.corpus_views.overlap import Wording, compare
from retrieval.config import EncoderConfig
from retrieval.models import open_encoder

SAMPLE, WORDS, THRESHOLDS = 400, 20, (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")

Change = Callable[[str, random.Random, list[str]], str | None]


def layout(text: str, rng: random.Random, vocabulary: list[str]) -> str | None:
    """Upper case, other white space, no signs."""
    return re.sub(r"[^\w\s.,:'\u2019-]", " ", text).upper().replace(" ", "  \n")


def typos(text: str, rng: random.Random, vocabulary: list[str]) -> str | None:
    """Two letters exchanged in one word of fifty, in at least one."""
    words = text.split()
    places = [at for at, word in enumerate(words) if len(word) > 4 and word.isalpha()]
    for at in rng.sample(places, min(len(places), max(1, len(words) // 50))):
        cut = rng.randrange(1, len(words[at]) - 2)
        words[at] = words[at][:cut] + words[at][cut + 1] + words[at][cut] + words[at][cut + 2 :]
    return " ".join(words) if places else None


def other_words(text: str, rng: random.Random, vocabulary: list[str]) -> str | None:
    """One word of twenty-five replaced by another one of the collection."""
    words = text.split()
    places = [at for at, word in enumerate(words) if word.isalpha()]
    for at in rng.sample(places, min(len(places), max(1, len(words) // 25))):
        words[at] = rng.choice(vocabulary)
    return " ".join(words) if places else None


def sentence_less(text: str, rng: random.Random, vocabulary: list[str]) -> str | None:
    """The last sentence is missing; only of texts with five or more."""
    sentences = _SENTENCE.split(text)
    return " ".join(sentences[:-1]) if len(sentences) >= 5 else None


def heading_more(text: str, rng: random.Random, vocabulary: list[str]) -> str | None:
    """A line before and one behind, as a page that was printed has them."""
    return f"Home | About | Contact us\n{text}\nAll rights reserved. Printed from our pages."


def negated(text: str, rng: random.Random, vocabulary: list[str]) -> str | None:
    """The first "is", "are", "was" or "were" is followed by "not"."""
    changed, count = re.subn(r"\b(is|are|was|were)\b(?! not)", r"\1 not", text, count=1)
    return changed if count else None


def other_number(text: str, rng: random.Random, vocabulary: list[str]) -> str | None:
    """The first number is another one."""
    changed, count = re.subn(r"(?<![\w.,])\d+(?![\w.,])", lambda found: str(int(found.group()) + 7), text, count=1)
    return changed if count else None


SAME: tuple[Change, ...] = (layout, typos, other_words, sentence_less, heading_more)
TURNED: tuple[Change, ...] = (negated, other_number)


def texts_of(folder: Path) -> list[str]:
    """Title and text of the documents of a BEIR folder, those of at least 20 words."""
    rows = map(json.loads, (folder / "corpus.jsonl").read_text(encoding="utf-8").splitlines())
    texts = [f"{row.get('title', '')}\n{row['text']}".strip() for row in rows]
    return [text for text in texts if len(text.split()) >= WORDS]


def measured(name: str, texts: list[str]) -> dict[str, object]:
    """Shares of copies and of neighbours, and what every threshold makes of them."""
    rng = random.Random(7)
    encoder = open_encoder(EncoderConfig())
    vectors = encoder.encode_documents(texts)
    vocabulary = [word for word, _ in Counter(word for text in texts for word in text.split()).most_common(5000)]
    sample = rng.sample(range(len(texts)), min(SAMPLE, len(texts)))
    kinds = {}
    for change in (*SAME, *TURNED):
        made = [(at, change(texts[at], rng, vocabulary)) for at in sample]
        pairs = [(at, copy) for at, copy in made if copy is not None]
        cosines = (encoder.encode_documents([copy for _, copy in pairs]) * vectors[[at for at, _ in pairs]]).sum(axis=1)
        found = [compare(Wording.of(texts[at]), Wording.of(copy), THRESHOLDS[0]) for at, copy in pairs]
        shares = [one.share if cosine >= CANDIDATE_COSINE else 0.0 for one, cosine in zip(found, cosines, strict=True)]
        near = [share if not one.turning else 0.0 for one, share in zip(found, shares, strict=True)]
        kinds[change.__name__] = {
            "copies": len(pairs),
            "lowest_cosine": round(float(cosines.min()), 4),
            "found_at": {str(limit): round(float(np.mean(np.array(shares) >= limit)), 4) for limit in THRESHOLDS},
            "grouped_at": {str(limit): round(float(np.mean(np.array(near) >= limit)), 4) for limit in THRESHOLDS},
        }
    neighbours = sorted(real_pairs(texts, vectors), reverse=True)
    return {
        "collection": name,
        "texts": len(texts),
        "copies": kinds,
        "pairs_compared": len(neighbours),
        "pairs_found_at": {str(limit): sum(share >= limit for share, *_ in neighbours) for limit in THRESHOLDS},
        "pairs_grouped_at": {
            str(limit): sum(share >= limit and near for share, near, *_ in neighbours) for limit in THRESHOLDS
        },
        "pairs_of_the_same_words": sum(share == 1 and near for share, near, *_ in neighbours),
        "closest_pairs": [
            {"share": round(share, 3), "first": texts[one][:160], "second": texts[other][:160]}
            for share, _, one, other in [pair for pair in neighbours if pair[1]][:40]
        ],
    }


def real_pairs(texts: list[str], vectors: np.ndarray) -> list[tuple[float, bool, int, int]]:
    """Pairs of texts whose vectors are close: the share of both, whether they would be grouped, and their places."""
    wordings = [Wording.of(text) for text in texts]
    found = []
    for start in range(0, len(texts), 512):
        rows, columns = np.nonzero(vectors[start : start + 512] @ vectors.T >= CANDIDATE_COSINE)
        for row, column in zip((rows + start).tolist(), columns.tolist(), strict=True):
            if row < column:
                one = compare(wordings[row], wordings[column], THRESHOLDS[0])
                found.append((one.share, one.kind in {"exact", "near"}, row, column))
    return found


def main() -> None:
    """Measure every collection."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("collections", nargs="+", type=Path, help="BEIR folders")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    records = [measured(folder.name, texts_of(folder)) for folder in arguments.collections]
    for record in records:
        print(json.dumps(record, indent=1, ensure_ascii=False))
    for record in records:
        del record["closest_pairs"]  # to be read by a person; the texts are not ours
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
