"""Page and plot of a soak, written from its figures alone."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_FLAT = {"anonymous_mb": 20.0, "disk_mb": 20.0, "handles": 4.0, "threads": 2.0}
"""How much the median of the last quarter may lie above that of the second."""
_FLAT_RATIO = 1.5
_NAMES = {
    "anonymous_mb": "memory without pages of files, MB",
    "disk_mb": "disk of the index, MB",
    "handles": "open files",
    "threads": "threads",
}


def write_report(record: dict[str, Any], out: Path) -> str:
    """Write the page and the plot beside the figures; the page."""
    plot = out.with_suffix(".svg")
    _plot(record, plot)
    text = page(record, plot.name)
    out.with_suffix(".md").write_text(text, encoding="utf-8")
    return text


def page(record: dict[str, Any], plot: str) -> str:
    """The Markdown page.

    Args:
        record: What `benchmarks.soak` writes.
        plot: Address of the plot.
    """
    machine, watch = record["machine"], record["watch"]
    together = " --together" if record["together"] else ""
    lines = [
        "# Hours of mixed load",
        "",
        f"Written by `python -m benchmarks.soak --collection SCIFACT --minutes 60{together}"
        " --out benchmarks/soak.json`.",
        "",
        "**Protocol.** Searches, two-stage searches, ingests, replacements, deletions and checks arrive at random, each"
        " kind at a rate of its own; time counts from the moment a thing was due. The number of documents is held."
        " Checks look for a document that was acknowledged and for one that was deleted. At the end every acknowledged"
        " document is read back, the process is killed with SIGKILL, and all are read back once more. *Flat*: the"
        f" median of the last quarter lies at most {_FLAT['anonymous_mb']:.0f} MB of memory or disk,"
        f" {_FLAT['handles']:.0f} files or"
        f" {_FLAT['threads']:.0f} threads above that of the second, and a latency at most {_FLAT_RATIO} times.",
        "",
        f"**Machine.** {machine['cores']} cores, {machine['processor']}, {machine['memory_gb']} GB,"
        f" {machine['system']}, Python {machine['python']}. {record['date'][:10]}."
        f" Other programs kept {watch['cores_of_others']} cores busy"
        f" meanwhile{', both subjects at once' if record['together'] else ''}.",
        "",
        f"![Memory, open files and latency over the hours]({plot})",
    ]
    if "note" in record:
        lines += ["", record["note"]]
    for subject, found in record["subjects"].items():
        lines += _subject(subject, found)
    return "\n".join(lines) + "\n"


def _subject(subject: str, found: dict[str, Any]) -> list[str]:
    notes = found["notes"]
    hours = notes[-1]["at_s"] / 3600
    kinds = {name for note in notes for name in note["done"]}
    done = {name: sum(note["done"].get(name, 0) for note in notes) for name in kinds}
    errors = sum(len(note["errors"]) for note in notes)
    wrong = sum(len(note["wrong"]) for note in notes)
    rows = [
        f"| {_NAMES[name]} | {_quarter(notes, 1, _of(name)):,.0f} | {_quarter(notes, 3, _of(name)):,.0f} |"
        f" {_verdict(_quarter(notes, 3, _of(name)) - _quarter(notes, 1, _of(name)) <= most)} |"
        for name, most in _FLAT.items()
    ]
    for kind in sorted(done):
        for figure in ("p50_ms", "p95_ms"):
            before, after = (_quarter(notes, at, _latency(figure, kind)) for at in (1, 3))
            name = f"{kind.replace('_', '-')}, {figure[:3]}, ms"
            rows.append(f"| {name} | {before:,.1f} | {after:,.1f} | {_verdict(after <= before * _FLAT_RATIO)} |")
    lost, after_kill = found["lost"], found["lost_after_kill"]
    return [
        "",
        f"## The {subject}",
        "",
        f"{hours:.2f} hours, {sum(done.values()):,} pieces of work ("
        + ", ".join(f"{count:,} {name.replace('_', '-')}" for name, count in sorted(done.items()))
        + f"). Errors: **{errors}**. Wrong answers: **{wrong}**. Lost or risen at the end: **{len(lost)}**; after"
        f" SIGKILL: **{len(after_kill)}** of {notes[-1]['stored']:,} acknowledged documents.",
        "",
        "| | second quarter | last quarter | flat |",
        "|---|---|---|---|",
        *rows,
    ]


def _quarter(notes: Sequence[dict[str, Any]], at: int, value: Callable[[dict[str, Any]], float | None]) -> float:
    part = notes[at * len(notes) // 4 : (at + 1) * len(notes) // 4] or notes
    values = [found for note in part if (found := value(note)) is not None]
    return statistics.median(values) if values else 0.0


def _of(name: str) -> Callable[[dict[str, Any]], float | None]:
    return lambda note: float(note[name])


def _latency(figure: str, kind: str) -> Callable[[dict[str, Any]], float | None]:
    return lambda note: note[figure].get(kind)


def _verdict(flat: bool) -> str:
    return "yes" if flat else "**no**"


def _plot(record: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "soak"
    from matplotlib import pyplot

    subjects = record["subjects"]
    figure, axes = pyplot.subplots(
        len(subjects), 3, figsize=(12, 3.2 * len(subjects)), layout="constrained", squeeze=False
    )
    for row, (subject, found) in zip(axes, subjects.items(), strict=True):
        notes = found["notes"]
        minutes = [note["at_s"] / 60 for note in notes]
        for name, label in (
            ("resident_mb", "resident"),
            ("anonymous_mb", "without pages of files"),
            ("disk_mb", "disk of the index"),
        ):
            row[0].plot(minutes, [note[name] for note in notes], label=label)
        for name in ("handles", "threads"):
            row[1].plot(minutes, [note[name] for note in notes], label={"handles": "open files"}.get(name, name))
        for kind in ("search", "two_stage", "ingest", "delete"):
            points = [
                (at, note["p50_ms"][kind]) for at, note in zip(minutes, notes, strict=True) if kind in note["p50_ms"]
            ]
            if points:
                row[2].plot(*zip(*points, strict=True), label=kind.replace("_", "-"))
        row[2].set_yscale("log")
        for axis, name in zip(row, ("memory and disk, MB", "number", "p50, ms"), strict=True):
            axis.set(title=f"{subject}: {name}", xlabel="minutes")
            axis.grid(visible=True, alpha=0.3)
            axis.legend(frameon=False, loc="upper center", ncols=2, fontsize="small")
        for axis in row[:2]:
            axis.set_ylim(0, axis.get_ylim()[1] * 1.3)
        row[2].set_ylim(top=row[2].get_ylim()[1] * 5)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
