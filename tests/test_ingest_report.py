"""The page of the ingest benchmark says what its figures say."""

from __future__ import annotations

from typing import Any

from benchmarks.ingest_report import page

MACHINE = {"processor": "Some CPU", "cores": 2, "memory_gb": 24, "system": "Linux, x86-64", "python": "3.11.7"}
QUIET = {"load_before": 0.1, "seconds": 3.0, "cores_of_others": 0.0}


def record(cases: dict[str, Any]) -> dict[str, Any]:
    return {"date": "2026-01-01", "machine": MACHINE, "cases": cases}


def ingest(**changes: float) -> dict[str, Any]:
    row = {
        "passages": 2000.0,
        "searchable_s": 0.5,
        "order_s": 0.25,
        "passages_per_s": 4000.0,
        "slowest_per_s": 3900.0,
        "fastest_per_s": 4100.0,
        "runs": 5,
        "read_s": 0.1,
        "encode_s": 0.2,
        "write_s": 0.3,
        "cpu_writer_s": 0.4,
        "cpu_others_s": 0.02,
        "resident_mb": 250.0,
        "disk_mb": 40.0,
        "peak_mb": 300.0,
        "peak_anonymous_mb": 180.0,
    }
    return {"median": row | changes, "runs": [], "measured": QUIET}


def test_rates_and_memory_stand_in_its_tables() -> None:
    floor = {
        "passages": 1000,
        "translate_us": 40.0,
        "update_us": 50.0,
        "flush_us": 10.0,
        "total_us": 100.0,
        "cpu_us": 90.0,
    }
    text = page(
        record(
            {
                "floor": floor | {"measured": QUIET},
                "sizes: 30,000: two processes": ingest(),
                "kernels: ready: one process": ingest(searchable_s=1.25),
                "batches: 64 / 512: one process": ingest(cpu_writer_s=0.6),
            }
        )
    )
    lines = text.splitlines()
    assert "| 30,000 | two | 2,000 | 0.50 | 4,000 | 3,900 to 4,100 | 5 | 0.25 | 180 | 120 | 40 |" in lines
    assert "| 30,000 | two | 50 | 100 | 150 | 200 | 10 |" in lines
    assert "| 40 | 50 | 10 | 100 | 90 | 10,000 |" in lines
    assert "| ready | 1.25 | 4,000 | 0.40 | 0.20 | 5 |" in lines
    assert "| 64 / 512 | 0.50 | 300 | 250 |" in lines
    assert "Other programs" not in text
    widths = {line.count("|") for line in lines if line.startswith("| documents | processes | passages")}
    assert widths == {lines[lines.index("## From files to an index") + 4].count("|")} == {12}


def test_an_unfinished_run_has_a_page_and_a_busy_machine_is_named() -> None:
    busy = ingest() | {"measured": QUIET | {"cores_of_others": 1.5}}
    text = page(record({"sizes: SciFact: one process": busy}))
    assert "Other programs ran meanwhile** in 1 of 1 cases" in text
    assert "## The engine alone" not in text
    assert "## Batches" not in text
