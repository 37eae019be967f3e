"""A corpus of any size for measuring how cost grows: real passages first, then the same text perturbed.

The real passages are the different positives of the pair files, in a random order that is always the same. After them
come perturbed ones, round after round over the same passages: each word is replaced, with probability 0.3, by a word
that stands in another passage, a different one in every round. So 30 % of a text is foreign, its vector is a new one,
and each of its words is added to the postings of a real word. A smaller corpus is the beginning of a larger one.

python benchmarks/scale_corpus.py --pairs DIR --passages 1000000 --out corpus.jsonl
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

SWAPPED = 0.3
_BLOCK = 4096


def real_passages(pairs: Path) -> list[str]:
    """The different positives of all pair files in a folder, in a random order that is always the same."""
    found: dict[str, None] = {}
    for path in sorted(pairs.glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            found.update(dict.fromkeys(json.loads(line)["positive"] for line in lines))
    texts = [text for text in found if text.strip()]
    return [texts[at] for at in np.random.default_rng(11).permutation(len(texts))]


def passages(pairs: Path, count: int) -> Iterator[str]:
    """The first ``count`` passages of the corpus."""
    texts = real_passages(pairs)
    yield from texts[:count]
    missing, number = count - len(texts), 1
    while missing > 0:
        yield from islice(_perturbed(texts, number), missing)
        missing, number = missing - len(texts), number + 1


def write_corpus(pairs: Path, out: Path, count: int) -> Path:
    """Write the corpus as JSON lines with ``_id``, ``title`` and ``text``; a file that is there already is kept."""
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        growing = out.with_name(f"{out.name}.new")
        with growing.open("w", encoding="utf-8") as file:
            for number, text in enumerate(passages(pairs, count)):
                file.write(json.dumps({"_id": f"p{number:07}", "title": "", "text": text}, ensure_ascii=False) + "\n")
        os.replace(growing, out)
    return out


def real_queries(pairs: Path, count: int = 300) -> list[str]:
    """Queries of all pair files, the same number of each, in a random order that is always the same."""
    chosen: list[str] = []
    files = sorted(pairs.glob("*.jsonl.gz"))
    for path in files:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            chosen.extend(json.loads(line)["query"] for line in islice(lines, 2 * count // len(files) + 1))
    return [chosen[at] for at in np.random.default_rng(7).permutation(len(chosen))[:count]]


def _perturbed(texts: list[str], number: int) -> Iterator[str]:
    """One round over all passages with words of others swapped in."""
    generator = np.random.default_rng([13, number])
    for start in range(0, len(texts), _BLOCK):
        words = [text.split() for text in texts[start : start + _BLOCK]]
        donors = generator.integers(0, len(texts), len(words))
        for own, donor in zip(words, donors, strict=True):
            foreign = texts[donor].split()
            chosen = np.flatnonzero(generator.random(len(own)) < SWAPPED)
            taken = generator.integers(0, len(foreign), len(chosen))
            for at, other in zip(chosen.tolist(), taken.tolist(), strict=True):
                own[at] = foreign[other]
            yield " ".join(own)


def main() -> None:
    """Write a corpus."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=Path, required=True, help="folder of pair files")
    parser.add_argument("--passages", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines")
    arguments = parser.parse_args()
    write_corpus(arguments.pairs, arguments.out, arguments.passages)


if __name__ == "__main__":
    main()
