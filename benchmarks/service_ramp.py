"""How much load the service holds with nothing lost: more clients step by step, each step ended by a SIGKILL.

In every step wrk searches over some connections as fast as it is answered, while writers ingest, each again as soon as
it is answered. At the end of the step the process is killed in the middle of it, started again, and every document that
was acknowledged is read back. A refusal with 429 is an answer that loses nothing; it is counted.

    python -m benchmarks.service_ramp --collection SCIFACT --out benchmarks/service_ramp.json
"""

from __future__ import annotations

import argparse
import json
import signal
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from benchmarks.bench.machine import describe
from benchmarks.service_process import Load, Process, serve, wrk
from pipelines import TwoStagePipeline

STEPS = (1, 2, 4, 8, 16, 32, 64, 128)
DOCUMENTS_A_TIME = 5
_TOO_MANY = 429


class Writers:
    """Clients that ingest as fast as they are answered and remember what was acknowledged.

    Args:
        url: Of the service.
        numbers: Gives every document a number of its own.
    """

    def __init__(self, url: str, numbers: count[int]) -> None:
        self._url, self._numbers = url, numbers
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.stored: dict[str, str] = {}
        self.refused = 0
        self.errors: list[str] = []

    def start(self, number: int) -> list[threading.Thread]:
        """Begin to write with so many threads."""
        threads = [threading.Thread(target=self._write, daemon=True) for _ in range(number)]
        for thread in threads:
            thread.start()
        return threads

    def end(self) -> None:
        """Let the threads end; what fails from here on is no finding."""
        self._ended.set()

    def _write(self) -> None:
        with httpx.Client(base_url=self._url, timeout=120) as client:
            while not self._ended.is_set():
                with self._lock:
                    names = [f"ramp-{next(self._numbers)}" for _ in range(DOCUMENTS_A_TIME)]
                texts = {name: f"zz{name.replace('-', 'x')} was written at the height of the load" for name in names}
                body = {"documents": [{"id": name, "text": text} for name, text in texts.items()]}
                try:
                    answer = client.post("/v1/ingest", params={"wait": "true"}, json=body)
                except httpx.TransportError as error:
                    if not self._ended.is_set():
                        self.errors.append(repr(error))
                    continue
                self._note(answer, texts)

    def _note(self, answer: httpx.Response, texts: dict[str, str]) -> None:
        with self._lock:
            if answer.status_code == 200 and answer.json()["report"]["added"] == len(texts):
                self.stored.update(texts)
            elif answer.status_code == _TOO_MANY:
                self.refused += 1
            else:
                self.errors.append(f"{answer.status_code} {answer.text[:300]}")
        if answer.status_code == _TOO_MANY:
            time.sleep(min(1.0, float(answer.headers.get("Retry-After", 1))))


def main() -> None:
    """Go up the steps and write figures and page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collection", type=Path, required=True, help="BEIR folder: the index and the queries")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each step")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=STEPS, help="searching connections, and as many writers"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file; the page stands beside it")
    arguments = parser.parse_args()
    lines = (arguments.collection / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    bodies = [{"query": json.loads(line)["text"], "rerank": False} for line in lines]
    record: dict[str, Any] = {"machine": describe(), "seconds": arguments.seconds, "steps": []}
    record["date"] = datetime.now(UTC).isoformat(timespec="minutes")
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        with TwoStagePipeline.open(index) as pipeline:
            pipeline.ingest(arguments.collection)
        numbers = count()
        with serve(index) as server:
            for clients in arguments.steps:
                record["steps"].append(_step(server, clients, bodies, numbers, arguments.seconds))
                print(json.dumps(record["steps"][-1]), flush=True)
    arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    arguments.out.with_suffix(".md").write_text(page(record), encoding="utf-8")


def _step(server: Process, clients: int, bodies: list[Any], numbers: count[int], seconds: float) -> dict[str, Any]:
    writers = Writers(server.url, numbers)
    threads = writers.start(clients)
    found = wrk(server, Load("/v1/search", bodies, clients, seconds))
    acknowledged, errors = len(writers.stored), list(writers.errors)
    time.sleep(0.5)
    memory = server.memory_mb()
    writers.end()
    server.end(signal.SIGKILL)
    for thread in threads:
        thread.join()
    server.start()
    with ThreadPoolExecutor(4) as pool, httpx.Client(base_url=server.url, timeout=60) as client:
        texts = pool.map(lambda name: _text(client, name), writers.stored)
        lost = [name for name, text in zip(writers.stored, texts, strict=True) if text != writers.stored[name]]
    return {
        "clients": clients,
        "searches_s": round(found["requests_s"], 1),
        "p50_ms": found["p50_ms"],
        "p95_ms": found["p95_ms"],
        "searches_refused_or_failed": found["not_2xx"] + found["failed"],
        "documents_s": round(acknowledged / seconds, 1),
        "ingests_refused": writers.refused,
        "errors": errors,
        "memory_mb": round(memory, 1),
        "acknowledged": len(writers.stored),
        "lost": lost,
    }


def _text(client: httpx.Client, name: str) -> str | None:
    answer = client.get(f"/v1/documents/{name}")
    return str(answer.json()["text"]) if answer.status_code == 200 else None


def page(record: dict[str, Any]) -> str:
    """The Markdown page.

    Args:
        record: What `main` writes as JSON.
    """
    machine, steps, seconds = record["machine"], record["steps"], record["seconds"]
    rows = [
        f"| {one['clients']} + {one['clients']} |"
        f" {one['searches_s'] - one['searches_refused_or_failed'] / seconds:,.0f} | {one['p50_ms']:.0f} /"
        f" {one['p95_ms']:.0f} | {one['searches_refused_or_failed']:,} |"
        f" {one['documents_s']:,.0f} | {one['ingests_refused']:,} |"
        f" {len(one['errors'])} | {one['memory_mb']:,.0f} | {len(one['lost'])} of {one['acknowledged']:,} |"
        for one in steps
    ]
    return "\n".join(
        [
            "# How much load the service holds with nothing lost",
            "",
            "Written by `python -m benchmarks.service_ramp --collection SCIFACT --out benchmarks/service_ramp.json`.",
            "",
            f"**Protocol.** `retrieval serve` with its defaults over SciFact. In each step of {seconds:.0f} s"
            " wrk searches (first stage) over some connections as fast as it is answered, and as many writers ingest"
            f" {DOCUMENTS_A_TIME} documents at a time, each again as soon as it is answered. Then the process is killed"
            " with SIGKILL in the middle of it, started again, and every acknowledged document is read back. Refused:"
            " 429, the bounded queue was full; the times of the searches count refusals too, after which wrk asks again"
            " at once. wrk and the writers run on the same cores.",
            "",
            f"**Machine.** {machine['cores']} cores, {machine['processor']}, {machine['memory_gb']} GB,"
            f" {machine['system']}, Python {machine['python']}. {record['date'][:10]}.",
            "",
            "| searching + writing clients | searches answered/s | p50 / p95, ms | refused | documents/s"
            " | ingests refused | errors | memory, MB | lost after SIGKILL |",
            "|---|---|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main()
