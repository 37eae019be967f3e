"""How does cost grow with the corpus? What ``python -m benchmarks.growth`` has written is read here, not measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.bench.figures import TIMES, Figure, Findings, Missing, Row, shown
from benchmarks.bench.setup import Setting
from benchmarks.bench.worker import ROOT, SystemFailedError

QUESTION = "growth"
COLUMNS = {
    "searchable_s": ("from the file to searchable", "s"),
    "total_s": ("to the closed index, with its graph where it gets one", "s"),
    "peak_anonymous_mb": ("peak memory of the ingest, without pages of files", "MB"),
    "disk_mb": ("disk", "MB"),
    "hybrid_p50_ms": ("hybrid top 100, p50", "ms"),
    "hybrid_p95_ms": ("hybrid top 100, p95", "ms"),
}
SMALL, LARGE = 100_000, 1_000_000


def read_growth(path: Path) -> list[dict[str, float]]:
    """Rows by rising size, each with ``documents``, what was ingested, and `COLUMNS`; empty without a file."""
    if not path.is_file():
        return []
    sizes = json.loads(path.read_text(encoding="utf-8"))["sizes"]
    rows = ({"documents": float(size), **{name: row[name] for name in COLUMNS}} for size, row in sizes.items())
    return sorted(rows, key=lambda row: row["documents"])


def run(setting: Setting, path: Path) -> None:
    """Measure it, for tens of minutes."""
    if setting.corpus.pairs is None:
        raise SystemFailedError("growth needs pair files: name a folder with pairs/*.jsonl.gz")
    folder = ROOT / "build" / "bench" / "growth"  # it stays: a run that is stopped goes on from there
    given = {"pairs": setting.corpus.pairs, "corpus": folder / "corpus.jsonl", "work": folder, "out": path}
    options = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    if subprocess.run([sys.executable, "-m", "benchmarks.growth", *options], cwd=ROOT).returncode:
        raise SystemFailedError("benchmarks.growth failed; what it had measured is kept, see its own words above")


def add(findings: Findings, path: Path) -> None:
    """Rows and figures of a file that `run` has written."""
    reason = f"no {path.name} there: --growth measures it, for tens of minutes"
    try:
        rows = read_growth(path)
    except (KeyError, ValueError) as error:
        rows, reason = [], f"{path.name} is not what `benchmarks.growth` writes: {error!r}"
    if not rows:
        findings.missing.append(Missing(QUESTION, "10,000 to 1,000,000 documents", "this", reason))
    for row in rows:
        for name, (what, unit) in COLUMNS.items():
            findings.rows.append(Row(QUESTION, what, f"this, {row['documents']:,.0f} documents", unit, (row[name],)))
    findings.figures += figures(rows)


def size_of(system: str) -> float:
    """The number of documents that the name of a row of `add` has."""
    return float(system.split()[1].replace(",", ""))


def figures(rows: list[dict[str, float]]) -> list[Figure]:
    """From 100,000 to a million documents."""
    by_size = {row["documents"]: row for row in rows}
    small, large = by_size.get(SMALL), by_size.get(LARGE)

    def times(title: str, name: str, least: float, aim: float) -> Figure:
        if small is None or large is None:
            return Figure(title, None, TIMES, least, aim, "lower")
        unit = COLUMNS[name][1]
        out_of = f"{shown(large[name], unit)} / {shown(small[name], unit)}"
        return Figure(title, large[name] / small[name], TIMES, least, aim, "lower", out_of)

    p50 = large and large["hybrid_p50_ms"]
    return [
        Figure("hybrid top 100 over 1,000,000 documents, p50", p50, "ms", 15, 5, "lower"),
        times("time to searchable, 1,000,000 documents by 100,000", "searchable_s", 11, 10),
        times("time to the closed index with its graph, 1,000,000 documents by 100,000", "total_s", 11, 10),
        times("search p50, 1,000,000 documents by 100,000", "hybrid_p50_ms", 3, 2),
    ]
