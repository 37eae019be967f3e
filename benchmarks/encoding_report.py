"""Tables of `encoding`, made from its numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from textwrap import fill
from typing import Any

from benchmarks.encoding_run import FIRST, KNOWN, NEW

PEERS = ("sentence-transformers", "model2vec")
# state: at least, aim; for each of the peers
TARGETS = {KNOWN: ((20, 50), (12, 30)), NEW: ((3, 8), (2, 5))}
NAMES = {KNOWN: "warm (words known)", NEW: "cold (no word known)"}


def report(content: Mapping[str, Any]) -> str:
    """The page as Markdown."""
    setting, runs = content["setting"], content["threads"]
    parts = ["# Encoding speed", _protocol(setting, runs), "## Against the two libraries", _targets(runs)]
    for threads, run in runs.items():
        parts += [f"### {_threads(threads)}", _systems(run["dense"], setting["texts"], PEERS)]
    parts += [
        "## Vectors and BM25 weights from one scan",
        _filled(
            "`encode_passages`, which ingest calls, over the documents once: the words are looked up once for both. "
            "Without kernels the engine makes the BM25 terms of each passage."
        ),
    ]
    for threads, run in runs.items():
        parts += [f"### {_threads(threads)}", _systems(run["both"], setting["texts"] // 2, ())]
    parts += ["## Fidelity", _fidelity(runs), "## Memory", _memory(runs), "## Run it", RUN]
    return "\n\n".join(parts) + "\n"


RUN = """```
python -m benchmarks.encoding --corpus CORPUS --model retrieval/models/starter-static --json benchmarks/encoding.json
python -m benchmarks.encoding --json benchmarks/encoding.json --report    # the tables again
```

All repeats are in the JSON file."""


def _protocol(setting: Mapping[str, Any], runs: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in setting["packages"].items())
    chosen = "; ".join(
        f"{_threads(threads)}: " + ", ".join(f"{name} with {best}" for name, best in run["settings"].items())
        for threads, run in runs.items()
    )
    protocol = (
        f"**Protocol.** Title and text of the documents of `{setting['corpus']}`, twice over: {setting['texts']:,} "
        f"texts of {setting['characters'] / 1e6:.1f} million characters with {setting['words']:,} different words. The "
        f"weights of `{setting['model']}`, saved in the formats of both libraries; no text cut off; vectors of unit "
        "length. One process for each number of threads, held to as many cores. Each library with its fastest setting "
        f"of those tried ({chosen}). {setting['repeats']} repeats, interleaved; medians, and the lowest and highest in "
        "brackets. *Words known* is an encoder that has seen the texts before. *No word known* is a new one with the "
        "model open and the kernels loaded. *First call of a process* has to load the kernels as well, which are on "
        "the disk. Without kernels, numpy does the same work and gives the same bits."
    )
    machine = (
        f"**Machine.** {setting['cores']} cores of {setting['processor']} ({setting['machine']}), load "
        f"{setting['load']:.1f} at the start. Python {setting['python']}, {packages}. {setting['date']}."
    )
    opening = "How fast the static encoder turns texts into vectors, beside the two libraries whose formats it opens."
    return "\n\n".join([opening, _filled(protocol), _filled(machine)])


def _targets(runs: Mapping[str, Any]) -> str:
    lines = ["| times as fast as | " + " | ".join(f"{_threads(threads)}" for threads in runs) + " | at least | aim |"]
    lines.append("|---" * (len(runs) + 3) + "|")
    for state, bounds in TARGETS.items():
        for peer, (least, aim) in zip(PEERS, bounds, strict=True):
            ratios = [median(run["dense"][peer]) / median(run["dense"][state]) for run in runs.values()]
            cells = " | ".join(f"**{ratio:.1f}**" for ratio in ratios)
            lines.append(f"| {peer}, {NAMES[state]} | {cells} | {least} | {aim} |")
    return "\n".join(lines)


def _systems(seconds: Mapping[str, Sequence[float]], texts: int, peers: Sequence[str]) -> str:
    lines = ["| | seconds | texts/s |" + "".join(f" {peer} / this |" for peer in peers)]
    lines.append("|---" * (3 + len(peers)) + "|")
    order = [name for name in (KNOWN, NEW, FIRST) if name in seconds]
    for name in [*order, *(name for name in seconds if name not in order)]:
        middle, runs = median(seconds[name]), seconds[name]
        ratios = "".join(f" {median(seconds[peer]) / middle:.1f} |" for peer in peers)
        lines.append(f"| {name} | {middle:.3f} ({min(runs):.3f} to {max(runs):.3f}) | {texts / middle:,.0f} |{ratios}")
    return "\n".join(lines)


def _fidelity(runs: Mapping[str, Any]) -> str:
    lines = ["| | " + " | ".join(map(_threads, runs)) + " |", "|---" * (1 + len(runs)) + "|"]
    found = [run["fidelity"] for run in runs.values()]
    rows = [(f"smallest cosine with {peer}, which opened the same folder", f"{peer}") for peer in PEERS]
    for label, peer in rows:
        lines.append(f"| {label} | " + " | ".join(f"{each['smallest_cosine'][peer]:.8f}" for each in found) + " |")
    counted = {
        "different_token_ids": "texts whose token ids are not those of `tokenizers`",
        "different_token_counts": "texts whose number of tokens is not that of `tokenizers`",
        "different_without_kernels": "texts with other bits in the vector without kernels",
    }
    for key, label in counted.items():
        lines.append(f"| {label} | " + " | ".join(f"{each[key]} of {each['texts']:,}" for each in found) + " |")
    return "\n".join(lines)


def _memory(runs: Mapping[str, Any]) -> str:
    cache = next(iter(runs.values()))["cache"]
    return _filled(
        f"The table of words held {cache['words']:,} words in {cache['bytes'] / 2**20:.1f} MiB. It is bounded (half a "
        "million words, 16 MiB of text), and starts again when full."
    )


def _filled(text: str) -> str:
    return fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _threads(threads: str) -> str:
    return "1 thread" if threads == "1" else f"{threads} threads"
