"""What the usual script finds: its ranking of judged queries, kept in a JSON file beside this folder.

    python -m benchmarks.bench.script_quality --collection path/to/scifact [--minutes 5] [--shard 0/2]

A hundred pairs of 512 tokens a query take torch many seconds, and a ranking does not change from run to run, so it is
computed once. The queries stand in a random order that is always the same, so what a run has done when it is stopped
is a random sample of them; each is written down when it is done, the next run goes on from there, and several shards
may run side by side. Nothing is tuned by these rankings.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.bench.corpora import open_corpus
from benchmarks.bench.setup import PEERS, Peers, Setting, model_digests
from benchmarks.bench.worker import ROOT, Worker
from retrieval.evaluation import BeirCollection

KEPT = Path(__file__).parents[1] / "bench_script.json"
DEPTHS = (100, 20)
SHOWN = 10
_PARTS = ROOT / "build" / "bench"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of the work one run does.

    Args:
        shard: Number of the part of the queries, and of how many.
        minutes: No query is begun after so many; ``None`` for all.
        threads: Of torch; ``None`` leaves them to it.
    """

    shard: tuple[int, int] = (0, 1)
    minutes: float | None = None
    threads: int | None = None


def fingerprint(collection: BeirCollection, model_digests: Mapping[str, str]) -> str:
    """12 hex digits over what decides the rankings: both models, the corpus, and the judged queries."""
    digest = hashlib.sha256(json.dumps([dict(model_digests), dict(collection.queries)], sort_keys=True).encode())
    for document in collection.documents():
        digest.update(json.dumps([document.id, document.title, document.text]).encode())
    return digest.hexdigest()[:12]


def kept_rankings(
    collection: BeirCollection, digests: Mapping[str, str], kept: Path = KEPT
) -> dict[str, dict[str, list[str]]]:
    """What the file holds, query by query and depth by depth; nothing when it is of another collection or model."""
    if not kept.is_file():
        return {}
    content: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    if content["fingerprint"] != fingerprint(collection, digests):
        return {}
    found: dict[str, dict[str, list[str]]] = content["queries"]
    return found


def rankings_of(scores: Mapping[str, Any]) -> dict[str, list[str]]:
    """The best ten by the cross-encoder among the first 100 and the first 20 of the first stage."""
    values = np.asarray(scores["scores"])
    return {
        str(depth): [scores["ids"][place] for place in np.argsort(-values[:depth], kind="stable")[:SHOWN]]
        for depth in DEPTHS
    }


def in_order(queries: Iterable[str]) -> list[str]:
    """A random order that is always the same."""
    order = sorted(queries)
    Random(0).shuffle(order)
    return order


def rank_all(setting: Setting, collection: BeirCollection, part: Path, mine: list[str], options: Limits) -> None:
    """Rank the queries that no part has yet, each written down when it is done."""
    settings = {
        "static": str(setting.static()),
        "reranker": str(setting.reranker()),
        "corpus": str(setting.corpus_file()),
        "threads": options.threads,
    }
    with Worker("benchmarks.bench.peers.script", settings, python=setting.peers.python) as script:
        started = time.monotonic()
        for query in mine:
            if options.minutes is not None and time.monotonic() - started > 60 * options.minutes:
                return
            if query in read_parts(part):
                continue
            scores = script.ask("all_scores", query=collection.queries[query]).value
            with part_of(part, options.shard).open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"query": query, **rankings_of(scores)}) + "\n")
            _say(query)


def part_of(part: Path, shard: tuple[int, int]) -> Path:
    return part.with_name(f"{part.name}-{shard[0]}of{shard[1]}.jsonl")


def read_parts(part: Path) -> dict[str, dict[str, list[str]]]:
    """What all shards have written; a last line that was cut off is left out."""
    found = {}
    for path in sorted(part.parent.glob(f"{part.name}-*.jsonl")):
        for line in _whole_lines(path):
            record = json.loads(line)
            found[record.pop("query")] = record
    return found


def _whole_lines(path: Path) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield line


def main(arguments: list[str] | None = None) -> int:
    """Rank what is missing, and write down what there is."""
    options = _parser().parse_args(arguments)
    try:
        corpus, peers = open_corpus(options.collection), Peers.open(options.peers)
        number, _, of = options.shard.partition("/")
        limits = Limits((int(number), int(of)), options.minutes, options.threads)
    except ValueError as error:
        _say(str(error))
        return 2
    collection = corpus.collection
    if not peers.has("sentence-transformers", "torch") or collection is None:
        _say(f"sentence-transformers is not installed in {options.peers}; make that environment with: make peers")
        return 2
    mark = fingerprint(collection, model_digests())
    _PARTS.mkdir(parents=True, exist_ok=True)
    part = _PARTS / f"script-{mark}"
    stopped = False
    with TemporaryDirectory() as scratch:
        mine = in_order(collection.queries)[limits.shard[0] :: limits.shard[1]]
        try:
            rank_all(Setting(corpus, peers, Path(scratch)), collection, part, mine, limits)
        except KeyboardInterrupt:
            stopped = True
    done = read_parts(part)
    _write(options.out, collection, mark, peers, done)
    _say(f"{len(done)} of {len(collection.queries)} queries are ranked, see {options.out.name}; the next run goes on")
    return 130 if stopped else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench.script_quality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--collection", type=Path, required=True, help="BEIR folder")
    parser.add_argument("--peers", type=Path, default=PEERS, help="environment of the peers")
    parser.add_argument("--minutes", type=float, help="begin no query after so many")
    parser.add_argument("--shard", default="0/1", help="part of the queries, such as 0/2")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--out", type=Path, default=KEPT)
    return parser


def _write(
    out: Path, collection: BeirCollection, mark: str, peers: Peers, done: Mapping[str, dict[str, list[str]]]
) -> None:
    record = {
        "collection": collection.folder.name,
        "fingerprint": mark,
        "models": model_digests(),
        "versions": peers.packages,
        "queries": {query: done[query] for query in in_order(collection.queries) if query in done},
    }
    temporary = out.with_name(f"{out.name}.{os.getpid()}")
    temporary.write_text(json.dumps(record) + "\n", encoding="utf-8")
    temporary.replace(out)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
