"""What is measured and what is made of it: rows of repeats, medians, ratios, and the figures that have targets."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

TIMES = "\N{MULTIPLICATION SIGN}"
"""Unit of a ratio."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What one repeat took.

    Args:
        value: The number that counts, seconds or milliseconds for instance.
        cpu: Processor time in the same unit, over all threads and processes; ``None`` where it was not looked at.
    """

    value: float
    cpu: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One system in one thing that was measured.

    Args:
        question: Which part of the benchmark: encode, ingest, first_stage and so on.
        what: What was measured, the same words for all systems that did the same.
        system: Who did it.
        unit: ``s``, ``ms``, ``MB``, ``passages/s`` and so on.
        values: One for each repeat, in the order of the repeats.
        note: What a reader has to know about it.
        cpu: Processor time of each repeat in the same unit; empty where it was not looked at.
    """

    question: str
    what: str
    system: str
    unit: str
    values: tuple[float, ...]
    note: str = ""
    cpu: tuple[float, ...] = ()

    @classmethod
    def of(cls, question: str, what: str, system: str, unit: str, taken: Sequence[Taken], note: str = "") -> Row:
        """A row of repeats."""
        cpu = tuple(one.cpu for one in taken if one.cpu is not None)
        return cls(question, what, system, unit, tuple(one.value for one in taken), note, cpu)

    @property
    def median(self) -> float:
        """Of the repeats."""
        return statistics.median(self.values)


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that was not measured, and why."""

    question: str
    what: str
    system: str
    reason: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with a target.

    Args:
        name: What it is.
        value: ``None`` when it was not measured.
        unit: `TIMES` for ratios.
        least: What it should at least be, or at most where ``better`` is ``lower``.
        aim: What it is hoped to be.
        better: Which direction is better.
        out_of: The numbers that it was made of, in words.
    """

    name: str
    value: float | None
    unit: str
    least: float
    aim: float
    better: Literal["higher", "lower"] = "higher"
    out_of: str = ""

    @property
    def reached(self) -> Literal["aim", "target", "missed", "not measured"]:
        """How far it came."""
        if self.value is None:
            return "not measured"
        for name, bound in (("aim", self.aim), ("target", self.least)):
            if self.value >= bound if self.better == "higher" else self.value <= bound:
                return "aim" if name == "aim" else "target"
        return "missed"


@dataclass(slots=True)
class Findings:
    """What was found for one question, or for several, in the order in which it was found."""

    rows: list[Row] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)

    def row(self, what: str, system: str) -> Row | None:
        """The row of a system, ``None`` when it was not measured."""
        return next((row for row in self.rows if (row.what, row.system) == (what, system)), None)

    def quickest(self, what: str, systems: Sequence[str]) -> Row | None:
        """The row with the smallest median among these systems; ``None`` when none was measured."""
        found = [row for system in systems if (row := self.row(what, system)) is not None]
        return min(found, key=lambda row: row.median, default=None)

    def record(self) -> dict[str, Any]:
        """As JSON, with medians and with how far each figure came."""
        return {
            "figures": [asdict(figure) | {"reached": figure.reached} for figure in self.figures],
            "rows": [asdict(row) | {"median": row.median} for row in self.rows],
            "comparisons": self.comparisons,
            "missing": [asdict(missing) for missing in self.missing],
            "notes": self.notes,
        }

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Findings:
        """What `record` gave, also after a way through a file."""

        def bare(row: Mapping[str, Any]) -> dict[str, Any]:
            own = {name: value for name, value in row.items() if name not in {"median", "reached"}}
            return own | {name: tuple(own[name]) for name in ("values", "cpu") if name in own}

        return cls(
            rows=[Row(**bare(row)) for row in record["rows"]],
            missing=[Missing(**row) for row in record["missing"]],
            figures=[Figure(**bare(row)) for row in record["figures"]],
            notes=list(record["notes"]),
            comparisons=list(record["comparisons"]),
        )

    @classmethod
    def joined(cls, parts: Iterable[Findings]) -> Findings:
        """All of them in one."""
        whole = cls()
        for part in parts:
            whole.rows += part.rows
            whole.missing += part.missing
            whole.figures += part.figures
            whole.notes += part.notes
            whole.comparisons += part.comparisons
        return whole


def ratio(slower: Row | None, faster: Row | None) -> float | None:
    """How many times the median of one is that of the other; ``None`` when one of them was not measured."""
    if slower is None or faster is None or faster.median == 0:
        return None
    return slower.median / faster.median


def against(slower: Row | None, faster: Row | None) -> str:
    """The two medians of a ratio in words."""
    if slower is None or faster is None:
        return ""
    return f"{shown(slower.median, slower.unit)} {slower.system} / {shown(faster.median, faster.unit)} here"


def ratio_figure(name: str, slower: Row | None, faster: Row | None, least: float, aim: float) -> Figure:
    """How many times quicker, with both medians in words."""
    return Figure(name, ratio(slower, faster), TIMES, least, aim, out_of=against(slower, faster))


def shown(value: float, unit: str) -> str:
    """A number as people write it: three digits that count, thousands parted."""
    if unit == "cosine":
        return f"{value:.7f}"
    if isinstance(value, int) and not unit:
        return f"{value:,.0f}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}{unit if unit == TIMES else ' ' + unit}".strip()


def interleaved(repeats: int, systems: Mapping[str, Callable[[], Taken]]) -> dict[str, tuple[Taken, ...]]:
    """Run each system so many times, one after the other, so that all of them meet the same disturbances.

    Args:
        repeats: How often.
        systems: What one repeat of each does.

    Returns:
        What the repeats of each system took, in their order.
    """
    found: dict[str, list[Taken]] = {name: [] for name in systems}
    for _ in range(repeats):
        for name, run in systems.items():
            found[name].append(run())
    return {name: tuple(taken) for name, taken in found.items()}
