"""Smaller cross-encoders, and losses, compared at equal cost of reading.

    python benchmarks/reranker_variants.py --network DIR --teacher DIR --lists FILE --pairs DIR --beir DIR --out FILE

The trained network (``network.safetensors``, ``network.json``) scores the lists. Students keep some of its layers and
are trained on these lists, as many as the same number of layer passes allows. All are judged on the development sets
of `benchmarks/defaults.py`, each reading so many candidates that all spend about as much as six layers on twenty.
What is done is kept beside ``--out``, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from defaults import DEVELOPMENT_PAIRS, DevelopmentSet, fused, ranked, read_collection, read_pairs, score
from train_starters import say, tokenizer_of

from pipelines import TwoStagePipeline
from pipelines.points import readable_text
from retrieval.config import Config
from retrieval.datatypes import SearchRequest
from retrieval.ordering import order, scale_to_unit
from retrieval.rerankers import choose_windows
from retrieval.training.reranker.batches import BatchSettings, pad_pairs, tokenize_pairs
from retrieval.training.reranker.lists import RankingList, read_lists
from retrieval.training.reranker.losses import LossName
from retrieval.training.reranker.network import NetworkShape, Parameters, load_network, open_network, score_pairs
from retrieval.training.reranker.rerank import RerankSettings, train_reranker

DEEPEST = 40
WEIGHTS = (0.2, 0.3, 0.4, 0.5, 0.6)
SLOPES = (0.25, 0.4, 0.6, 0.85, 1.2)
OFFSETS = (-4.0, -2.5, -1.0, 0.0, 1.0, 2.0)


@dataclass(frozen=True)
class Variant:
    """Layers that are kept of the trained network, the loss, and how much is read and learned."""

    name: str
    layers: tuple[int, ...]
    depth: int
    loss: LossName | None = None  # None: not trained
    fresh: bool = False  # from the sentence transformer, not from the trained network


VARIANTS = (
    Variant("6 layers, as shipped", (0, 1, 2, 3, 4, 5), 20),
    Variant("4 layers, listwise", (0, 2, 3, 5), 30, "listwise"),
    Variant("4 layers, distil", (0, 2, 3, 5), 30, "distil"),
    Variant("3 layers, listwise", (1, 3, 5), 40, "listwise"),
    Variant("3 layers, margin", (1, 3, 5), 40, "margin"),
    Variant("3 layers, distil", (1, 3, 5), 40, "distil"),
    Variant("3 layers, distil, from the sentence transformer", (1, 3, 5), 40, "distil", fresh=True),
)


def pruned(parameters: Parameters, shape: NetworkShape, layers: tuple[int, ...]) -> tuple[Parameters, NetworkShape]:
    """Some layers of a trained network, with what opens those of them that look across the segments."""
    across = [layer - shape.separate for layer in layers if layer >= shape.separate]
    kept: Parameters = {}
    for name, tensor in parameters.items():
        if name.startswith("encoder.layer."):
            number, rest = name.removeprefix("encoder.layer.").split(".", 1)
            if int(number) in layers:
                kept[f"encoder.layer.{layers.index(int(number))}.{rest}"] = tensor.clone()
        else:
            kept[name] = tensor[across].clone() if name in ("across.opening", "across.match") else tensor.clone()
    return kept, replace(shape, layers=len(layers), separate=len(layers) - len(across))


def scorer(parameters: Parameters, shape: NetworkShape, tokenizer: Any) -> Callable[[str, Sequence[str]], list[float]]:
    import torch

    settings = BatchSettings()

    def of(query: str, texts: Sequence[str]) -> list[float]:
        pairs = tokenize_pairs(
            tokenizer, [query] * len(texts), texts, max_tokens=settings.max_tokens, query_tokens=settings.query_tokens
        )
        at = sorted(range(len(pairs)), key=lambda row: len(pairs[row][0]))
        found = [0.0] * len(pairs)
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            for start in range(0, len(at), 8):
                rows = at[start : start + 8]
                arrays = pad_pairs([pairs[row] for row in rows])
                logits = score_pairs(parameters, shape, *(torch.from_numpy(array) for array in arrays))[:, 0]
                for row, value in zip(rows, logits.float().tolist(), strict=True):
                    found[row] = value
        return found

    return of


def with_scores(lists: list[RankingList], score_of: Callable[[str, Sequence[str]], list[float]]) -> list[RankingList]:
    taught = []
    for number, item in enumerate(lists):
        texts = [item.positive, *item.negatives[:5]]
        taught.append(replace(item, negatives=tuple(texts[1:]), scores=tuple(score_of(item.query, texts))))
        if number % 200 == 0:
            say(f"teacher: {number}/{len(lists)}")
    return taught


def candidates_of(development: DevelopmentSet, folder: Path) -> list[dict[str, Any]]:
    """The first `DEEPEST` candidates of every query with the window that a cross-encoder reads."""
    config, found = Config(), []
    with TwoStagePipeline.open(folder, config) as pipeline:
        pipeline.ingest(development.documents)
        for name, query in development.queries.items():
            dense, sparse = pipeline.encoder.encode_queries([query]), pipeline.sparse.encode_queries([query])
            answers = pipeline.store.search([SearchRequest(dense[0], 100), SearchRequest(sparse[0], 100)])
            best = fused({"dense": answers[0], "bm25": answers[1]}, 0.4)
            payloads = {point.id: point.payload for point in pipeline.store.get([one.id for one in best])}
            read = best[:DEEPEST]
            texts = [str(payloads[one.id]["text"]) for one in read]
            spans = choose_windows(dense[0], texts, pipeline.encoder, config.rerank.window_words)
            found.append(
                {
                    "name": name,
                    "query": query,
                    "documents": [str(payloads[one.id]["document_id"]) for one in best],
                    "ids": [one.id for one in best],
                    "first": [one.score for one in best],
                    "windows": [
                        readable_text(payloads[one.id], text[start:end])
                        for one, text, (start, end) in zip(read, texts, spans, strict=True)
                    ],
                }
            )
    return found


def ndcg(
    development: DevelopmentSet, rows: list[dict[str, Any]], logits: dict[str, list[float]], depth: int,
    weight: float, slope: float, offset: float,
) -> float:  # fmt: skip
    run = {}
    for row in rows:
        scores = [weight * value for value in scale_to_unit(row["first"])]
        for place, logit in enumerate(logits[row["name"]][:depth]):
            scores[place] += (1 - weight) / (1 + np.exp(-(slope * logit + offset)))
        positions = order(scores, list(range(1, len(scores) + 1)), row["ids"])
        run[row["name"]] = ranked([row["documents"][at] for at in positions], [scores[at] for at in positions])
    return score(development, run)


def judge(
    developments: dict[str, DevelopmentSet],
    candidates: dict[str, list[dict[str, Any]]],
    logits: dict[str, dict[str, list[float]]],
    depth: int,
) -> dict[str, Any]:
    """Best head and weight of the whole, and left-one-out: each set with what is best on all others."""
    grid = [(weight, slope, offset) for weight in WEIGHTS for slope in SLOPES for offset in OFFSETS]
    table = {
        name: [ndcg(developments[name], candidates[name], logits[name], depth, *setting) for setting in grid]
        for name in developments
    }
    means = [statistics.mean(table[name][at] for name in table) for at in range(len(grid))]
    best = int(np.argmax(means))
    left_out = {}
    for name in table:
        others = [statistics.mean(table[o][at] for o in table if o != name) for at in range(len(grid))]
        left_out[name] = table[name][int(np.argmax(others))]
    return {
        "mean": means[best],
        "setting": grid[best],
        "left_one_out": statistics.mean(left_out.values()),
        "sets": {name: table[name][best] for name in table},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=Path, required=True, help="folder with the trained network")
    parser.add_argument("--teacher", type=Path, required=True, help="the sentence transformer that it started from")
    parser.add_argument("--lists", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--beir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2000, help="lists that three layers learn from")
    parser.add_argument("--queries", type=int, default=60, help="queries of each development set")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    work = arguments.out.with_suffix(".work")
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer_of(arguments.teacher)
    network, shape = open_network(arguments.network)
    developments = {"scifact-train": read_collection(arguments.beir / "scifact", "train", arguments.queries)}
    for name in DEVELOPMENT_PAIRS:
        developments[name] = read_pairs(arguments.pairs / f"{name}.jsonl.gz", arguments.queries, 6000)
    candidates = kept(
        work / "candidates.pkl",
        lambda: {name: candidates_of(one, work / f"index-{name}") for name, one in developments.items()},
    )
    lists = read_lists(arguments.lists)
    random.Random(3).shuffle(lists)
    taught = kept(work / "taught.pkl", lambda: with_scores(lists[: arguments.count], scorer(network, shape, tokenizer)))
    report = []
    for variant in VARIANTS:
        made = kept(
            work / f"{variant.name}.pkl",
            lambda variant=variant: run_variant(variant, network, shape, tokenizer, taught, candidates, arguments),
        )
        row = {"variant": variant.name, "depth": variant.depth, **made["facts"]}
        row |= judge(developments, candidates, made["logits"], variant.depth)
        row["at_20"] = judge(developments, candidates, made["logits"], 20)["mean"]
        report.append(row)
        say(f"{variant.name}: {row['mean']:.4f} left-one-out {row['left_one_out']:.4f} {made['facts']}")
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def run_variant(variant, network, shape, tokenizer, taught, candidates, arguments):  # noqa: ANN001, ANN201
    if variant.fresh:
        parameters, small = load_network(arguments.teacher, layers=variant.layers)
    else:
        parameters, small = pruned(network, shape, variant.layers)
    facts: dict[str, Any] = {"layers": len(variant.layers)}
    if variant.loss is not None:
        count = round(len(taught) * 3 / len(variant.layers))
        settings = RerankSettings(minutes=600.0, epochs=1, loss=variant.loss, seed=3, report_every=120.0)
        started = time.process_time()
        parameters = train_reranker(
            parameters,
            small,
            tokenizer,
            taught[:count],
            settings,
            lambda p: say(f"{variant.name}: {p.lists} {p.loss:.3f}"),
        )
        facts |= {"lists": count, "training_cpu_s": round(time.process_time() - started)}
    read = scorer(parameters, small, tokenizer)
    started, texts, logits = time.process_time(), 0, {}
    for name, rows in candidates.items():
        logits[name] = {row["name"]: read(row["query"], row["windows"][: variant.depth]) for row in rows}
        texts += sum(len(values) for values in logits[name].values())
    facts["ms_per_text_float"] = round(1000 * (time.process_time() - started) / texts, 2)
    return {"facts": facts, "logits": logits}


def kept(path: Path, make: Callable[[], Any]) -> Any:
    if not path.exists():
        made = make()
        part = path.with_suffix(".part")
        part.write_bytes(pickle.dumps(made))
        part.replace(path)
    return pickle.loads(path.read_bytes())


if __name__ == "__main__":
    main()
