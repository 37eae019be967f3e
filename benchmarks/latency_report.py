"""The page of `latency`, written from its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.bench.machine import was_busy

_IMPORT = "import sentence_transformers"
_SEARCHES = ("retrieval search", "retrieval search --no-rerank")


def write_page(numbers: dict[str, Any], path: Path) -> None:
    """Write the Markdown page."""
    path.write_text(page(numbers), encoding="utf-8")


def page(numbers: dict[str, Any]) -> str:
    """Protocol and tables as Markdown."""
    machine = numbers["machine"]
    lines = [
        "# Ingest, search and cold start",
        "",
        "Written by `python -m benchmarks.latency --collection path/to/scifact --out benchmarks/latency.json`.",
        "",
        f"**Protocol.** Defaults, bundled models, embedded store, {numbers['collection']}. Search: {numbers['queries']}"
        " queries one after the other; the time is that of the whole call, five hits each. Without the cross-encoder"
        " the best pass of five counts. Cold start: whole processes, interleaved, each search with another query,"
        f" medians of {numbers['cold_runs']}, a first round does not count.",
        "",
        f"**Machine.** {machine['cores']} cores, {machine['processor']}, {machine['memory_gb']} GB,"
        f" {machine['system']}, Python {machine['python']}. {numbers['date']}.",
        *_busy(numbers["measured"]),
        "",
        "| | |",
        "|---|---|",
        f"| first ingest, {numbers['documents']:,} documents, {numbers['passages']:,} passages |"
        f" {numbers['first_ingest_s']:.1f} s, {numbers['passages_per_s']:,.0f} passages/s |",
        f"| second ingest of the same | {numbers['second_ingest_s']:.2f} s,"
        f" {numbers['second_ingest_changed']} documents changed |",
        f"| first stage, hybrid, 100 candidates | {_percentiles(numbers['hybrid'])} |",
        f"| both stages | {_percentiles(numbers['two_stage'])} |",
        f"| both stages, `budget_ms=100` | {_percentiles(numbers['two_stage_budget_100ms'])} |",
        "",
        "Where the time of the first stage goes, each part called alone, medians:",
        "",
        "| | ms |",
        "|---|---|",
        *(f"| {name} | {value:.2f} |" for name, value in numbers["parts"].items()),
        "",
        "A whole process, from the shell and back:",
        "",
        "| | median, s | least to most, s |",
        "|---|---|---|",
        *(
            f"| `{name}` | {one['median']:.2f} | {one['min']:.2f} to {one['max']:.2f} |"
            for name, one in numbers["cold_s"].items()
        ),
        *_ratios(numbers["cold_s"]),
    ]
    return "\n".join(lines) + "\n"


def _busy(measured: dict[str, Any]) -> list[str]:
    if not was_busy(measured):
        return []
    return ["", "Other programs kept the machine busy meanwhile: the times are too long, and the ratios are rough."]


def _percentiles(one: dict[str, float]) -> str:
    return f"p50 {one['p50']:.1f} ms, p95 {one['p95']:.1f} ms"


def _ratios(cold: dict[str, dict[str, float]]) -> list[str]:
    if _IMPORT not in cold:
        return []
    slow = cold[_IMPORT]["median"]
    rows = (f"`{name}` takes 1/{slow / cold[name]['median']:.1f} of it" for name in _SEARCHES)
    return ["", f"Beside `{_IMPORT}` alone: {', '.join(rows)}."]
