"""Make both bundled models again, from a folder of pairs and a sentence transformer.

    python benchmarks/train_starters.py --pairs DIR --teacher DIR --out DIR [--stage static|mine|rerank|export]

Without ``--stage`` all four run, one after the other; each reads from ``--out`` what the one before left there.
Which rows of the pair files are used, and why those, stands in the cards of the models.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from retrieval.config import Bm25Config
from retrieval.encoders import Bm25Encoder, StaticEncoder
from retrieval.training.distill import distill
from retrieval.training.export import export_reranker
from retrieval.training.finetune import FinetuneSettings, finetune
from retrieval.training.lists import read_lists, write_lists
from retrieval.training.mine import MineSettings, mine
from retrieval.training.network import NetworkShape, Parameters, load_network, scale_head
from retrieval.training.pairs import Pair, PairSettings, read_pairs, sentence_pairs
from retrieval.training.rerank import RerankProgress, RerankSettings, train_reranker
from retrieval.training.table import average_tables

STAGES = ("static", "mine", "rerank", "export")

# Queries of each file that get a list for the cross-encoder; the licences of these files allow passing weights on.
LISTS = {
    "squad_v1_paragraphs": 6000,
    "squad_sent_nqg": 2500,
    "squadshifts_new_wiki": 4000,
    "fever_dev_evidence": 3100,
    "qamr_wiki": 1500,
    "boolq_dev": 3000,
    "xquad_en": 1200,
    "medquad": 3000,
    "pubmedqa_l": 1000,
    "covidqa_deepset": 1400,
    "scitldr": 4300,
    "policyqa": 0,
    "fairytaleqa": 3000,
    "tech_docs_sections": 2500,
    "python_docstring_code": 1200,
}
PAIRS = PairSettings(
    files=tuple(LISTS),
    sources={
        "tech_docs_sections": ("python", "django", "sqlite", "apache", "postgresql", "pandas"),
        "python_docstring_code": ("pandas/numpy", "stdlib"),
    },
)
# Three runs from the same start, averaged: the average is better than each of them.
STATIC_RUNS = (
    (FinetuneSettings(epochs=4, learning_rate=0.06), False),
    (FinetuneSettings(epochs=3, learning_rate=0.03, query_dropout=0.15), True),
    (FinetuneSettings(epochs=5, learning_rate=0.08, query_dropout=0.1), True),
)
# Two runs on different lists, averaged. Each read so many lists when the bundled model was made; the schedule of the
# learning rate followed the clock then and follows the steps here.
RERANK_LISTS = 2680
RERANK_RUNS = tuple(RerankSettings(minutes=24 * 60.0, epochs=1, seed=seed) for seed in (0, 1))
# Slope and offset of the logits with which half first stage and half sigmoid ordered held-out queries best.
HEAD = (0.5, -5.0)


def train_static(training: Sequence[Pair], teacher: Path, out: Path) -> None:
    start = distill(teacher)
    sentences = sentence_pairs(list(dict.fromkeys(pair.positive for pair in training)))
    tables = []
    for number, (settings, with_sentences) in enumerate(STATIC_RUNS, 1):
        pairs = [*training, *sentences] if with_sentences else training
        say(f"run {number} of {len(STATIC_RUNS)}")
        tables.append(finetune(start, pairs, settings, lambda done, of, loss: say(f"step {done} of {of}, {loss:.4f}")))
    average_tables(tables).save(out / "starter-static", name="starter-static", matryoshka=STATIC_RUNS[0][0].matryoshka)


def mine_lists(training: Sequence[Pair], out: Path) -> None:
    encoder, sparse = StaticEncoder.open(out / "starter-static"), Bm25Encoder(Bm25Config())
    generator = random.Random(0)
    chosen: list[Pair] = []
    for name, limit in LISTS.items():
        pairs = [pair for pair in training if pair.source == name]
        chosen.extend(generator.sample(pairs, min(limit, len(pairs))))
    # Three quarters of the lists with shorter windows: they cost less, and sizes vary in use.
    generator.shuffle(chosen)
    cut = len(chosen) * 3 // 4
    found = [
        item
        for words, part in ((56, chosen[:cut]), (90, chosen[cut:]))
        for item in mine(part, training, encoder, sparse, MineSettings(window_words=words), progress_of("lists"))
    ]
    write_lists(found, out / "lists.jsonl.gz")


def train_cross_encoder(teacher: Path, out: Path) -> None:
    from safetensors.torch import save_file

    parameters, shape = load_network(teacher)
    lists = read_lists(out / "lists.jsonl.gz")
    random.Random(1).shuffle(lists)
    results = []
    for number, settings in enumerate(RERANK_RUNS):
        part = lists[number :: len(RERANK_RUNS)][:RERANK_LISTS]
        results.append(train_reranker(parameters, shape, tokenizer_of(teacher), part, settings, show))
    average = {name: sum(result[name] for result in results) / len(results) for name in parameters}
    save_file(average, str(out / "reranker.safetensors"))
    (out / "reranker.json").write_text(json.dumps(asdict(shape)), encoding="utf-8")


def show(progress: RerankProgress) -> None:
    say(f"step {progress.step}, {progress.lists} lists, {progress.share:.0%}, loss {progress.loss:.4f}")


def export(teacher: Path, out: Path) -> None:
    from safetensors.torch import load_file

    parameters: Parameters = load_file(str(out / "reranker.safetensors"))
    shape = NetworkShape(**json.loads((out / "reranker.json").read_text(encoding="utf-8")))
    scaled = scale_head(parameters, *HEAD)
    export_reranker(scaled, shape, tokenizer_of(teacher), out / "starter-reranker")


def tokenizer_of(teacher: Path):  # noqa: ANN201
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(teacher / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def progress_of(label: str):  # noqa: ANN201
    every = itertools.count()
    return lambda done, of: say(f"{label}: {done}/{of}") if next(every) % 20 == 0 else None


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="folder with the pair files")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path, required=True, help="folder for the models and what is made on the way")
    parser.add_argument("--stage", choices=STAGES, help="only this one")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    training, held_out = read_pairs(arguments.pairs, PAIRS)
    for stage in [arguments.stage] if arguments.stage else STAGES:
        say(f"{stage}: {len(training)} pairs, {len(held_out)} held out")
        if stage == "static":
            train_static(training, arguments.teacher, arguments.out)
        elif stage == "mine":
            mine_lists(training, arguments.out)
        elif stage == "rerank":
            train_cross_encoder(arguments.teacher, arguments.out)
        else:
            export(arguments.teacher, arguments.out)


if __name__ == "__main__":
    main()
