"""One kill from its beginning to its end: a copy of the index, the kill, the checks, the same command again."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol, TypeVar

from benchmarks.reliability.checks import Acknowledged, compare, examine
from benchmarks.reliability.contents import Contents, contents_of
from benchmarks.reliability.killing import Moment, Run, choose_moment, run_worker
from benchmarks.reliability.operations import OPERATIONS, Operation, copied

R = TypeVar("R")
_TRIES = 6


class Calls(Protocol):
    """Runs checks somewhere."""

    def call(self, function: Callable[..., R], *arguments: Any, **keywords: Any) -> R:
        """The result of a function."""


class Beside:
    """Runs checks in a process of its own, which damaged files may end."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def call(self, function: Callable[..., R], *arguments: Any, **keywords: Any) -> R:
        """The result of a function.

        Raises:
            BrokenProcessPool: The process died.
        """
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        try:
            return self._pool.submit(function, *arguments, **keywords).result()
        except BrokenProcessPool:
            self.close()
            raise

    def close(self) -> None:
        """End the process."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


@dataclass(frozen=True, slots=True)
class Bench:
    """An operation that is ready to be killed.

    Args:
        operation: The operation.
        room: Folder with ``index`` as it is before, and its documents.
        before: What that index holds.
        after: What it holds after a run that nobody killed.
        unkilled: That run.
        repeatable: What of a second such run was the same; see `checks.compare`.
    """

    operation: Operation
    room: Path
    before: Contents
    after: Contents
    unkilled: Run
    repeatable: dict[str, str]


def prepare(name: str, work: Path, beside: Calls, *, twice: bool = True) -> Bench:
    """Make the index that an operation begins with, and let it come to its end; read again where it was done.

    Args:
        name: Name of the operation.
        work: Folder for its room.
        beside: Where the indexes are read.
        twice: Whether to look at a second such run, for what may differ between two.
    """
    room, operation = work / name, OPERATIONS[name]
    saved = room / "bench.json"
    if not saved.exists():
        shutil.rmtree(room, ignore_errors=True)
        room.mkdir(parents=True)
        operation.prepare(room)
        before = beside.call(contents_of, copied(room / "index", room / "now"))
        runs = []
        for place in ("one", "other")[: 1 + twice]:
            index = copied(room / "index", room / place)
            runs.append(run_worker(name, index, room))
            if not runs[-1].done or runs[-1].code:
                raise RuntimeError(f"{name} fails where nobody kills it: {runs[-1].errors}")
        after = beside.call(contents_of, room / "one")
        repeatable = beside.call(compare, room / "other", after) if twice else {}
        run = min(runs, key=lambda run: run.seconds)
        bench = Bench(operation, room, before, after, run, repeatable)
        kept = [asdict(before), asdict(after), asdict(run), repeatable]
        saved.write_text(json.dumps(kept), encoding="utf-8")
        for place in ("now", "one", "other"):
            shutil.rmtree(room / place, ignore_errors=True)
        return bench
    before, after, run, repeatable = json.loads(saved.read_text(encoding="utf-8"))
    return Bench(operation, room, Contents(**before), Contents(**after), Run(**run), repeatable)


def kill_once(bench: Bench, number: int, seed: int, beside: Calls) -> dict[str, Any]:
    """Kill an operation at a moment, look, run it again, and compare.

    Args:
        bench: The operation.
        number: Which kill of this operation it is; the moment follows from it and the seed.
        seed: Of all moments.
        beside: Where the checks run.

    Returns:
        The record: what was killed when, what was acknowledged, what each check says.
    """
    started = time.perf_counter()
    operation, room = bench.operation, bench.room
    chosen = random.Random(f"{seed} {operation.name} {number}")
    index = room / "killed"
    missed = 0
    while True:
        moment = choose_moment(chosen, bench.unkilled, second=operation.second)
        copied(room / "index", index)
        run = run_worker(operation.name, index, room, moment)
        if run.struck:
            break
        missed += 1
        if missed == _TRIES:
            return {"operation": operation.name, "number": number, "struck": False, "missed": missed}
    acknowledged = Acknowledged.by(run.said)
    kept = copied(index, room / "kept")
    untouched = chosen.random() < 0.5
    looked_at = copied(index, room / "looked-at") if untouched else index
    before, after = bench.before, bench.after
    at_once = checked(beside, examine, looked_at, before, after, acknowledged, operation.rules)
    resumed, again = _resume(bench, index, beside)
    record = as_record(operation.name, number, moment, run, acknowledged, at_once, resumed)
    record |= {"missed": missed, "resumed": again, "untouched": untouched, "seconds": since(started)}
    if record["failed"]:
        _keep(room, kept, index, record, run)
    for place in ("killed", "kept", "looked-at"):
        shutil.rmtree(room / place, ignore_errors=True)
    return record


def since(started: float) -> float:
    """Seconds since then."""
    return round(time.perf_counter() - started, 1)


def as_record(
    name: str,
    number: int,
    moment: Moment,
    run: Run,
    acknowledged: Acknowledged,
    at_once: dict[str, str],
    resumed: dict[str, str],
) -> dict[str, Any]:
    """All about one kill, as it is kept."""
    at_once = {**at_once, "orphans": f"{run.orphans} went on" if run.orphans else ""}
    return {
        "operation": name,
        "number": number,
        "struck": True,
        "victim": moment.victim,
        "kind": moment.kind,
        "moment": str(moment),
        "stage": (run.stages() or ["-"])[-1],
        "step": (run.steps() or ["-"])[-1],
        "acknowledged": {
            "documents": len(acknowledged.stored) + len(acknowledged.removed),
            "passages": acknowledged.passages,
        },
        "at_once": at_once,
        "after_resume": resumed,
        "failed": [f"after the kill, {check}: {problem}" for check, problem in at_once.items() if problem]
        + [f"after the run, {check}: {problem}" for check, problem in resumed.items() if problem],
    }


def _resume(bench: Bench, index: Path, beside: Calls) -> tuple[dict[str, str], str]:
    """Run the same command again, where it had not come to its end, and compare."""
    if not bench.operation.repeats:
        found = checked(beside, compare, copied(index, index.with_name("looked-at")), bench.after)
        if not found.get("points", "-") and not found.get("manifest", "-"):
            return _but_for(found, bench.repeatable), "was complete"
    run = run_worker(bench.operation.name, index, bench.room)
    if run.code:
        return {"run": f"the command fails: {run.errors[-500:]}"}, "failed"
    return _but_for(checked(beside, compare, index, bench.after), bench.repeatable), "run again"


def _but_for(found: dict[str, str], repeatable: dict[str, str]) -> dict[str, str]:
    """Leave out what differs between two runs that nobody killed."""
    return {name: problem for name, problem in found.items() if not repeatable.get(name)}


def checked(beside: Calls, check: Callable[..., dict[str, str]], *arguments: Any, **keywords: Any) -> dict[str, str]:
    """What a check says, or that its process died of the index."""
    try:
        return beside.call(check, *arguments, **keywords)
    except BrokenProcessPool:
        return {"opened": "the process that looked at it died"}


def _keep(room: Path, kept: Path, index: Path, record: dict[str, Any], run: Run) -> None:
    """Everything about a kill that has left something wrong."""
    place = room.parent / "failures" / f"{record['operation']}-{record['number']}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    copied(kept, place / "killed")
    if index.exists():
        copied(index, place / "resumed")
    text = json.dumps({**record, "said": run.said, "errors": run.errors}, indent=1)
    (place / "record.json").write_text(text, encoding="utf-8")
