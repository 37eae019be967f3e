"""The page and the plot of `growth`, written from its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.bench.machine import was_busy
from benchmarks.scale_corpus import SWAPPED

_SMALL, _LARGE = 100_000, 1_000_000


def write_report(record: dict[str, Any], out: Path) -> None:
    """Write the page and the plot beside the figures."""
    _plot(record, out.with_suffix(".svg"))
    out.with_suffix(".md").write_text(page(record, out.with_suffix(".svg").name), encoding="utf-8")


def page(record: dict[str, Any], plot: str) -> str:
    """Protocol, tables and growth as Markdown.

    Args:
        record: What `benchmarks.growth` writes.
        plot: Address of the plot.
    """
    machine = record["machine"]
    sizes = {int(size): row for size, row in sorted(record["sizes"].items(), key=lambda pair: int(pair[0]))}
    lines = [
        "# How cost grows with the corpus",
        "",
        "Written by `python -m benchmarks.growth --pairs DIR --corpus FILE --work DIR --out"
        " benchmarks/growth.json`; a run"
        " that was stopped goes on with the size it was at.",
        "",
        "**Corpus.** The different positives of the pair files in a random order, then the same"
        " passages perturbed, round"
        f" after round: each word is replaced, with probability {SWAPPED}, by a word of another"
        " passage. A smaller corpus"
        " is the beginning of a larger one.",
        "",
        "**Protocol.** Defaults, one new index a size, ingest and searches in processes of their"
        " own. *Searchable*: from"
        " opening a new index until every passage is written and found, the start of the interpreter"
        " not counted. *Built*:"
        " then the index is put in order, in one segment, with codes and a graph where it is large"
        " enough; searches wait"
        " meanwhile. Searches are whole calls without the cross-encoder, 100 candidates,"
        f" {record['queries']} real queries"
        f" one after the other; the best pass of {record['passes']} counts. *Recall* is the share of"
        " the 100 nearest vectors,"
        " found by exact search, that the dense arm returns.",
        "",
        f"**Machine.** {machine['cores']} cores, {machine['processor']}, {machine['memory_gb']} GB,"
        f" {machine['system']}, Python {machine['python']}. {record['date'][:10]}.",
        *_busy(sizes),
        "",
        f"![Seconds, megabytes and milliseconds by number of documents]({plot})",
        "",
        *_costs(sizes),
        "",
        *_searches(sizes),
        *_growth(sizes),
    ]
    return "\n".join(lines) + "\n"


def _busy(sizes: dict[int, dict[str, Any]]) -> list[str]:
    busy = [f"{size:,}" for size, row in sizes.items() if was_busy(row["measured"])]
    return ["", f"Other programs kept the machine busy at {', '.join(busy)}: these times are too long."] if busy else []


def _costs(sizes: dict[int, dict[str, Any]]) -> list[str]:
    lines = [
        "| documents | passages | searchable after, s | passages/s | then built, s | peak memory, MB"
        " | of it no pages of"
        " files, MB | disk, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return lines + [
        f"| {size:,} | {row['passages']:,} | {row['searchable_s']:.1f} | {row['passages'] / row['searchable_s']:,.0f} |"
        f" {row['build_s']:.1f} | {row['peak_mb']:,.0f} | {row['peak_anonymous_mb']:,.0f} | {row['disk_mb']:,.0f} |"
        for size, row in sizes.items()
    ]


def _searches(sizes: dict[int, dict[str, Any]]) -> list[str]:
    lines = [
        "| documents | hybrid p50 / p95, ms | core-ms | dense alone p50, ms | BM25 alone p50, ms |"
        " recall@100 of the dense"
        " arm | compared by | memory, MB | and of files, MB | opened in, s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    return lines + [
        f"| {size:,} | {row['hybrid_p50_ms']:.1f} / {row['hybrid_p95_ms']:.1f} | {row['hybrid_cpu_ms']:.1f} |"
        f" {row['dense_p50_ms']:.1f} | {row['bm25_p50_ms']:.1f} | {row['recall_at_100']:.3f} | {_compared(row)} |"
        f" {row['search_mb']['anonymous']:,.0f} | {row['search_mb']['files']:,.0f} | {row['opened_s']:.2f} |"
        for size, row in sizes.items()
    ]


def _compared(row: dict[str, Any]) -> str:
    vectors = "whole vectors" if row["quantization"] == "none" else f"{row['quantization'].split(',')[0]} codes"
    return f"graph over {vectors}" if row["graph"] else vectors


def _growth(sizes: dict[int, dict[str, Any]]) -> list[str]:
    """How much dearer ten times the documents are."""
    if not {_SMALL, _LARGE} <= sizes.keys():
        return []
    one, ten = sizes[_SMALL], sizes[_LARGE]
    return [
        "",
        f"From {_SMALL:,} to {_LARGE:,} documents: until searchable"
        f" {ten['searchable_s'] / one['searchable_s']:.1f} times as"
        f" long, to the closed index {ten['total_s'] / one['total_s']:.1f} times; p50 of a hybrid search"
        f" {ten['hybrid_p50_ms'] / one['hybrid_p50_ms']:.1f} times, its processor time"
        f" {ten['hybrid_cpu_ms'] / one['hybrid_cpu_ms']:.1f} times.",
    ]


def _plot(record: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "growth"
    from matplotlib import pyplot
    from matplotlib.ticker import LogFormatter

    sizes = sorted(map(int, record["sizes"]))
    rows = [record["sizes"][str(size)] for size in sizes]
    panels = {
        "seconds": [
            ("searchable", [row["searchable_s"] for row in rows]),
            ("closed, with its graph", [row["total_s"] for row in rows]),
        ],
        "MB": [
            ("peak memory of the ingest", [row["peak_mb"] for row in rows]),
            ("of it no pages of files", [row["peak_anonymous_mb"] for row in rows]),
            ("disk", [row["disk_mb"] for row in rows]),
        ],
        "ms of a search": [
            ("hybrid, p50", [row["hybrid_p50_ms"] for row in rows]),
            ("hybrid, p95", [row["hybrid_p95_ms"] for row in rows]),
            ("dense alone, p50", [row["dense_p50_ms"] for row in rows]),
            ("BM25 alone, p50", [row["bm25_p50_ms"] for row in rows]),
        ],
    }
    figure, axes = pyplot.subplots(1, len(panels), figsize=(12, 3.6), layout="constrained")
    for axis, (name, lines) in zip(axes, panels.items(), strict=True):
        for label, values in lines:
            axis.plot(sizes, values, marker="o", label=label)
        axis.set(xscale="log", yscale="log", xlabel="documents", ylabel=name)
        for level in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
            level(LogFormatter(minor_thresholds=(1.5, 0.5)))
        axis.grid(visible=True, which="major", alpha=0.3)
        axis.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
