"""The pages that the benchmarks of growth and latency write from their figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import growth, growth_report, latency_report

MACHINE = {"processor": "A B", "cores": 2, "memory_gb": 8, "system": "Linux, x86-64", "python": "3.11.7"}
QUIET = {"load_before": 0.1, "seconds": 9.0, "cores_of_others": 0.02}
BUSY = {**QUIET, "cores_of_others": 1.5}


def row(times: float, **changed: Any) -> dict[str, Any]:
    return {
        "documents": 1, "passages": int(102_000 * times), "searchable_s": 20.0 * times, "build_s": 10.0 * times,
        "total_s": 31.0 * times, "peak_mb": 900.0, "peak_anonymous_mb": 500.0, "disk_mb": 300.0, "opened_s": 0.5,
        "hybrid_p50_ms": 2.0, "hybrid_p95_ms": 3.0, "hybrid_cpu_ms": 2.5, "dense_p50_ms": 1.5, "bm25_p50_ms": 1.25,
        "recall_at_100": 0.975, "quantization": "turbo 2 bit, oversampling 4, rescored", "graph": True,
        "search_mb": {"anonymous": 90.0, "files": 400.0}, "measured": QUIET, **changed,
    }  # fmt: skip


def grown(**sizes: dict[str, Any]) -> dict[str, Any]:
    named = {name.strip("n"): one for name, one in sizes.items()}
    return {"machine": MACHINE, "queries": 300, "passes": 3, "date": "2026-01-02T03:04+00:00", "sizes": named}


def test_growth_compares_a_hundred_thousand_with_a_million() -> None:
    page = growth_report.page(grown(n1000000=row(10.5, hybrid_p50_ms=5.0), n100000=row(1)), "growth.svg")
    assert "until searchable 10.5 times as long, to the closed index 10.5 times" in page
    assert "p50 of a hybrid search 2.5 times, its processor time 1.0 times" in page
    assert "| 100,000 | 102,000 | 20.0 | 5,100 | 10.0 | 900 | 500 | 300 |" in page
    found = "| 2.0 / 3.0 | 2.5 | 1.5 | 1.2 | 0.975 | graph over turbo 2 bit codes | 90 | 400 | 0.50 |"
    assert f"| 100,000 {found}" in page
    assert page.index("| 100,000 |") < page.index("| 1,000,000 |")
    assert "![Seconds, megabytes and milliseconds by number of documents](growth.svg)" in page
    assert "busy" not in page


def test_growth_names_the_sizes_at_which_the_machine_was_busy_and_compares_nothing_else() -> None:
    page = growth_report.page(grown(n1000=row(0.01, quantization="none", graph=False, measured=BUSY)), "growth.svg")
    assert "Other programs kept the machine busy at 1,000: these times are too long." in page
    assert "| whole vectors |" in page
    assert "times as long" not in page


def test_a_corpus_that_is_too_short_is_refused(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("{}\n{}\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match=r"corpus\.jsonl has only 2 of 3 passages; erase it"):
        growth.measure(tmp_path, corpus, 3, tmp_path / "work" / "index")
    assert [path.name for path in (tmp_path / "work").iterdir()] == []


def test_latency_compares_a_cold_search_with_an_import() -> None:
    cold = {name: {"median": one, "min": one - 0.1, "max": one + 0.5} for name, one in COLD.items()}
    page = latency_report.page(NUMBERS | {"cold_s": cold})
    assert "| `retrieval search` | 0.50 | 0.40 to 1.00 |" in page
    assert "`retrieval search` takes 1/10.0 of it, `retrieval search --no-rerank` takes 1/20.0 of it." in page
    assert "| first stage, hybrid, 100 candidates | p50 1.5 ms, p95 2.5 ms |" in page
    assert "| BM25 alone | 0.25 |" in page
    assert "busy" not in page
    del cold["import sentence_transformers"]
    alone = latency_report.page(NUMBERS | {"cold_s": cold, "measured": BUSY})
    assert "of it" not in alone
    assert "Other programs kept the machine busy meanwhile" in alone


COLD = {"retrieval search": 0.5, "retrieval search --no-rerank": 0.25, "import sentence_transformers": 5.0}
_TIMES = {"p50": 1.5, "p95": 2.5}
NUMBERS: dict[str, Any] = {
    "machine": MACHINE, "date": "2026-01-02", "collection": "scifact", "queries": 120, "documents": 5183,
    "passages": 5561, "first_ingest_s": 2.0, "passages_per_s": 2780.5, "second_ingest_s": 0.25,
    "second_ingest_changed": 0, "hybrid": _TIMES, "two_stage": _TIMES, "two_stage_budget_100ms": _TIMES,
    "parts": {"BM25 alone": 0.25}, "cold_runs": 11, "measured": QUIET,
}  # fmt: skip
