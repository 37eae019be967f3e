"""Speed of the static encoder beside Model2Vec and sentence-transformers: same weights, same texts, same run.

    python -m benchmarks.encoding --corpus data/scifact --model retrieval/models/starter-static \
        --json benchmarks/encoding.json
    python -m benchmarks.encoding --json benchmarks/encoding.json --report

The corpus is a BEIR folder with corpus.jsonl, and all of it is encoded twice over. The weights are saved in the formats
of both libraries first. Nothing is cut off: the other two read all tokens, as this encoder does. One process for each
number of threads; see `encoding_run`. The table beside the JSON file is made from it alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.encoding_report import report
from retrieval.encoders import prepare_compiled
from retrieval.token_tables.formats import open_static_model

THREADS = (1, 2)
PACKAGES = ("numpy", "numba", "llvmlite", "tokenizers", "model2vec", "sentence-transformers", "torch")


def read_texts(corpus: Path, limit: int | None) -> list[str]:
    """Title and text of the documents of a BEIR folder."""
    with (corpus / "corpus.jsonl").open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return [f"{record.get('title', '')} {record['text']}".strip() for record in records][:limit]


def write_copies(model: Path, folder: Path) -> None:
    """Save a static model in the formats of both libraries, as ``model2vec`` and ``st``."""
    from model2vec import StaticModel
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding

    opened = open_static_model(model)
    table = opened.table.read(np.arange(opened.table.tokens), opened.table.embeddings.shape[1])
    StaticModel(table, opened.tokenizer, normalize=True, max_length=None).save_pretrained(folder / "model2vec")
    modules: list[Any] = [StaticEmbedding(opened.tokenizer, embedding_weights=table), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "st"), create_model_card=False)


def run(model: Path, folder: Path, threads: int, repeats: int) -> dict[str, Any]:
    """Everything with so many threads, in a process of its own that has no more cores."""
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    limits["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
    command = [sys.executable, "-m", "benchmarks.encoding_run", str(model), str(folder), str(threads), str(repeats)]
    done = subprocess.run(command, env={**os.environ, **limits}, stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def setting(arguments: argparse.Namespace, texts: list[str]) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "packages": {name: version(name) for name in PACKAGES},
        "corpus": arguments.corpus.name,
        "model": arguments.model.name,
        "texts": len(texts),
        "characters": sum(map(len, texts)),
        "words": len({word for text in texts for word in text.split()}),
        "repeats": arguments.repeats,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All numbers of the report."""
    prepare_compiled()  # not timed: it happens once on a machine
    texts = 2 * read_texts(arguments.corpus, arguments.limit)
    content: dict[str, Any] = {"setting": setting(arguments, texts), "threads": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_copies(arguments.model, folder)
        (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
        for threads in THREADS:
            if threads <= (os.cpu_count() or 1):
                print(f"{threads} thread(s) ...", file=sys.stderr, flush=True)
                content["threads"][str(threads)] = run(arguments.model, folder, threads, arguments.repeats)
    return content


def main() -> int:
    """Measure, write the numbers and the tables made of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, help="BEIR folder with corpus.jsonl")
    parser.add_argument("--model", type=Path, help="folder of a static model")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit", type=int, default=None, help="only the first texts")
    parser.add_argument("--json", type=Path, required=True, help="the numbers; the tables go beside them, as .md")
    parser.add_argument("--report", action="store_true", help="make the tables again from the numbers that are there")
    arguments = parser.parse_args()
    if not arguments.report:
        if arguments.corpus is None or arguments.model is None:
            parser.error("measuring needs --corpus and --model")
        content = measure(arguments)
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    content = json.loads(arguments.json.read_text(encoding="utf-8"))
    tables = report(content)
    arguments.json.with_suffix(".md").write_text(tables, encoding="utf-8")
    print(tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
