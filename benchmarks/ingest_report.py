"""The page of `benchmarks.ingest`, written from its figures."""

from __future__ import annotations

from typing import Any

from benchmarks.bench.machine import was_busy
from pipelines.preparation import DOCUMENTS_PER_LOOKUP, PASSAGES_PER_BATCH

_PROTOCOL = """# Ingest

Written by `python -m benchmarks.ingest --scifact DIR --pairs DIR --out benchmarks/ingest.json`; a run that was stopped
goes on with the next case.

**Protocol.** Defaults, 256 dimensions. Every ingest is a new process and a new index; medians of the runs named. Time
counts from opening the index, with reading the models, and without the start of the interpreter and its imports.
*Searchable*: every passage is written, found by search, and survives a power loss. *In order*: then the store writes
one segment, from 10,000 new passages on; searches wait meanwhile. *Memory* is the most of all processes together
during both, looked at in a run of its own: without pages of files, and with those of the index that the system may take
back at any time. Stages are seconds of work; those of two processes overlap. The larger corpora are made by
`benchmarks/scale_corpus.py`: real passages, and from where they end the same ones perturbed.
"""


def page(record: dict[str, Any]) -> str:
    """The page as Markdown.

    Args:
        record: What `benchmarks.ingest` has written so far.
    """
    machine, cases = record["machine"], record["cases"]
    busy = [key for key, case in cases.items() if was_busy(case["measured"])]
    lines = [
        f"**Machine.** {machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB,"
        f" {machine['system']}, Python {machine['python']}. {record['date']}.",
        "",
    ]
    if busy:
        lines += [
            f"**Other programs ran meanwhile** in {len(busy)} of {len(cases)} cases, which makes times longer.",
            "",
        ]
    tables = (_sizes(cases), _stages(cases), _floor(cases), _kernels(cases), _batches(cases))
    return _PROTOCOL + "\n" + "\n".join(lines + [line for table in tables for line in table])


def _rows(cases: dict[str, Any], table: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, processes and medians of the rows of a table."""
    found = []
    for key, case in cases.items():
        if key.startswith(f"{table}: "):
            _, name, processes = key.split(": ")
            found.append((name, processes.split()[0], case["median"]))
    return found


def _sizes(cases: dict[str, Any]) -> list[str]:
    lines = [
        "## From files to an index",
        "",
        "| documents | processes | passages | searchable after, s | passages/s | slowest and fastest | runs | then in"
        " order, s | memory, MB | and of files, MB | disk, MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, processes, row in _rows(cases, "sizes"):
        files = row["peak_mb"] - row["peak_anonymous_mb"]
        lines.append(
            f"| {name} | {processes} | {row['passages']:,.0f} | {row['searchable_s']:.2f}"
            f" | {row['passages_per_s']:,.0f} | {row['slowest_per_s']:,.0f} to {row['fastest_per_s']:,.0f}"
            f" | {row['runs']} | {row['order_s']:.2f}"
            f" | {row['peak_anonymous_mb']:,.0f} | {files:,.0f} | {row['disk_mb']:,.0f} |"
        )
    return [*lines, ""]


def _stages(cases: dict[str, Any]) -> list[str]:
    lines = [
        "## Stages",
        "",
        "Microseconds per passage: of work in each stage, then of processor time. *Others* is the second process and"
        " the one that puts the index in order.",
        "",
        "| documents | processes | read and hash | cut and encode | write | CPU of the writer | CPU of the others |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, processes, row in _rows(cases, "sizes"):
        each = 1e6 / row["passages"]
        columns = ("read_s", "encode_s", "write_s", "cpu_writer_s", "cpu_others_s")
        lines.append(
            f"| {name} | {processes} | " + " | ".join(f"{row[column] * each:.0f}" for column in columns) + " |"
        )
    return [*lines, ""]


def _floor(cases: dict[str, Any]) -> list[str]:
    if "floor" not in cases:
        return []
    row = cases["floor"]
    return [
        "## The engine alone",
        "",
        f"{row['passages']:,} points with ready vectors in batches, the best of three runs, nothing else in the"
        " process. The engine holds the interpreter while it translates and writes, and allows one writer, so that no"
        " ingest goes faster, whatever reads and encodes for it.",
        "",
        "| translating, µs a passage | writing | flush at the end | all | CPU | passages/s at most |",
        "|---|---|---|---|---|---|",
        f"| {row['translate_us']:.0f} | {row['update_us']:.0f} | {row['flush_us']:.0f} | {row['total_us']:.0f} |"
        f" {row['cpu_us']:.0f} | {1e6 / row['total_us']:,.0f} |",
        "",
    ]


def _kernels(cases: dict[str, Any]) -> list[str]:
    rows = _rows(cases, "kernels")
    if not rows:
        return []
    lines = [
        "## Compiled kernels",
        "",
        "SciFact in one process. The first ingest of a machine finds no compiled kernels: numpy does the work while"
        " another process compiles them at low priority.",
        "",
        "| kernels | searchable after, s | passages/s | CPU of the writer, s | cut and encode, s | runs |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {row['searchable_s']:.2f} | {row['passages_per_s']:,.0f} | {row['cpu_writer_s']:.2f} |"
        f" {row['encode_s']:.2f} | {row['runs']} |"
        for name, _, row in rows
    ]
    return [*lines, ""]


def _batches(cases: dict[str, Any]) -> list[str]:
    rows = _rows(cases, "batches")
    if not rows:
        return []
    lines = [
        "## Batches",
        "",
        "One process, the smallest corpus, medians of three runs. Documents are looked up together, passages encoded"
        f" and written together. The defaults are {DOCUMENTS_PER_LOOKUP} and {PASSAGES_PER_BATCH}.",
        "",
        "| documents / passages | searchable after, s | CPU of the writer, µs a passage | resident, MB |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {row['searchable_s']:.2f} | {row['cpu_writer_s'] / row['passages'] * 1e6:.0f} |"
        f" {row['resident_mb']:,.0f} |"
        for name, _, row in rows
    ]
    return [*lines, ""]
