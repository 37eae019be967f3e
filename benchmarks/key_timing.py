"""Whether the time of a refusal tells how much of a key was right: Welch's t over many refused keys, in random order.

Three kinds of wrong keys are asked for in one process: random ones, ones that differ from a real key only in the last
character, and ones that begin with half of it. The time of `Keys.authenticate` is taken by
`time.perf_counter_ns`; of each kind the slowest tenth is left out (the machine is shared). Leakage is what is usually
called so from |t| = 4.5 on (Reparaz, Balasch, Verbauwhede: Dude, is my code constant time? 2017). The difference of a
key that a plain comparison of strings would betray is measured beside it, to show that the measurement would see one.

python -m benchmarks.key_timing --out benchmarks/key_timing.json
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench.machine import describe
from pipelines.service.auth import Keys
from pipelines.service.config import KeyConfig
from pipelines.service.errors import ServiceError

_KEYS, _CHARACTERS, _KEPT, _LIMIT = 20, 1024, 0.9, 4.5
_HEADER = b"Bearer "


def main() -> None:
    """Measure, and write JSON and a table beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50_000, help="calls of each kind")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    record = {"machine": describe(), "rounds": arguments.rounds, **measure(arguments.rounds)}
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(page(record))
    print(page(record))


def page(record: dict[str, Any]) -> str:
    """The Markdown page of a measurement.

    Args:
        record: What `main` writes as JSON.
    """
    machine, rows = record["machine"], []
    for name, title in (("digests", "`Keys.authenticate`"), ("strings", "a plain comparison, as a control")):
        for kind, one in record[name].items():
            rows.append(f"| {title} | {kind} | {one['median_ns']:,.0f} | {one['t']:+.2f} | {_verdict(one)} |")
    return "\n".join(
        [
            "# Does the time of a refusal tell how much of a key was right?",
            "",
            f"{record['rounds']:,} calls of each kind in random order, keys of {_CHARACTERS:,} characters, {_KEYS} "
            f"keys known; {machine['cores']} cores, {machine['processor']}, {machine['system']}, Python "
            f"{machine['python']}. Welch's t against random keys, without the slowest tenth; "
            f"from |t| = {_LIMIT} on time is said to leak. "
            "`python -m benchmarks.key_timing --out benchmarks/key_timing.json`",
            "",
            "| compared by | the wrong key has | median, ns | t | leaks |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _verdict(one: dict[str, Any]) -> str:
    return "yes" if one["leaks"] else "no"


def measure(rounds: int, seed: int = 0) -> dict[str, Any]:
    """Times of the service's comparison and of a plain one, by kind of wrong key.

    Args:
        rounds: Calls of each kind.
        seed: Of the order.
    """
    environment = {f"KEY_{at}": secrets.token_hex(_CHARACTERS // 2) for at in range(_KEYS)}
    keys = Keys([KeyConfig(env=name) for name in environment], environment)
    known = [_HEADER + key.encode() for key in environment.values()]

    def digests(header: bytes) -> None:
        try:
            keys.authenticate(header)
        except ServiceError:
            return
        raise AssertionError("a wrong key was taken")

    def strings(header: bytes) -> None:
        if header in known:
            raise AssertionError("a wrong key was taken")

    return {
        name: _compare(refuse, known[0], rounds, seed) for name, refuse in (("digests", digests), ("strings", strings))
    }


def _wrong(key: bytes) -> dict[str, Callable[[], bytes]]:
    """Makers of wrong headers; all of one size."""

    def joined(right: int) -> bytes:
        other = _HEADER + secrets.token_hex(_CHARACTERS // 2).encode()
        return b"".join([key[:right], other[right:-1], b"x"])

    return {
        "nothing right": lambda: joined(len(_HEADER)),
        "its first half right": lambda: joined(len(key) // 2),
        "all but the last character right": lambda: joined(len(key) - 1),
    }


def _compare(refuse: Callable[[bytes], None], key: bytes, rounds: int, seed: int) -> dict[str, Any]:
    kinds = _wrong(key)
    times: dict[str, list[int]] = {kind: [] for kind in kinds}
    order = list(kinds) * rounds
    random.Random(seed).shuffle(order)
    made = [kinds[kind]() for kind in order]
    # Copied in the order of use: where an object lies in memory must not depend on its kind.
    headers = [bytes(bytearray(header)) for header in made]
    for header in headers[:1000]:
        refuse(header)
    for kind, header in zip(order, headers, strict=True):
        began = time.perf_counter_ns()
        refuse(header)
        times[kind].append(time.perf_counter_ns() - began)
    cropped = {kind: np.sort(np.array(taken))[: int(len(taken) * _KEPT)] for kind, taken in times.items()}
    base = cropped["nothing right"]
    return {
        kind: {
            "median_ns": float(np.median(taken)),
            "t": round(_welch(taken, base), 2),
            "leaks": bool(abs(_welch(taken, base)) >= _LIMIT),
        }
        for kind, taken in cropped.items()
    }


def _welch(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    spread = one.var(ddof=1) / len(one) + other.var(ddof=1) / len(other)
    return float((one.mean() - other.mean()) / np.sqrt(spread)) if spread else 0.0


if __name__ == "__main__":
    main()
