"""Ten minutes of searches, ingests and deletes at once, then kill -9: no error, flat memory, nothing acknowledged lost.

    python -m benchmarks.service_load --collection scifact --rate 100 --json benchmarks/service_load.json

Searches arrive at random at the rate, sent by wrk. Meanwhile one client ingests and another deletes, each as fast as it
is told, and every answer is remembered. At the end the server is killed in the middle of an ingest and started again,
and everything that it had acknowledged is asked for.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks.service_process import PATIENT, Load, Process, about, serve, wrk
from pipelines import TwoStagePipeline

DOCUMENTS_A_TIME = 5
CONNECTIONS = 48
CHUNK_S = 30.0
"""Seconds of one run of wrk."""


def main() -> None:
    """Run, check, and write the numbers; exit status 1 when something is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collection", type=Path, required=True, help="BEIR folder: the index and the queries")
    parser.add_argument("--rate", type=float, required=True, help="searches a second")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--two-stage-share", type=float, default=0.0, help="of the searches, read by the cross-encoder")
    parser.add_argument("--ingest-every", type=float, default=2.0, help="seconds")
    parser.add_argument("--delete-every", type=float, default=3.0, help="seconds")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        with TwoStagePipeline.open(index) as pipeline:
            pipeline.ingest(arguments.collection)
        numbers = {
            "about": about(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            **run(index, arguments),
        }
    text = json.dumps(numbers, indent=1)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    print(text)
    raise SystemExit(0 if numbers["as_it_should_be"] else 1)


class Writer:
    """Ingests documents that nobody else has, deletes some again, and remembers what was acknowledged."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._number = 0
        self.stored: dict[str, str] = {}
        self.deleted: set[str] = set()
        self.errors: list[str] = []
        self.seconds: dict[str, list[float]] = {"ingest": [], "delete": []}
        self.ended = threading.Event()

    def repeat(self, action: Callable[[httpx.Client], None], every: float) -> threading.Thread:
        """A thread that acts until the end, beginning anew every so many seconds."""

        def loop() -> None:
            with httpx.Client(base_url=self._url, timeout=60) as client:
                while not self.ended.wait(max(0.0, every - (time.monotonic() % every))):
                    try:
                        action(client)
                    except httpx.TransportError as error:
                        if not self.ended.is_set():
                            self.errors.append(repr(error))

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        return thread

    def ingest(self, client: httpx.Client) -> None:
        with self._lock:
            numbers = range(self._number, self._number + DOCUMENTS_A_TIME)
            self._number += DOCUMENTS_A_TIME
        texts = {f"load-{number}": f"zzload{number} was written under load, copper pipe {number}" for number in numbers}
        documents = [{"id": name, "text": text} for name, text in texts.items()]
        started = time.monotonic()
        answer = client.post("/v1/ingest", params={"wait": "true"}, json={"documents": documents})
        self.seconds["ingest"].append(time.monotonic() - started)
        if answer.status_code == 200 and answer.json()["report"]["added"] == DOCUMENTS_A_TIME:
            with self._lock:
                self.stored.update(texts)
        else:
            self.errors.append(f"ingest: {answer.status_code} {answer.text[:300]}")

    def delete(self, client: httpx.Client) -> None:
        with self._lock:
            names = list(self.stored)
            gone = random.sample(names, min(2, len(names)))
            for name in gone:
                del self.stored[name]  # until it is acknowledged, it may be there or not
        if not gone:
            return
        started = time.monotonic()
        answer = client.post("/v1/documents/delete", json={"ids": gone})
        self.seconds["delete"].append(time.monotonic() - started)
        if answer.status_code == 200 and answer.json()["removed"] == len(gone):
            self.deleted.update(gone)
        else:
            self.errors.append(f"delete: {answer.status_code} {answer.text[:300]}")


def run(index: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The load, the kill, and what was there after it."""
    with serve(index, *PATIENT, "--set", "rerank.cache_mb=0") as server:
        warm_up(server, arguments)
        writer = Writer(server.url)
        threads = [
            writer.repeat(writer.ingest, arguments.ingest_every),
            writer.repeat(writer.delete, arguments.delete_every),
        ]
        memory, searches = searching(server, arguments)
        acknowledged, deleted, errors = len(writer.stored), len(writer.deleted), list(writer.errors)
        busy = [writer.repeat(writer.ingest, 0.01) for _ in range(2)]
        time.sleep(1.0)
        writer.ended.set()
        server.end(signal.SIGKILL)
        for thread in (*threads, *busy):
            thread.join()
        server.start()
        lost, risen = after_restart(server.url, writer)
    failed = sum(one["not_2xx"] + one["failed"] for one in searches)
    growth = statistics.median(memory[-len(memory) // 4 :]) - statistics.median(
        memory[len(memory) // 4 : len(memory) // 2]
    )
    return {
        "searches": sum(one["requests"] for one in searches),
        "searches_s": statistics.mean(one["requests_s"] for one in searches),
        "search_p50_ms": statistics.median(one["p50_ms"] for one in searches),
        "search_p95_ms": statistics.median(one["p95_ms"] for one in searches),
        "search_max_ms": max(one["max_ms"] for one in searches),
        "searches_failed": failed,
        "ingests": len(writer.seconds["ingest"]),
        "ingest_median_s": statistics.median(writer.seconds["ingest"]),
        "ingest_max_s": max(writer.seconds["ingest"]),
        "deletes": len(writer.seconds["delete"]),
        "delete_median_s": statistics.median(writer.seconds["delete"]),
        "write_errors": errors,
        "memory_mb": [round(value, 1) for value in memory],
        "memory_growth_second_to_last_quarter_mb": round(growth, 1),
        "load_average": [one["load_average"] for one in searches],
        "acknowledged_when_killed": len(writer.stored),
        "acknowledged_in_the_last_second": len(writer.stored) - acknowledged,
        "deleted": deleted,
        "lost_after_kill": lost,
        "risen_after_kill": risen,
        "as_it_should_be": not (failed or errors or lost or risen) and growth < 20,
    }


def warm_up(server: Process, arguments: argparse.Namespace) -> None:
    wrk(server, Load("/v1/search", bodies(arguments), 4, 5.0))


def bodies(arguments: argparse.Namespace) -> list[Any]:
    lines = (arguments.collection / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    chance = random.Random(5)
    return [
        {"query": json.loads(line)["text"], "rerank": chance.random() < arguments.two_stage_share} for line in lines
    ]


def searching(server: Process, arguments: argparse.Namespace) -> tuple[list[float], list[dict[str, Any]]]:
    """Resident memory every five seconds, and what wrk says of each stretch."""
    memory, ended = [server.memory_mb()], threading.Event()

    def watch() -> None:
        while not ended.wait(5.0):
            memory.append(server.memory_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    searches = []
    until = time.monotonic() + arguments.minutes * 60
    delay_ms = CONNECTIONS / arguments.rate * 1000
    while time.monotonic() < until:
        one = wrk(server, Load("/v1/search", bodies(arguments), CONNECTIONS, CHUNK_S, delay_ms))
        del one["raw"]
        searches.append(one)
        print(f"{one['requests_s']:.0f}/s, p95 {one['p95_ms']:.1f} ms, {memory[-1]:.0f} MB", flush=True)
    ended.set()
    watcher.join()
    return memory, searches


def after_restart(url: str, writer: Writer) -> tuple[list[str], list[str]]:
    """Acknowledged documents that are not found by id or by search, and deleted ones that are."""
    lost, risen = [], []
    with httpx.Client(base_url=url, timeout=60) as client:
        for name, text in writer.stored.items():
            shown = client.get(f"/v1/documents/{name}")
            found = client.post("/v1/search", json={"query": text.split()[0], "rerank": False, "first_stage": "bm25"})
            ids = [hit["document_id"] for hit in found.json()["hits"]]
            if shown.status_code != 200 or shown.json()["text"] != text or ids[:1] != [name]:
                lost.append(name)
        risen = [name for name in writer.deleted if client.get(f"/v1/documents/{name}").status_code != 404]
    return lost, risen


if __name__ == "__main__":
    main()
