"""What a suite gave at another time, in a file, and whether it gives less now."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pipelines.suite.report import ALL, SYSTEMS, SuiteReport
from retrieval.errors import ConfigError
from retrieval.evaluation.contrast import Order, topic_interval

TOLERANCE = 0.02
_FORMAT = "two-stage-retrieval suite baseline"
_LETTERS: Mapping[str, Order] = {order[0]: order for order in get_args(Order)}


@dataclass(frozen=True, slots=True)
class Baseline:
    """Outcome of every query at another time.

    Args:
        suite: Name of the suite.
        digest: Digest of its content.
        tolerance: Losses up to this share of the queries are accepted.
        names: Name of each query.
        orders: Order of each query for each system.
        kept: Whether the first stage kept both twins of each query.
    """

    suite: str
    digest: str
    tolerance: float
    names: tuple[str, ...]
    orders: Mapping[str, tuple[Order, ...]]
    kept: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Undercut:
    """A share that fell by more than the tolerance, by more than chance explains.

    Args:
        system: Which system; ``first stage`` for candidates that were kept.
        kind: Kind of the pairs, or ``all``.
        measure: ``right`` for single queries, ``both`` for both queries of a pair, ``kept`` for both twins kept.
        before: Share in the baseline.
        now: Share now.
        interval: 95 % bootstrap interval of the paired difference; both ends are below 0.
    """

    system: str
    kind: str
    measure: Literal["right", "both", "kept"]
    before: float
    now: float
    interval: tuple[float, float]

    def __str__(self) -> str:
        what = {
            "right": "queries right",
            "both": "pairs with both queries right",
            "kept": "queries with both twins kept",
        }
        return f"{self.system}, {self.kind}: {self.now:.3f} of {what[self.measure]} instead of {self.before:.3f}"


def save_baseline(path: str | Path, report: SuiteReport, tolerance: float = TOLERANCE) -> None:
    """Write what a suite gave, with the outcome of each query.

    Args:
        path: The file; replaced when it is there.
        report: What was measured.
        tolerance: Losses up to this share are accepted later; it can be changed in the file.

    Raises:
        OSError: The file cannot be written.
    """
    record = {
        "format": _FORMAT,
        "suite": report.suite,
        "digest": report.digest,
        "tolerance": tolerance,
        "encoder": report.encoder,
        "reranker": report.reranker,
        "distractors": report.distractors,
        "date": report.date,
        "right": {
            kind.kind: {system: round(result.accuracy, 4) for system, result in kind.systems.items()}
            for kind in report.kinds
        },
        "orders": {system: "".join(order[0] for order in orders) for system, orders in report.orders.items()},
        "kept": "".join("1" if kept else "0" for kept in report.kept),
        "names": list(report.names),
    }
    target = Path(path)
    unfinished = target.with_name(f"{target.name}.part")
    unfinished.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(target)


def read_baseline(path: str | Path) -> Baseline:
    """Read what `save_baseline` has written.

    Raises:
        ConfigError: The file is missing, malformed, or something else.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read the baseline {path}: {error.strerror or error}; make one with --save-baseline"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the baseline {path} is not JSON: {error}") from error
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise ConfigError(f"{path} is not a baseline of a suite; make one with --save-baseline")
    try:
        return _parsed(record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"the baseline {path} is damaged ({error}); make it again with --save-baseline") from error


def _parsed(record: Mapping[str, Any]) -> Baseline:
    names = tuple(str(name) for name in record["names"])
    orders = {system: tuple(_LETTERS[letter] for letter in record["orders"][system]) for system in SYSTEMS}
    kept = tuple({"1": True, "0": False}[letter] for letter in record["kept"])
    if {len(names)} != {len(kept), *map(len, orders.values())}:
        raise ValueError("the numbers of queries differ")
    tolerance = float(record["tolerance"])
    if not (math.isfinite(tolerance) and 0 <= tolerance < 1):
        raise ValueError(f"tolerance is from 0 to 1, not {tolerance}")
    return Baseline(str(record["suite"]), str(record["digest"]), tolerance, names, orders, kept)


def undercuts(baseline: Baseline, report: SuiteReport) -> tuple[Undercut, ...]:
    """Where a report gives less than a baseline.

    A share counts as undercut when it fell by more than the tolerance and the 95 % bootstrap interval of the paired
    difference over topics lies below 0: a loss that a few unlucky queries explain does not fail.

    Args:
        baseline: From another time.
        report: From now.

    Raises:
        ConfigError: The baseline is of another suite.
    """
    if baseline.digest != report.digest or baseline.names != report.names:
        raise ConfigError(
            f"the baseline is of the suite {baseline.suite}@{baseline.digest} with {len(baseline.names)} queries, this "
            f"is {report.suite}@{report.digest} with {len(report.names)}; make a new one with --save-baseline"
        )
    found = []
    for kind in report.kinds:
        places = [number for number, of in enumerate(report.kind_of) if kind.kind in (ALL, of)]
        topics = [report.topics[place] for place in places]
        couples = report.couples(places)
        before, now = ([float(values[place]) for place in places] for values in (baseline.kept, report.kept))
        found.append(_compare("first stage", kind.kind, "kept", before, now, topics, baseline.tolerance))
        for system in SYSTEMS:
            before, now = (
                [float(orders[system][place] == "right") for place in places]
                for orders in (baseline.orders, report.orders)
            )
            found.append(_compare(system, kind.kind, "right", before, now, topics, baseline.tolerance))
            both_before, both_now = (
                [values[one] * values[other] for one, other in couples] for values in (before, now)
            )
            both_topics = [topics[one] for one, _ in couples]
            found.append(_compare(system, kind.kind, "both", both_before, both_now, both_topics, baseline.tolerance))
    return tuple(undercut for undercut in found if undercut is not None)


def _compare(
    system: str,
    kind: str,
    measure: Literal["right", "both", "kept"],
    before: Sequence[float],
    now: Sequence[float],
    topics: Sequence[str],
    tolerance: float,
) -> Undercut | None:
    if not before:
        return None
    old, new = math.fsum(before) / len(before), math.fsum(now) / len(now)
    if not old - new > tolerance:
        return None
    interval = topic_interval([later - earlier for later, earlier in zip(now, before, strict=True)], topics)
    return Undercut(system, kind, measure, old, new, interval) if interval[1] < 0 else None
