"""The service under wrk: embeddings a second, searches a second, and how much of it is waiting.

    python -m benchmarks.service --collection scifact --json benchmarks/service.json --raw benchmarks/service.wrk.txt

The server is `retrieval serve` with its defaults; wrk (one thread) runs on the same cores. Needs Linux and wrk.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.encoding import read_texts, write_copies
from benchmarks.service_process import PATIENT, Load, Process, about, serve, wrk
from pipelines import TwoStagePipeline

MODEL = Path(__file__).parent.parent / "retrieval" / "models" / "starter-static"
WAIT_S = "0.005"
"""A search has queued when it waited longer for a worker; a bucket of the histogram of waits ends here."""
SHARE_WITHOUT_WAIT = 0.95
LADDER = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Rates that are tried, as shares of the throughput under as many connections as there are workers."""


def main() -> None:
    """Measure what was asked for, and write numbers and the output of wrk."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collection", type=Path, required=True, help="BEIR folder: texts, queries and the index")
    parser.add_argument("--only", nargs="+", choices=sorted(PARTS), default=list(PARTS), help="default: all parts")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one run")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file with the numbers; parts that were not measured stay")
    parser.add_argument("--raw", type=Path, help="file with what wrk printed, the same way")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    if arguments.json is not None and arguments.json.exists():
        results = json.loads(arguments.json.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(arguments.collection, Path(folder), arguments.seconds, arguments.repeats)
        for part in arguments.only:
            results[part] = {"about": about(), **PARTS[part](bench)}
            if arguments.json is not None:
                arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            if arguments.raw is not None:
                write_raw(arguments.raw, part, bench.raw)
            bench.raw.clear()


def write_raw(path: Path, part: str, outputs: Sequence[str]) -> None:
    """Put the output of one part into the file, in place of what it held of that part."""
    mark = "==== "
    kept = path.read_text(encoding="utf-8").split(mark)[1:] if path.exists() else []
    sections = {section.split("\n", 1)[0]: section.split("\n", 1)[1] for section in kept}
    sections[part] = "\n" + "\n\n".join(outputs) + "\n\n"
    path.write_text("".join(f"{mark}{name}\n{text}" for name, text in sections.items()), encoding="utf-8")


class Bench:
    """Texts, queries, an index, and the runs of wrk."""

    def __init__(self, collection: Path, folder: Path, seconds: float, repeats: int) -> None:
        lines = (collection / "queries.jsonl").read_text(encoding="utf-8").splitlines()
        self.queries = [json.loads(line)["text"] for line in lines]
        self.texts = read_texts(collection, 1000)
        self.folder = folder
        self.seconds = seconds
        self.repeats = repeats
        self.index = folder / "index"
        self.raw: list[str] = []
        with TwoStagePipeline.open(self.index) as pipeline:
            pipeline.ingest(collection)

    def repeated(self, process: Process, load: Load, *, warm_up_s: float = 1.0) -> dict[str, Any]:
        """Median run by rate, after one that does not count, with the rates of all."""
        wrk(process, Load(load.path, load.bodies, load.connections, warm_up_s))
        runs = [self.run(process, load) for _ in range(self.repeats)]
        middle = sorted(runs, key=lambda run: run["requests_s"])[len(runs) // 2]
        return {**middle, "all_requests_s": [round(run["requests_s"], 1) for run in runs]}

    def run(self, process: Process, load: Load) -> dict[str, Any]:
        """One run; the text goes to the raw output."""
        numbers = wrk(process, load)
        self.raw.append(numbers.pop("raw"))
        return {name: value if isinstance(value, int) else round(value, 3) for name, value in numbers.items()}


def embeddings(bench: Bench) -> dict[str, Any]:
    """`/v1/embeddings`: short and long texts, one and many, few and many connections."""
    numbers: dict[str, Any] = {}
    for name, inputs, encoding, connections in embedding_cases(bench):
        key = f"{name}, {encoding}, {connections} connections"
        with serve(bench.index) as server:
            load = Load("/v1/embeddings", embedding_bodies(inputs, encoding), connections, bench.seconds)
            numbers[key] = bench.repeated(server, load)
            show(key, numbers[key])
    with serve(bench.index, "--set", "service.access_log=false") as server:
        load = Load("/v1/embeddings", embedding_bodies(bench.queries, "float"), 16, bench.seconds)
        numbers["one query, float, 16 connections, no log"] = bench.repeated(server, load)
        show("no log", numbers["one query, float, 16 connections, no log"])
    return numbers


def embedding_cases(bench: Bench) -> list[tuple[str, list[Any], str, int]]:
    """Name, inputs, encoding of the vectors, and connections."""
    queries, passages = list(bench.queries), list(bench.texts)
    pages: list[Any] = ["\n\n".join(passages[start : start + 3]) for start in range(0, 300, 3)]
    return [
        ("one query", queries, "float", 16),
        ("one query", queries, "base64", 16),
        ("one query", queries, "float", 1),
        ("one query", queries, "float", 64),
        ("one abstract", passages, "float", 16),
        ("one text of three abstracts", pages, "float", 16),
        ("32 queries", [queries[start : start + 32] for start in range(0, 960, 32)], "float", 16),
        ("32 abstracts", [passages[start : start + 32] for start in range(0, 960, 32)], "float", 16),
        ("32 abstracts", [passages[start : start + 32] for start in range(0, 960, 32)], "base64", 16),
    ]


def embedding_bodies(inputs: Sequence[Any], encoding: str) -> list[Any]:
    return [{"input": one, "model": "starter-static", "encoding_format": encoding} for one in inputs]


def peers(bench: Bench) -> dict[str, Any]:
    """The same question to a plain FastAPI route, around Model2Vec and around the encoder of this project."""
    write_copies(MODEL, bench.folder)
    numbers: dict[str, Any] = {}
    load = Load("/v1/embeddings", embedding_bodies(bench.queries, "float"), 16, bench.seconds)
    command = (sys.executable, "-m", "uvicorn", "benchmarks.service_peer:app", "--no-access-log", "--port", "{port}")
    for name, encoder, model in (
        ("FastAPI route, Model2Vec", "model2vec", bench.folder / "model2vec"),
        ("FastAPI route, this encoder", "this", MODEL),
    ):
        with Process(command, "/ready", {"ENCODER": encoder, "MODEL": str(model)}) as server:
            numbers[name] = bench.repeated(server, load)
            show(name, numbers[name])
    with serve(bench.index, "--set", "service.access_log=false") as server:
        numbers["this service"] = bench.repeated(server, load)
        show("this service", numbers["this service"])
    return numbers


def stage_one(bench: Bench) -> dict[str, Any]:
    """`/v1/search` without the cross-encoder."""
    return search(bench, {"rerank": False}, bench.seconds)


def two_stage(bench: Bench) -> dict[str, Any]:
    """`/v1/search` with its defaults."""
    return search(bench, {}, max(12.0, bench.seconds))


def two_stage_budget(bench: Bench) -> dict[str, Any]:
    """`/v1/search` with 100 ms for the cross-encoder."""
    return search(bench, {"budget_ms": 100}, max(8.0, bench.seconds))


def search(bench: Bench, options: dict[str, Any], seconds: float) -> dict[str, Any]:
    """One search at a time, as many as there are workers, and rates of random arrivals up to that throughput."""
    bodies = [{"query": query, **options} for query in bench.queries]
    workers = os.cpu_count() or 1
    numbers: dict[str, Any] = {}
    with serve(bench.index, *PATIENT, "--set", "rerank.cache_mb=0") as server:
        for connections in (1, workers):
            load = Load("/v1/search", bodies, connections, seconds)
            most = numbers[f"{connections} at a time"] = bench.repeated(server, load)
            show(f"{connections} at a time", most)
        numbers["rates"] = []
        for share in LADDER:
            step = arrivals(bench, server, bodies, share * most["requests_s"], 2 * seconds)
            numbers["rates"].append(step)
            show(f"aimed at {step['aimed_s']}/s", step)
            if step["share_that_waited"] > 3 * (1 - SHARE_WITHOUT_WAIT):
                break
    fine = [step for step in numbers["rates"] if step["share_that_waited"] <= 1 - SHARE_WITHOUT_WAIT]
    numbers["highest_rate_without_queueing_s"] = max((step["requests_s"] for step in fine), default=None)
    return numbers


def arrivals(bench: Bench, server: Process, bodies: list[Any], rate: float, seconds: float) -> dict[str, Any]:
    """Random arrivals at a rate, from many mostly idle connections, and the share that waited for a worker."""
    connections = 48
    before = server.metrics()
    delay_ms = connections / rate * 1000
    numbers = bench.run(server, Load("/v1/search", bodies, connections, seconds, delay_ms))
    after = server.metrics()

    def counted(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    in_time = counted(f'retrieval_queue_seconds_bucket{{le="{WAIT_S}"}}')
    waited = 1 - in_time / max(1.0, counted("retrieval_queue_seconds_count"))
    return {"aimed_s": round(rate, 1), **numbers, "share_that_waited": round(waited, 4)}


def show(name: str, numbers: dict[str, Any]) -> None:
    waited = f", {numbers['share_that_waited']:.1%} waited" if "share_that_waited" in numbers else ""
    print(
        f"{name}: {numbers['requests_s']:,.0f}/s, p50 {numbers['p50_ms']:.2f} ms, p95 {numbers['p95_ms']:.2f} ms, "
        f"server {numbers['server_cpu_us']:,.0f} us and {numbers['server_cores']:.2f} cores, "
        f"{numbers['not_2xx']} not 2xx, {numbers['failed']} failed, load {numbers['load_average']:.1f}{waited}",
        flush=True,
    )


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "embeddings": embeddings,
    "peers": peers,
    "stage_one": stage_one,
    "two_stage": two_stage,
    "two_stage_budget": two_stage_budget,
}

if __name__ == "__main__":
    main()
