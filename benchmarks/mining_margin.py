"""How many mined negatives hold the answer after all, without and with the margin of the cross-encoder.

    python benchmarks/mining_margin.py --pairs squad_v1_paragraphs.jsonl.gz --queries 300 --out margin.json

The answers are hidden from the miner and looked for afterwards. Queries come in the order of the hash that decides
which of them are held out, so those that no bundled model was trained on are first.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.mining_index import mining_config, pair_passages
from pipelines.pair_files import PairFiles
from pipelines.two_stage import TwoStagePipeline
from retrieval.config import Config
from retrieval.datatypes import FloatArray
from retrieval.models import find_model
from retrieval.protocols import Reranker
from retrieval.rerankers import open_reranker
from retrieval.training.known import KnownPositives
from retrieval.training.mine import Miner, MineSettings
from retrieval.training.pairs import Pair
from retrieval.training.reranker.lists import holds

MARGINS = (None, ("relative", 1.0), ("relative", 0.95), ("relative", 0.9), ("relative", 0.8), ("relative", 0.6))


class Remembering:
    """A cross-encoder that reads no pair twice."""

    def __init__(self, reranker: Reranker) -> None:
        self._reranker = reranker
        self._scores: dict[tuple[str, str], float] = {}

    @property
    def name(self) -> str:
        return self._reranker.name

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        new = [text for text in texts if (query, text) not in self._scores]
        if new:
            self._scores.update(zip(((query, text) for text in new), self._reranker.score(query, new), strict=True))
        return np.array([self._scores[query, text] for text in texts], dtype=np.float32)


def measure(pairs: Sequence[Pair], asked: Sequence[Pair], index: Path) -> list[dict[str, Any]]:
    config = Config()
    reranker = Remembering(open_reranker(config.rerank, find_model(config.rerank.model)))
    known = KnownPositives()
    for pair in pairs:
        known.add(pair)
    rows = []
    with TwoStagePipeline.open(index, mining_config(config, whole=True)) as pipeline:
        pipeline.ingest(pair_passages(pairs))
        for margin in MARGINS:
            settings = MineSettings() if margin is None else MineSettings(margin_kind=margin[0], margin=margin[1])
            judge = None if margin is None else reranker
            miner = Miner(pipeline.store, pipeline.encoder, pipeline.sparse, known, judge, settings)
            lists, counts = miner.mine([replace(pair, answer="", negatives=()) for pair in asked])
            answers = {pair.query: pair.answer for pair in asked}
            held = sum(holds(text, answers[item.query]) for item in lists for text in item.negatives)
            rows.append({"margin": margin, "passages": pipeline.manifest.passages, "holding": held, **asdict(counts)})
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="file of pairs with answers")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    pairs = list(PairFiles([arguments.pairs]))
    asked = sorted(
        (pair for pair in pairs if pair.answer),
        key=lambda pair: hashlib.sha256(pair.query.strip().lower().encode()).digest()[:4],
    )
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(pairs, asked[: arguments.queries], Path(folder) / "index")
    arguments.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
