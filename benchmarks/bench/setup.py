"""What every question needs: the environment of the peers, and our models in the formats that the peers open."""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.bench.corpora import Corpus
from benchmarks.bench.figures import Row
from benchmarks.bench.reranker_folder import network_of_graph, write_folders
from benchmarks.bench.worker import ROOT
from retrieval.datatypes import Document
from retrieval.models import find_model
from retrieval.token_tables import open_static_model, write_portable

PEERS = ROOT / "build" / "peers"
SCALE = 171_000
"""Documents of the large corpus for which there are targets."""
STATIC, RERANKER = "starter-static", "starter-reranker"
_NAMES = (
    "sentence-transformers",
    "model2vec",
    "bm25s",
    "fastembed",
    "rerankers",
    "FlashRank",
    "qdrant-client",
    "torch",
    "transformers",
    "tokenizers",
    "onnxruntime",
    "numpy",
    "numba",
)
_ASK = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Peers:
    """The environment in which the peers are installed.

    Args:
        python: Its interpreter.
        packages: Version of each of the peers and of what they stand on; empty when there is no such environment.
    """

    python: Path
    packages: dict[str, str]

    @classmethod
    def open(cls, folder: Path) -> Peers:
        """Look what is installed in an environment; the folder may not exist.

        Raises:
            ValueError: There is an interpreter that does not run.
        """
        found = [path for path in (folder / "bin" / "python", folder / "Scripts" / "python.exe") if path.exists()]
        if not found:
            return cls(folder / "bin" / "python", {})
        try:
            run = subprocess.run([found[0], "-c", _ASK, *_NAMES], check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ValueError(f"{found[0]} does not run; erase {folder} and make it again: make peers") from error
        return cls(found[0], json.loads(run.stdout))

    @property
    def installed(self) -> bool:
        """Whether there is anything to measure against."""
        return bool(self.packages)

    def has(self, *names: str) -> bool:
        """Whether all of these packages are there."""
        return all(name in self.packages for name in names)


@functools.cache
def model_digests() -> dict[str, str]:
    """12 hex digits for the weights of each bundled model.

    Of the cross-encoder they are made of the norms of all its tensors, multiplied out of their 8 bits, and of the
    products of these with a vector that is always the same, to five digits: they stay the same when only its graph is
    laid out anew.
    """
    static = hashlib.sha256()
    for name in ("model.safetensors", "tokenizer.json"):
        static.update((find_model(STATIC) / name).read_bytes())
    tensors, _ = network_of_graph(find_model(RERANKER) / "model.onnx")
    reranker = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].astype(np.float64)
        vector = np.random.default_rng(0).standard_normal(tensor.shape[-1])
        reranker.update(f"{name} {np.linalg.norm(tensor):.5g} {np.linalg.norm(tensor @ vector):.5g}\n".encode())
    return {STATIC: static.hexdigest()[:12], RERANKER: reranker.hexdigest()[:12]}


def write_corpus(documents: Iterable[Document], path: Path) -> int:
    """Write ``id`` and ``text`` of each document, its title before the text, as JSON Lines; returns how many."""
    number = 0
    with path.open("w", encoding="utf-8") as lines:
        for document in documents:
            number += 1
            text = f"{document.title} {document.text}".strip()
            lines.write(json.dumps({"id": document.id, "text": text}) + "\n")
    return number


@dataclass(frozen=True, slots=True)
class Setting:
    """What one run of the benchmark measures, and with what; files and indexes are made when first asked for.

    Args:
        corpus: Texts and queries.
        peers: What it is measured against.
        work: An empty folder for indexes and files between processes.
        repeats: How often each thing is timed.
        slow_queries: How many queries the systems answer that take many seconds for one.
        queries: How many the others answer.
        scale: Passages of the large corpus; 0 leaves out what needs it.
        kept: The rankings that `script_quality` has written.
    """

    corpus: Corpus
    peers: Peers
    work: Path
    repeats: int = 5
    slow_queries: int = 12
    queries: int = 100
    scale: int = 0
    kept: Path = ROOT / "benchmarks" / "bench_script.json"

    def static(self) -> Path:
        """The static model in float32; sentence-transformers and Model2Vec open it."""
        path = self.work / "models" / "static"
        if not path.exists():
            path.mkdir(parents=True)
            model = open_static_model(find_model(STATIC))
            write_portable(model, path, dim=model.table.embeddings.shape[1], precision="float32")
        return path

    def reranker(self) -> Path:
        """Folder of `write_folders`."""
        path = self.work / "models" / "reranker"
        if not path.exists():
            write_folders(find_model(RERANKER), path)
        return path

    def texts_file(self, times: int = 1) -> Path:
        """The texts of the corpus, titles before them, so many times over: a JSON list of strings."""
        path = self.work / f"texts-{times}.json"
        if not path.exists():
            texts = [f"{document.title} {document.text}".strip() for document in self.corpus.documents]
            path.write_text(json.dumps(texts * times), encoding="utf-8")
        return path

    def corpus_file(self) -> Path:
        """The corpus as JSON Lines with ``id`` and ``text``, as the scripts of the peers read it."""
        path = self.work / "script.jsonl"
        if not path.exists():
            write_corpus(self.corpus.documents, path)
        return path

    def source(self) -> Path:
        """The corpus as a BEIR file, as the pipelines of this project read it."""
        path = self.work / "source" / "corpus.jsonl"
        if not path.exists():
            path.parent.mkdir()
            with path.open("w", encoding="utf-8") as lines:
                for document in self.corpus.documents:
                    record = {"_id": document.id, "title": document.title, "text": document.text}
                    lines.write(json.dumps(record) + "\n")
        return path

    def index(self) -> Path:
        """An index of the corpus with the defaults, made when it is first asked for."""
        path = self.work / "index"
        if not path.exists():
            from benchmarks.ingest_run import ingest_once

            ingest_once(self.source(), path)
        return path

    def large_source(self) -> Path:
        """The large corpus as a BEIR file: real passages of the pairs, and from where they end perturbed ones."""
        from benchmarks.scale_corpus import write_corpus as write_large

        assert self.corpus.pairs is not None
        return write_large(self.corpus.pairs, self.work / "large" / "corpus.jsonl", self.scale)

    def large_index(self) -> Path:
        """An index of the large corpus with the defaults; that of the ingest that was measured, if it was."""
        path = self.work / "large" / "index"
        if not path.exists():
            from benchmarks.growth import ingest

            ingest(self.large_source(), path)
        return path

    def at_scale(self, row: Row | None) -> float | None:
        """The median of a row of the large corpus where that has the size for which there are targets."""
        return row.median if row is not None and self.scale == SCALE else None

    @property
    def has_large(self) -> bool:
        """Whether the large corpus can be made and is asked for."""
        return self.scale > 0 and self.corpus.pairs is not None


def write_records(source: Path, target: Path) -> None:
    """A BEIR file as JSON Lines with ``id`` and ``text``."""
    with source.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as written:
        for line in lines:
            record = json.loads(line)
            text = f"{record.get('title', '')} {record['text']}".strip()
            written.write(json.dumps({"id": record["_id"], "text": text}) + "\n")
