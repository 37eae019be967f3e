"""Kill processes that change an index, and see what is left.

    python -m benchmarks.reliability --kills 240 --work DIR --out benchmarks/reliability.json

Stopped and started again with the same work folder it goes on. An index that is not as it should be stays in
``DIR/failures``. ``--only`` names operations, ``--list`` lists them, ``--report`` makes the page anew from the data.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import sys
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.bench.machine import describe
from benchmarks.reliability import push
from benchmarks.reliability.killing import PRELOADED
from benchmarks.reliability.operations import OPERATIONS
from benchmarks.reliability.report import page, totals
from benchmarks.reliability.trial import Beside, kill_once, prepare

NOT_COVERED = (
    "Power loss: what SIGKILL leaves in the cache of the system is lost there. The files that decide (manifest, seals, "
    "settings) are forced to disk before they are renamed; whether a disk obeys is not measured here.",
    "A Qdrant server: no container engine and no server binary was at hand. `push` goes to the double of the tests, "
    "over HTTP, and the client is killed.",
    "Small leftovers: a `*.json.new` beside the file that it was to replace, and copies for readers below `published/` "
    "that the next publication tidies, may stay; they are not looked at.",
    "Large indexes: those here have some hundred passages, so that a kill costs seconds; where they have a graph, they "
    "were told to build it for so few.",
)


FOUND = (
    "A deletion that died half-way could leave a document without some of its passages, and the next ingest took it "
    "for complete. First passages are removed first now, and a document without one is cleared away.",
    "An optimization (also of `quantize`) that was killed between putting its new segment in place and removing the "
    "old ones left points in both: every BM25 score was off. The next open puts that in order now.",
    "Sealing an index at its close could go on for ever, at a file with a block that begins with a hole.",
)

NAMES = [*OPERATIONS, push.NAME]


def schedule(kills: int, names: list[str]) -> list[tuple[str, int]]:
    """Which operation is killed how many times, the operations in turn.

    Args:
        kills: How many there are of all operations together, or a few more.
        names: Which of them to do.
    """
    shares = {name: OPERATIONS[name].share if name in OPERATIONS else push.SHARE for name in NAMES}
    wanted = {name: math.ceil(kills * share / sum(shares.values())) for name, share in shares.items()}
    rounds = range(max(wanted.values(), default=0))
    return [(name, number) for number in rounds for name in names if number < wanted[name]]


def read(records: Path) -> list[dict[str, Any]]:
    """What was done so far; the last of several records of one kill counts."""
    lines = records.read_text(encoding="utf-8").splitlines() if records.exists() else []
    found = [json.loads(line) for line in lines]
    return list({(record["operation"], record["number"]): record for record in found}.values())


def append(records: Path, record: dict[str, Any]) -> None:
    """Add one record; several runs may share a file."""
    with records.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(f"{json.dumps(record)}\n")


def write(out: Path, records: list[dict[str, Any]], seed: int, kills: int) -> None:
    """The data and the page beside it."""
    report = {
        "command": f"python -m benchmarks.reliability --kills {kills} --work DIR --out benchmarks/reliability.json",
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": describe(),
        "seed": seed,
        "totals": totals(records),
        "found": FOUND,
        "not_covered": NOT_COVERED,
        "records": sorted(records, key=lambda record: (record["operation"], record["number"])),
    }
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(page(report), encoding="utf-8")


def main() -> None:
    """Kill, look, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=__doc__)
    parser.add_argument("--kills", type=int, default=240)
    parser.add_argument("--work", type=Path, required=True, help="folder for indexes; what has failed stays there")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--report", action="store_true", help="only write the page")
    arguments = parser.parse_args()
    if arguments.list:
        sys.stdout.write("".join(f"{name:14} {operation.says}\n" for name, operation in OPERATIONS.items()))
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    work, file = arguments.work.resolve(), arguments.work / "records.jsonl"
    done = {(record["operation"], record["number"]) for record in read(file)}
    waiting = [item for item in schedule(arguments.kills, arguments.only) if item not in done]
    if push.NAME in arguments.only:
        PRELOADED.append("qdrant_client")
    with ExitStack() as stack:
        beside = stack.enter_context(closing(Beside()))
        pushes: push.PushBench | None = None
        for name, number in [] if arguments.report else waiting:
            if name == push.NAME:
                pushes = pushes or push.PushBench(work, stack.enter_context(push.serving()), beside)
                record = pushes.kill_once(number, arguments.seed)
            else:
                record = kill_once(prepare(name, work, beside), number, arguments.seed, beside)
            append(file, record)
            state = "; ".join(record.get("failed", [])) or "ok"
            sys.stdout.write(f"{name} {number}: {record.get('victim')} {record.get('moment')}: {state}\n")
            sys.stdout.flush()
    records = read(file)
    write(arguments.out, records, arguments.seed, arguments.kills)
    sys.stdout.write(f"{totals(records)}\n")
    if totals(records)["failed"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
