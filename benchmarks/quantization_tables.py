"""The records of the table as Markdown, and as a plot of quality against bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.quantization_report import NDCG, Row, cost, frontier
from benchmarks.quantization_systems import SYSTEMS
from retrieval.errors import MissingExtraError

Record = dict[str, Any]
_LINES = {
    ("float", ""): ("#111827", "s"),
    ("scalar int8", "codes only"): ("#047857", "D"),
    ("turbo 2 bit", "codes only"): ("#60a5fa", "v"),
    ("turbo 2 bit", "rescored x3"): ("#1d4ed8", "o"),
    ("binary 1 bit", "codes only"): ("#fdba74", "v"),
    ("binary 1 bit", "rescored x3"): ("#c2410c", "o"),
    ("binary 1 bit, queries 8 bit", "rescored x3"): ("#86198f", "^"),
}
"""Codes in the plot: colour and marker."""


def markdown(records: Sequence[Record]) -> str:
    """Every table of some collections."""
    parts = []
    for record in records:
        parts.append(f"## {record['collection']} ({record['split']}, encoder {record['state']})")
        parts += [f"### {title}\n\n{table(record)}" for title, table in _TABLES.values()]
    return "\n\n".join(parts) + "\n"


def filled(page: str, records: Sequence[Record]) -> str:
    """A page with its tables renewed: what stands between ``<!-- NAME COLLECTION -->`` and ``<!-- end -->``.

    Raises:
        ValueError: A mark names no table or no collection.
    """
    tables = {one["collection"]: one for one in records}

    def table(mark: re.Match[str]) -> str:
        name, collection = mark[1], mark[2]
        if name not in _TABLES or collection not in tables:
            raise ValueError(f"no table {name!r} of {collection!r}; tables are {list(_TABLES)} of {list(tables)}")
        return f"<!-- {name} {collection} -->\n\n{_TABLES[name][1](tables[collection])}\n\n<!-- end -->"

    return re.sub(r"<!-- (\w+) ([^>]+?) -->\n.*?<!-- end -->", table, page, flags=re.DOTALL)


def _rows(record: Record) -> str:
    systems = list(record["queries"])
    head = ["dims", "code", "search", "bytes", "recall@100, same dims", "all dims", *systems, "p50, ms"]
    lines = []
    for row in record["rows"]:
        cells = [
            str(row["dims"]),
            row["code"],
            row["search"],
            f"{row['searched_bytes']:g}",
            f"{row['recall_same_dims']:.3f}",
            f"{row['recall_all_dims']:.3f}",
        ]
        cells += [_quality(row, system) for system in systems]
        lines.append([*cells, f"{row['p50_ms']:.2f}" if "p50_ms" in row else ""])
    return _table(head, lines)


def _quality(row: Row, system: str) -> str:
    """nDCG@10, and the loss against float of as many dimensions where there is something to lose."""
    one = row["systems"].get(system)
    if one is None:
        return "not measured"
    return f"{one[NDCG]:.3f}" + (f" {interval(one['loss_same_dims'], -1)}" if row["search"] else "")


def interval(change: dict[str, float], sign: int = 1) -> str:
    """A mean and its 95 % interval: ``-.012 [-.020, -.005]``; 0 alone where all of them round to it."""
    mean, low, high = (sign * change[key] for key in ("mean", "low", "high"))
    low, high = min(low, high), max(low, high)
    texts = [_signed(value) for value in (mean, low, high)]
    return "0" if set(texts) == {"0"} else f"{texts[0]} [{texts[1]}, {texts[2]}]"


def _signed(value: float) -> str:
    text = f"{value:+.3f}".replace("0.", ".", 1)
    return "0" if text in {"+.000", "-.000"} else text


def _rescoring(record: Record) -> str:
    systems = list(record["queries"])
    lines = [
        [
            str(row["dims"]),
            row["code"],
            *(interval(row["gain"][system]) if system in row["gain"] else "" for system in systems),
        ]
        for row in record["rescoring"]
    ]
    return _table(["dims", "code", *systems], lines)


def _binary(record: Record) -> str:
    """Float and sign bits for each number of dimensions: nDCG@10 and what the sign bits lose."""
    chosen = [("binary 1 bit", "codes only"), ("binary 1 bit", "rescored x3")]
    chosen += [("binary 1 bit, queries 8 bit", "codes only"), ("binary 1 bit, queries 8 bit", "rescored x3")]
    lines = []
    for dims in dict.fromkeys(row["dims"] for row in record["rows"]):
        rows = {(row["code"], row["search"]): row for row in record["rows"] if row["dims"] == dims}
        there = [key for key in chosen if key in rows]
        for system in record["queries"]:
            lines.append([str(dims), system, *(_quality(rows[key], system) for key in [("float", ""), *there])])
    return _table(["dims", "system", "float", *(f"{code}, {search}" for code, search in there)], lines)


def _frontiers(record: Record) -> str:
    lines = []
    for system in record["queries"]:
        for originals in (False, True):
            account = "codes and originals" if originals else "codes"
            lines += [
                [
                    system,
                    account,
                    f"{cost(row, originals=originals):g}",
                    ", ".join(filter(None, (f"{row['dims']} dims", row["code"], row["search"]))),
                    f"{row['systems'][system][NDCG]:.3f}",
                    interval(row["systems"][system]["loss_all_dims"], -1),
                    row["systems"][system].get("verdict", "the baseline"),
                ]
                for row in frontier(record["rows"], system, originals=originals)
            ]
    head = ["system", "counted", "bytes", "row", NDCG, "against float, all dims", "corrected verdict"]
    return _table(head, lines)


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _size(record: Record) -> str:
    counts = ", ".join(f"{system} {count}" for system, count in record["queries"].items())
    return f"{record['passages']:,} passages. Queries: {counts}."


_TABLES: dict[str, tuple[str, Callable[[Record], str]]] = {
    "size": ("Size", _size),
    "rescoring": ("What rescoring adds: x3 against the codes alone", _rescoring),
    "binary": ("Sign bits and Matryoshka", _binary),
    "frontier": ("Not beaten in bytes and quality at once", _frontiers),
    "rows": ("Every row", _rows),
}
"""Title and maker of each table by the name that marks it in a page."""


def plot(records: Sequence[Record], path: Path) -> None:
    """Quality against the bytes that are searched, a panel for each collection and a line for some codes, as SVG.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "matplotlib", "report", "a plot of the table") from error
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, NullLocator, ScalarFormatter

    everything = [row for record in records for row in record["rows"]]
    both = next(system for system in reversed(SYSTEMS) if all(system in row["systems"] for row in everything))
    settings = {"svg.hashsalt": "two-stage", "svg.fonttype": "none", "font.size": 8, "font.family": "sans-serif"}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(3.1 * len(records) + 0.4, 3.9), layout="constrained")
        axes = figure.subplots(1, len(records), squeeze=False)[0]
        for panel, record in zip(axes, records, strict=True):
            for (code, search), (colour, marker) in _LINES.items():
                chosen = [row for row in record["rows"] if (row["code"], row["search"]) == (code, search)]
                for system, style, fill in ((both, "-", colour), ("static", ":", "white")):
                    rows = [row for row in chosen if system in row["systems"]]
                    xs = [row["searched_bytes"] for row in rows]
                    ys = [row["systems"][system][NDCG] for row in rows]
                    label = ", ".join(filter(None, (code, search))) if system == both else None
                    panel.plot(xs, ys, style, color=colour, marker=marker, mfc=fill, ms=4, lw=1, label=label)
            panel.set_title(record["collection"])
            panel.set_xscale("log", base=2)
            panel.set_xticks([16, 32, 64, 128, 256, 512, 1024])
            panel.xaxis.set_major_formatter(ScalarFormatter())
            panel.xaxis.set_minor_formatter(NullFormatter())
            panel.xaxis.set_minor_locator(NullLocator())
            panel.set_xlabel("bytes of a vector that are searched")
            panel.grid(alpha=0.25, lw=0.5)
        axes[0].set_ylabel(NDCG)
        handles, labels = axes[0].get_legend_handles_labels()
        title = f"solid: {both}; dotted, hollow: static arm alone; to the left fewer dimensions"
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=7, frameon=False, title=title)
        figure.savefig(path, format="svg", metadata={"Date": None})
