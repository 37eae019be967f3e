"""The pages on safety say what their figures say: growth, loss and errors are named, not averaged away."""

from __future__ import annotations

import threading
import time
from typing import Any

from benchmarks import key_timing, service_ramp, soak_report
from benchmarks.soak_workload import Rates, Workload

MACHINE = {"cores": 2, "processor": "AMD EPYC", "memory_gb": 24, "system": "Linux, x86-64", "python": "3.11.7"}


def notes(memory: list[float], latency: list[float]) -> list[dict[str, Any]]:
    return [
        {
            "at_s": 900.0 * (at + 1),
            "stored": 500,
            "done": {"search": 10},
            "p50_ms": {"search": ms},
            "p95_ms": {"search": 2 * ms},
            "errors": [],
            "wrong": [],
            "resident_mb": mb + 100,
            "anonymous_mb": mb,
            "handles": 20,
            "threads": 12,
            "disk_mb": 60.0,
        }
        for at, (mb, ms) in enumerate(zip(memory, latency, strict=True))
    ]


def soak(found: dict[str, Any]) -> str:
    record = {
        "machine": MACHINE,
        "watch": {"cores_of_others": 0.1},
        "together": False,
        "date": "2026-11-22T04:00+00:00",
        "subjects": {"engine": {"lost": [], "lost_after_kill": [], **found}},
    }
    return soak_report.page(record, "soak.svg")


def test_a_flat_hour_is_called_flat() -> None:
    page = soak({"notes": notes([250, 250, 255, 260], [5, 6, 6, 8])})
    assert "1.00 hours, 40 pieces of work (40 search). Errors: **0**. Wrong answers: **0**." in page
    assert "| memory without pages of files, MB | 250 | 260 | yes |" in page
    assert "| search, p50, ms | 6.0 | 8.0 | yes |" in page
    assert "**no**" not in page


def test_growth_loss_and_errors_are_named() -> None:
    found = notes([250, 250, 300, 350], [5, 6, 6, 10])
    found[1]["errors"].append("search: TimeoutError()")
    found[2]["wrong"] += ["a was acknowledged and is not found", "b was deleted and is there"]
    page = soak({"notes": found, "lost": ["lost c"], "lost_after_kill": ["lost c", "lost d"]})
    assert "Errors: **1**. Wrong answers: **2**. Lost or risen at the end: **1**; after SIGKILL: **2** of 500" in page
    assert "| memory without pages of files, MB | 250 | 350 | **no** |" in page
    assert "| search, p50, ms | 6.0 | 10.0 | **no** |" in page


def test_a_step_of_the_ramp_shows_what_was_lost() -> None:
    step = {
        "clients": 8,
        "searches_s": 120.4,
        "p50_ms": 15.2,
        "p95_ms": 44.0,
        "searches_refused_or_failed": 3,
        "documents_s": 40.0,
        "ingests_refused": 2,
        "errors": ["500"],
        "memory_mb": 300.0,
        "acknowledged": 1000,
        "lost": ["ramp-7"],
    }
    record = {"machine": MACHINE, "seconds": 20.0, "date": "2026-11-22T04:00+00:00", "steps": [step]}
    assert "| 8 + 8 | 120 | 15 / 44 | 3 | 40 | 2 | 1 | 300 | 1 of 1,000 |" in service_ramp.page(record)


def test_the_measurement_of_keys_sees_a_comparison_that_leaks() -> None:
    found = key_timing.measure(3000)
    assert set(found) == {"digests", "strings"}
    assert found["strings"]["all but the last character right"]["leaks"]


class Forgetful:
    """Acknowledges everything and forgets one document in five."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.lock = threading.Lock()

    def search(self, query: str, *, read: bool) -> list[str]:
        with self.lock:
            return [name for name, text in self.kept.items() if query in text] or ["none"]

    def ingest(self, documents: Any) -> int:
        with self.lock:
            self.kept.update({name: text for name, text in documents.items() if not name.endswith(("4", "9"))})
        return len(documents)

    def delete(self, ids: Any) -> int:
        return len(ids)  # and forgets to

    def text(self, name: str) -> str | None:
        return self.kept.get(name)


def test_the_load_notices_a_target_that_loses_and_keeps() -> None:
    rates = Rates(search=0, two_stage=0, check=200, ingest=100, replace=0, delete=50)
    target = Forgetful()
    with Workload(target, ["tides"], rates, most=20).running() as workload:
        until = time.monotonic() + 20
        wrong: list[str] = []
        while time.monotonic() < until and not {"found", "there"} <= {line.split()[-1] for line in wrong}:
            time.sleep(0.05)
            wrong += workload.take().wrong
    assert {line.split()[-1] for line in wrong} == {"found", "there"}
    assert {line.split()[0] for line in workload.lost()} == {"lost", "risen"}


def test_time_counts_from_when_it_was_due() -> None:
    class Slow(Forgetful):
        def search(self, query: str, *, read: bool) -> list[str]:
            time.sleep(0.2)
            return ["one"]

    rates = Rates(search=20, two_stage=0, check=0, ingest=0, replace=0, delete=0)
    with Workload(Slow(), ["tides"], rates).running() as workload:
        time.sleep(1.5)
    ms = workload.take().ms["search"]
    assert ms[0] >= 199
    assert ms == sorted(ms)
    assert ms[-1] > 2 * ms[0]
