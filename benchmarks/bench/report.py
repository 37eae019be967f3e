"""The findings as a page: machine and protocol first, then the figures with targets, then all that was measured."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from benchmarks.bench.figures import TIMES, Figure, Findings, Row, ratio, shown
from benchmarks.bench.machine import was_busy

TITLES = {
    "encode": "Encoding",
    "ingest": "Ingest",
    "first_stage": "First stage",
    "growth": "Growth",
    "two_stage": "Both stages",
    "quality": "Quality of both stages",
    "cold_start": "Cold start",
}
PROTOCOL = """\
Every system runs in a process of its own, the peers in an environment of their own, all of them from the same \
weights on disk and without a network. Repeats are interleaved: each system once, then all of them again. The \
numbers are medians of the repeats, in brackets the smallest and the largest; ratios are ratios of medians of time by \
the clock. Where a library has several ways to do a thing, all of them are rows and the ratio is that of the \
quickest. Threads are left to each library. CPU is the processor time of all threads and processes of one repeat, \
median."""
DETAILS = {
    "encode": """\
All texts, nothing cut off, vectors of unit length; the same weights, in float32 for the peers. Ours keeps what it \
learned of a word: *words known* is every run but the first, *no word known* an encoder that has met no text. The \
other libraries tokenize all texts anew each time. A whole process tells what a first run takes.""",
    "ingest": """\
From the file to the moment when everything is on the disk and can be searched, in a new process for each repeat; \
imports do not count. Ours: open a new index, read, chunk, encode, BM25, upsert, made durable, close. The script, \
its model open already: read, encode, put whole documents into qdrant-client in memory, index them with bm25s.""",
    "first_stage": """\
One query after the other; the p50 and p95 over the queries of each repeat. Ours is the whole call of `search`, from \
text to ten hits with their texts. qdrant-client is given the vectors of the queries. bm25s stems and drops stop \
words as ours does (Snowball English), tokenizing is timed. The numpy product reads vectors that already lie in its \
memory.""",
    "growth": "What `python -m benchmarks.growth` has measured, one index for each size.",
    "two_stage": """\
The script encodes the query with the same static weights in sentence-transformers, takes the 100 nearest of all \
passages (`util.semantic_search`) and scores each of them with the same cross-encoder: `CrossEncoder` of \
sentence-transformers, torch, float32 weights, 512 tokens a pair, batches of 32. It answers each query of a random \
sample once, a share in each round; ours answers all of the sample in each round, by a pipeline that is opened anew \
and knows no score. The script's variants read less, in less precision, or through ONNX; *a plain BERT of this \
size* has random weights and tells how much of the time is due to the layout of our network, which torch has no \
quick kernel for. The figures with a target are against the script in float32, as `CrossEncoder` runs it unless told \
otherwise. Ours is `search` with ten hits and the defaults, or with a budget.""",
    "quality": """\
Ours answers all judged queries. The script is compared on those that it has answered, the first ones of a random \
order (`python -m benchmarks.bench.script_quality` goes on with more), query by query, with 95 % bootstrap \
intervals. Nothing was chosen by these queries.""",
    "cold_start": "Whole processes, each search with another query; the imports in the environment of the peers.",
}


def page(record: Mapping[str, Any]) -> str:
    """The content of ``bench.json`` in Markdown."""
    parts = {name: Findings.read(part) for name, part in ordered(record).items()}
    whole = Findings.joined(parts.values())
    texts = ["# Speed beside other libraries", _setting(record["setting"]), f"**Protocol.** {PROTOCOL}"]
    busy = [TITLES[name] for name in parts if was_busy(record["sections"][name]["measured"])]
    if busy:
        texts.append(
            f"**Other programs ran meanwhile** ({', '.join(busy)}): times are longer than they need be, and ratios are "
            "less certain."
        )
    texts += ["## Figures with a target", _figures(whole.figures)]
    for name, found in parts.items():
        if found.rows:
            texts += [f"## {TITLES[name]}", DETAILS[name], _measured(record["sections"][name]["measured"])]
            texts += [*_tables(found.rows, found), _comparisons(found.comparisons)]
    if whole.missing:
        lines = [f"- {one.what}, {one.system}: {one.reason}" for one in whole.missing]
        texts += ["## Not measured", "\n".join(dict.fromkeys(lines))]
    if whole.notes:
        texts += ["## Notes", "\n".join(f"- {note}" for note in whole.notes)]
    texts.append("The raw numbers are in `bench.json`; `bench.svg` draws them.")
    return "\n\n".join(text for text in texts if text) + "\n"


def ordered(record: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of ``bench.json`` in the order of the page."""
    return {name: record["sections"][name] for name in TITLES if name in record["sections"]}


def summary(record: Mapping[str, Any]) -> str:
    """The figures with targets for a terminal of 80 columns."""
    figures = Findings.joined(Findings.read(part) for part in ordered(record).values()).figures
    lines = ["        measured  figure; below it what it reaches (target to aim), of what"]
    for figure in figures:
        if figure.value is None:
            lines.append(f"{'-':>16}  {figure.name}")
            continue
        bounds = " to ".join(_bound(bound, figure.unit) for bound in dict.fromkeys((figure.least, figure.aim)))
        lines.append(f"{shown(figure.value, figure.unit):>16}  {figure.name}")
        told = f"{figure.reached} ({'at most ' * (figure.better == 'lower')}{bounds})"
        told += f"; {figure.out_of}" if figure.out_of else ""
        lines += textwrap.wrap(told, 79, initial_indent=" " * 20, subsequent_indent=" " * 20)
    return "\n".join(lines)


def _setting(setting: Mapping[str, Any]) -> str:
    machine, corpus = setting["machine"], setting["corpus"]
    memory = f", {machine['memory_gb']} GB" if machine["memory_gb"] else ""
    own = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    peers = ", ".join(f"{name} {number}" for name, number in setting["peers"].items()) or "not installed"
    large = f" Large corpus: {setting['scale']:,} documents, `benchmarks/scale_corpus.py`." if setting["scale"] else ""
    return (
        f"**Machine.** {machine['cores']} shared cores, {machine['processor']}{memory}; {machine['system']}; Python "
        f"{machine['python']}; {own}.\n\n"
        f"**Peers.** {peers}.\n\n"
        f"**Corpus.** {corpus['name']}: {corpus['documents']:,} documents, {corpus['characters'] / 1e6:.1f} million "
        f"characters.{large}"
    )


def _measured(measured: Mapping[str, Any]) -> str:
    others = measured["cores_of_others"]
    told = "" if others is None else f"; other programs kept {others:.2f} cores busy meanwhile"
    repeats = f"{measured['repeats']} repeat{'s' * (measured['repeats'] != 1)}"
    return (
        f"*{measured['date']}, {repeats}, {measured['seconds']:,.0f} s in all; load {measured['load_before']} "
        f"before{told}.*"
    )


def _figures(figures: Iterable[Figure]) -> str:
    lines = ["| figure | measured | at least | aim | reached | of |", "|---|---|---|---|---|---|"]
    for figure in figures:
        value = "not measured" if figure.value is None else f"**{shown(figure.value, figure.unit)}**"
        sign = "" if figure.better == "higher" else "at most "
        bounds = (f"{sign}{_bound(bound, figure.unit)}" for bound in (figure.least, figure.aim))
        lines.append("| " + " | ".join((figure.name, value, *bounds, figure.reached, figure.out_of)) + " |")
    return "\n".join(lines)


def _bound(value: float, unit: str) -> str:
    if unit == "cosine":
        return f"{value:,}"
    number = f"{value:,.0f}" if float(value).is_integer() else shown(value, "")
    return f"{number}{unit}" if unit == TIMES else f"{number} {unit}".strip()


def _tables(rows: list[Row], findings: Findings) -> list[str]:
    """One for each thing that was measured."""
    tables = []
    for what in dict.fromkeys(row.what for row in rows):
        here = [row for row in rows if row.what == what]
        own = findings.row(what, "this")
        timed = own is not None and own.unit in {"s", "ms"} and len(here) > 1
        head = ["system", "median", *(["CPU"] if any(row.cpu for row in here) else [])]
        head += (["this is quicker by"] if timed else []) + (["note"] if any(row.note for row in here) else [])
        lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        for row in here:
            cells = [f"**{row.system}**" if row.system.startswith(("this", "retrieval")) else row.system, _spread(row)]
            if "CPU" in head:
                cells.append(shown(median(row.cpu), row.unit) if row.cpu else "")
            if timed:
                times = ratio(row, own)
                cells.append("" if row is own or times is None else shown(times, TIMES))
            if "note" in head:
                cells.append(row.note)
            lines.append(f"| {' | '.join(cells)} |")
        tables += [f"**{what[:1].upper()}{what[1:]}**", "\n".join(lines)]
    return tables


def _spread(row: Row) -> str:
    if len(row.values) == 1:
        return shown(row.median, row.unit)
    low, high = (shown(value, "").strip() for value in (min(row.values), max(row.values)))
    return f"{shown(row.median, row.unit)} ({low} to {high})"


def _comparisons(comparisons: list[dict[str, Any]]) -> str:
    if not comparisons:
        return ""
    lines = [f"| system | {comparisons[0]['measure']} against {comparisons[0]['baseline']} | 95 % interval | verdict |"]
    lines.append("|---|---|---|---|")
    for one in comparisons:
        low, high = one["interval"]
        lines.append(f"| {one['system']} | {one['difference']:+.3f} | {low:+.3f} to {high:+.3f} | {one['verdict']} |")
    return "\n".join(lines)
