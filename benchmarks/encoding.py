"""Speed of the static encoder beside Model2Vec and sentence-transformers, same weights, same texts, same run.

    python benchmarks/encoding.py --corpus data/scifact --model retrieval/models/starter-static --json encoding.json

The corpus is a BEIR folder with corpus.jsonl. The weights are saved in the formats of both libraries first. Nothing is
cut off: the other two read all tokens, as this encoder does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders import StaticEncoder
from retrieval.token_tables.formats import open_static_model

Encode = Callable[[list[str]], NDArray[Any]]


def read_texts(corpus: Path, limit: int | None) -> list[str]:
    with (corpus / "corpus.jsonl").open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return [f"{record.get('title', '')} {record['text']}".strip() for record in records][:limit]


def write_copies(model: Path, folder: Path) -> None:
    from model2vec import StaticModel
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding

    opened = open_static_model(model)
    table = opened.table.read(np.arange(opened.table.tokens), opened.table.embeddings.shape[1])
    StaticModel(table, opened.tokenizer, normalize=True, max_length=None).save_pretrained(folder / "model2vec")
    modules: list[Any] = [StaticEmbedding(opened.tokenizer, embedding_weights=table), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "st"), create_model_card=False)


def open_all(model: Path, folder: Path) -> dict[str, Callable[[], Encode]]:
    from model2vec import StaticModel
    from sentence_transformers import SentenceTransformer

    ours = StaticEncoder.open(model)
    model2vec = StaticModel.from_pretrained(folder / "model2vec")
    transformer = SentenceTransformer(str(folder / "st"), device="cpu")

    def sentence_transformers(texts: list[str]) -> NDArray[Any]:
        vectors: NDArray[Any] = transformer.encode(texts, batch_size=1024, show_progress_bar=False)
        return vectors

    return {
        "this, words known": lambda: ours.encode_documents,
        "this, first call": lambda: StaticEncoder.open(model).encode_documents,
        "model2vec": lambda: model2vec.encode,
        "sentence-transformers": lambda: sentence_transformers,
    }


def measure(
    systems: dict[str, Callable[[], Encode]], texts: list[str], repeats: int
) -> dict[str, dict[str, list[float]]]:
    """Wall-clock and CPU seconds of each system; repeats are interleaved, so that all meet the same disturbances."""
    seconds: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in systems}
    for _ in range(repeats):
        for name, prepare in systems.items():
            encode = prepare()
            wall, cpu = time.perf_counter(), time.process_time()
            encode(texts)
            seconds[name]["wall"].append(time.perf_counter() - wall)
            seconds[name]["cpu"].append(time.process_time() - cpu)
    return seconds


def smallest_cosines(systems: dict[str, Callable[[], Encode]], texts: list[str]) -> dict[str, float]:
    """Smallest cosine of each system's vectors with this encoder's; also the run that warms everything up."""
    vectors = {name: np.asarray(prepare()(texts), np.float64) for name, prepare in systems.items()}
    reference = vectors["this, words known"]
    return {name: float((rows * reference).sum(axis=1).min()) for name, rows in vectors.items()}


def setting(arguments: argparse.Namespace, texts: list[str]) -> dict[str, Any]:
    packages = ("numpy", "tokenizers", "model2vec", "sentence-transformers", "torch")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "threads": {name: os.environ.get(name, "not set") for name in ("TOKENIZERS_PARALLELISM", "OMP_NUM_THREADS")},
        "packages": {name: version(name) for name in packages},
        "corpus": arguments.corpus.name,
        "texts": len(texts),
        "characters": sum(map(len, texts)),
        "repeats": arguments.repeats,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="BEIR folder with corpus.jsonl")
    parser.add_argument("--model", type=Path, required=True, help="folder of a static model")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit", type=int, default=None, help="only the first texts")
    parser.add_argument("--json", type=Path, default=None, help="where the raw numbers go")
    arguments = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

    texts = read_texts(arguments.corpus, arguments.limit)
    with tempfile.TemporaryDirectory() as folder:
        write_copies(arguments.model, Path(folder))
        systems = open_all(arguments.model, Path(folder))
        cosines = smallest_cosines(systems, texts)
        seconds = measure(systems, texts, arguments.repeats)

    medians = {name: {kind: statistics.median(runs) for kind, runs in each.items()} for name, each in seconds.items()}
    peer = medians["model2vec"]
    print(f"{'':24}{'wall s':>8}{'texts/s':>9}{'ratio':>7}{'CPU s':>8}{'ratio':>7}  smallest cosine")
    for name, median in medians.items():
        wall, cpu = median["wall"], median["cpu"]
        ratios = f"{peer['wall'] / wall:7.1f}{cpu:8.3f}{peer['cpu'] / cpu:7.1f}"
        print(f"{name:24}{wall:8.3f}{len(texts) / wall:9.0f}{ratios}  {cosines[name]:.7f}")
    if arguments.json:
        content = {"setting": setting(arguments, texts), "seconds": seconds, "smallest_cosine": cosines}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
