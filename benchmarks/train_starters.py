"""Make both bundled models again, from a folder of pairs and a sentence transformer.

    python benchmarks/train_starters.py --pairs DIR --teacher DIR --out DIR [--stage static|mine|contrast|rerank|export]

Without ``--stage`` all five run, one after the other; each reads from ``--out`` what the one before left there.
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
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from pipelines.mine import mine_lists
from pipelines.mining_index import mining_config, pair_passages
from pipelines.two_stage import TwoStagePipeline
from retrieval.config import Config, EncoderConfig
from retrieval.training.contrast.lists import ContrastSettings, contrast_lists
from retrieval.training.mine import MineSettings
from retrieval.training.pairs import Pair, PairSettings, passages_of, read_pairs, split_sentences
from retrieval.training.reranker.export import export_reranker
from retrieval.training.reranker.lists import read_lists, write_lists
from retrieval.training.reranker.network import NetworkShape, Parameters, load_network, scale_head
from retrieval.training.reranker.rerank import RerankProgress, RerankSettings, train_reranker
from retrieval.training.static.distill import distill
from retrieval.training.static.finetune import FinetuneSettings, finetune
from retrieval.training.static.lessons import TaughtTexts
from retrieval.training.table import StaticTable, average_tables
from retrieval.training.teacher import Teacher

STAGES = ("static", "mine", "contrast", "rerank", "export")

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
# Texts that the teacher reads, cut to so many words; a query to three sentences.
TAUGHT, TAUGHT_WORDS = 18_432, 24


@dataclass(frozen=True)
class StaticRun:
    """One training of the table, with or without the passages and the teacher's texts beside the labelled pairs."""

    settings: FinetuneSettings
    passages: bool = False
    teacher: bool = False


# From the same start, averaged: the average is better than each of them.
STATIC_RUNS = (
    StaticRun(FinetuneSettings(epochs=4, learning_rate=0.06)),
    StaticRun(FinetuneSettings(epochs=3, learning_rate=0.03, query_dropout=0.15), passages=True),
    StaticRun(FinetuneSettings(epochs=5, learning_rate=0.08, query_dropout=0.1), passages=True),
)
# Pairs of each file that contrast lists are made from.
CONTRAST = {
    "fever_dev_evidence": 3100,
    "squad_v1_paragraphs": 700,
    "squadshifts_new_wiki": 500,
    "scitldr": 1500,
    "boolq_dev": 700,
    "medquad": 400,
    "pubmedqa_l": 300,
    "tech_docs_sections": 400,
    "xquad_en": 150,
    "qamr_wiki": 300,
}
# The lists that the bundled model read, in three courses: two runs on different ones, averaged; more of them; and more
# of them mixed with contrast lists. The schedule of the learning rate followed the clock then and follows the steps
# here.
RERANK_LISTS, MORE_LISTS, MIXED_LISTS, CONTRAST_LISTS = 2680, 4900, 5630, 2810
RERANK_RUNS = tuple(RerankSettings(minutes=24 * 60.0, epochs=1, seed=seed) for seed in (0, 1))
MORE = RerankSettings(minutes=24 * 60.0, epochs=1, seed=7, warmup=0.01, average=0.995)
MIXED = replace(MORE, seed=8)
# Slope and offset of the logits with which .4 first stage and .6 sigmoid ordered the queries of ten sets best.
HEAD = (0.6, 1.0)
# Lists whose candidates tell whether the rounded network ranks as the float one.
CHECKED = 60


def train_static(training: Sequence[Pair], folder: Path, out: Path) -> None:
    """What was made on the way stays in ``out``; a second call goes on from there."""
    start = start_of(folder, out)
    taught = taught_texts(training, folder, out) if any(run.teacher for run in STATIC_RUNS) else None
    tables = []
    for number, run in enumerate(STATIC_RUNS, 1):
        made = out / f"static-run-{number}"
        if not (made / "config.json").exists():
            say(f"run {number} of {len(STATIC_RUNS)}")
            passages = [pair.positive for pair in training] if run.passages else []
            lessons = taught if run.teacher else None
            trained = finetune(start, training, run.settings, show_steps, passages=passages, taught=lessons)
            trained.save(made, name=made.name, precision="float32")
        tables.append(StaticTable.open(made))
    matryoshka = STATIC_RUNS[0].settings.matryoshka
    average_tables(tables).save(out / "starter-static", name="starter-static", matryoshka=matryoshka)


def start_of(folder: Path, out: Path) -> StaticTable:
    made = out / "static-start"
    if not (made / "config.json").exists():
        distill(folder).save(made, name=made.name, precision="float32")
    return StaticTable.open(made)


def taught_texts(training: Sequence[Pair], folder: Path, out: Path) -> TaughtTexts:
    generator = random.Random(0)
    cut = (
        " ".join(words[:TAUGHT_WORDS])
        for passage in passages_of(training)
        for words in map(str.split, split_sentences(passage))
        if len(words) >= 4
    )
    sentences, queries = list(dict.fromkeys(cut)), list(dict.fromkeys(pair.query for pair in training))
    generator.shuffle(sentences)
    generator.shuffle(queries)
    texts = [*sentences[: TAUGHT * 3 // 4], *queries[: TAUGHT // 4]]
    made = out / "static-taught.npy"
    if not made.exists():
        say(f"the teacher reads {len(texts)} texts")
        np.save(made, Teacher(folder).encode(texts))
    return TaughtTexts(texts, np.load(made))


def show_steps(done: int, of: int, loss: float) -> None:
    say(f"step {done} of {of}, {loss:.4f}")


def mine_negatives(training: Sequence[Pair], judge: str | None, out: Path) -> None:
    """What was made on the way stays in ``out``; a second call goes on from there."""
    config = mining_config(Config(encoder=EncoderConfig(model=str(out / "starter-static"))), whole=True)
    if judge is not None:
        config = config.model_copy(update={"rerank": config.rerank.model_copy(update={"model": judge})})
    generator = random.Random(0)
    chosen: list[Pair] = []
    for name, limit in LISTS.items():
        pairs = [pair for pair in training if pair.source == name]
        chosen.extend(generator.sample(pairs, min(limit, len(pairs))))
    # Three quarters of the lists with shorter windows: they cost less, and sizes vary in use.
    generator.shuffle(chosen)
    cut = len(chosen) * 3 // 4
    index = out / "mining-index"
    with TwoStagePipeline.open(index, config) as pipeline:
        pipeline.ingest(pair_passages(training))
    found = []
    for words, part in ((56, chosen[:cut]), (90, chosen[cut:])):
        made, settings = out / f"lists-{words}.jsonl.gz", MineSettings(window_words=words)
        if not made.exists():
            show_lists = progress_of("lists")
            mine_lists(
                part,
                made,
                config,
                index=index,
                known=training,
                settings=settings,
                rerank=judge is not None,
                on_progress=lambda progress, show=show_lists: show(progress.done, progress.of),
            )
        found.extend(read_lists(made))
    write_lists(found, out / "lists.jsonl.gz")


def make_contrast(training: Sequence[Pair], out: Path) -> None:
    ordinary = {item.query: item.negatives for item in read_lists(out / "lists.jsonl.gz")}
    generator = random.Random(5)
    found = []
    for name, limit in CONTRAST.items():
        pairs = list({pair.positive: pair for pair in training if pair.source == name}.values())
        chosen = generator.sample(pairs, min(limit, len(pairs)))
        found.extend(contrast_lists(chosen, ContrastSettings(seed=3), ordinary=ordinary))
    write_lists(found, out / "contrast.jsonl.gz")


def train_cross_encoder(teacher: Path, out: Path) -> None:
    from safetensors.torch import save_file

    parameters, shape = load_network(teacher)
    tokenizer = tokenizer_of(teacher)
    lists, contrast = (read_lists(out / name) for name in ("lists.jsonl.gz", "contrast.jsonl.gz"))
    for number, found in enumerate((lists, contrast), 1):
        random.Random(number).shuffle(found)
    del lists[-CHECKED:]
    results = []
    for number, settings in enumerate(RERANK_RUNS):
        part = lists[number :: len(RERANK_RUNS)][:RERANK_LISTS]
        results.append(train_reranker(parameters, shape, tokenizer, part, settings, show))
    trained: Parameters = {name: sum(result[name] for result in results) / len(results) for name in parameters}
    read = RERANK_LISTS * len(RERANK_RUNS)
    trained = train_reranker(trained, shape, tokenizer, lists[read : read + MORE_LISTS], MORE, show)
    mixed = [*lists[read + MORE_LISTS :][:MIXED_LISTS], *contrast[:CONTRAST_LISTS]]
    trained = train_reranker(trained, shape, tokenizer, mixed, MIXED, show)
    save_file({name: tensor.contiguous() for name, tensor in trained.items()}, str(out / "reranker.safetensors"))
    (out / "reranker.json").write_text(json.dumps(asdict(shape)), encoding="utf-8")


def show(progress: RerankProgress) -> None:
    say(f"step {progress.step}, {progress.lists} lists, {progress.share:.0%}, loss {progress.loss:.4f}")


def export(teacher: Path, out: Path) -> None:
    from safetensors.torch import load_file

    parameters: Parameters = load_file(str(out / "reranker.safetensors"))
    shape = NetworkShape(**json.loads((out / "reranker.json").read_text(encoding="utf-8")))
    scaled = scale_head(parameters, *HEAD)
    lists = read_lists(out / "lists.jsonl.gz")
    random.Random(1).shuffle(lists)
    check = [(item.query, [item.positive, *item.negatives]) for item in lists[-CHECKED:]]
    for rounding in export_reranker(scaled, shape, tokenizer_of(teacher), out / "starter-reranker", check=check):
        say(str(rounding))


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
    parser.add_argument("--judge", help="cross-encoder that drops false negatives while mining; none without")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    training, held_out = read_pairs(arguments.pairs, PAIRS)
    for stage in [arguments.stage] if arguments.stage else STAGES:
        say(f"{stage}: {len(training)} pairs, {len(held_out)} held out")
        if stage == "static":
            train_static(training, arguments.teacher, arguments.out)
        elif stage == "mine":
            mine_negatives(training, arguments.judge, arguments.out)
        elif stage == "contrast":
            make_contrast(training, arguments.out)
        elif stage == "rerank":
            train_cross_encoder(arguments.teacher, arguments.out)
        else:
            export(arguments.teacher, arguments.out)


if __name__ == "__main__":
    main()
