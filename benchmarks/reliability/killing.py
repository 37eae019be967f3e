"""When to kill, and how: a worker is started, and at the moment it and what it has started gets SIGKILL."""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, BinaryIO, Literal

from benchmarks.reliability.processes import descendants_of, outliving, strike
from benchmarks.reliability.worker import STARTED, carry_out

PRELOADED = ["benchmarks.reliability.operations", "benchmarks.reliability.push"]
"""What workers have imported when they begin."""

_POLL_S = 0.003
_PAUSE_S = 0.05
_WAIT_S = 900.0

Victim = Literal["tree", "parent", "second"]
Kind = Literal["time", "step", "stage", "child"]


@dataclass(frozen=True, slots=True)
class Moment:
    """When to kill what.

    Args:
        kind: ``time``, a while after the index is open; ``step``, at one thing that is done to its files; ``stage``, a
            while after the operation has reported something; ``child``, a while after it has started a process.
        victim: ``tree`` for the process and all that it has started, ``parent`` for that process alone, ``second`` for
            those that it has started.
        seconds: The while.
        label: The step.
        number: Which of the steps with this label, of the reports, or of the processes.
    """

    kind: Kind
    victim: Victim
    seconds: float = 0.0
    label: str = ""
    number: int = 0

    def __str__(self) -> str:
        if self.kind == "time":
            return f"{self.seconds:.2f} s after the index was open"
        if self.kind == "step":
            return f"{self.label} ({self.number})"
        what = "report" if self.kind == "stage" else "start of process"
        return f"{self.seconds * 1000:.0f} ms after {what} {self.number}"


@dataclass(slots=True)
class Run:
    """What a worker did until it ended.

    Args:
        said: All that it has said.
        code: Its exit status; negative for a signal.
        seconds: From when its index was open.
        struck: Whether it was killed before it had come to its end.
        orphans: Processes that outlived it by too long.
        errors: The end of its error output.
    """

    said: list[dict[str, Any]] = field(default_factory=list)
    code: int = 0
    seconds: float = 0.0
    struck: bool = False
    orphans: list[int] = field(default_factory=list)
    errors: str = ""

    @property
    def done(self) -> bool:
        """Whether the operation has ended, and said so."""
        return any("done" in record for record in self.said)

    def steps(self) -> list[str]:
        """Labels of all steps, in their order."""
        return [record["step"] for record in self.said if "step" in record]

    def lives(self) -> list[float]:
        """For each process that was started, the seconds until the next step, while it was waited for mostly."""
        places = [record for record in self.said if "step" in record or "done" in record]
        pairs = itertools.pairwise(places)
        return [later["at"] - sooner["at"] for sooner, later in pairs if sooner.get("step") == STARTED]

    def stages(self) -> list[str]:
        """All reports, in their order."""
        return [record["stage"] for record in self.said if "stage" in record]


def choose_moment(chosen: random.Random, unkilled: Run, *, second: bool) -> Moment:
    """A moment of an operation.

    Args:
        chosen: Random numbers.
        unkilled: A run of it that nobody killed.
        second: Whether it starts other processes.
    """
    victims: Sequence[Victim] = ("tree", "tree", "parent", "second") if second else ("tree", "parent")
    victim: Victim = chosen.choice(victims)
    stages, steps, lives = unkilled.stages(), unkilled.steps(), unkilled.lives()
    kinds: list[Kind] = ["time", "time", "time", "step", "step"]
    if stages:
        kinds.append("stage")
    if lives:
        kinds += ["child", "child", "child"]
    kind = chosen.choice(kinds)
    if kind == "child":
        number = chosen.randrange(len(lives))
        return Moment("child", victim, chosen.uniform(0.0, lives[number]), number=number + 1)
    if kind == "time" or victim == "second":
        return Moment("time", victim, chosen.uniform(0.0, unkilled.seconds))
    if kind == "stage":
        # Each kind of report as often as the others, whether it comes once or a hundred times.
        name = chosen.choice(sorted(set(stages)))
        number = chosen.choice([number for number, stage in enumerate(stages, 1) if stage == name])
        return Moment("stage", victim, chosen.uniform(0.0, _PAUSE_S), number=number)
    label = chosen.choice(sorted(set(steps)))
    return Moment("step", victim, label=label, number=chosen.randint(1, steps.count(label)))


def run_worker(
    operation: str, index: Path, room: Path, moment: Moment | None = None, server: Mapping[str, str] | None = None
) -> Run:
    """Carry out an operation in a process of its own, and kill it at a moment.

    Args:
        operation: Its name.
        index: Folder of the index.
        room: Folder with its documents.
        moment: When to kill what; ``None`` lets it come to its end.
        server: For a push: ``url`` and ``collection``.
    """
    order: dict[str, Any] = {"operation": operation, "index": str(index), "room": str(room), "victim": "tree"}
    order["server"] = dict(server or {})
    if moment is not None and moment.kind == "step":
        order |= {"victim": moment.victim, "at": [moment.label, moment.number]}
    # A fork of a process that has only imported: the start of an interpreter would be half of the work.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    incoming, outgoing = context.Pipe(duplex=False)
    errors = room / "errors.txt"
    process = context.Process(target=carry_out, args=(order, outgoing, str(errors)))
    process.start()
    outgoing.close()
    with open(os.dup(incoming.fileno()), "rb") as said:
        run = _Attempt(process, moment).follow(said)
    incoming.close()
    run.errors = errors.read_text(errors="replace")[-4000:]
    return run


class _Attempt:
    """One worker, and the one who waits for the moment to kill it."""

    def __init__(self, process: BaseProcess, moment: Moment | None) -> None:
        self._process = process
        self._moment = moment
        self._run = Run()
        self._family: set[int] = set()
        self._killer: threading.Thread | None = None
        self._ended = threading.Event()
        self._counts: Counter[Kind] = Counter()
        self._begun = time.perf_counter()

    def follow(self, lines: BinaryIO) -> Run:
        """Listen until the worker has ended."""
        limit = threading.Timer(_WAIT_S, self._process.kill)
        limit.start()
        for line in lines:
            with contextlib.suppress(ValueError):  # the last line of a process that has died
                self._hear(json.loads(line))
        self._process.join()
        run = self._run
        run.code = self._process.exitcode or 0
        run.seconds = time.perf_counter() - self._begun
        self._ended.set()
        limit.cancel()
        if self._killer is not None:
            self._killer.join()
        run.orphans = outliving(self._family)
        return run

    def _hear(self, said: dict[str, Any]) -> None:
        run = self._run
        run.said.append(said)
        if "begun" in said:
            self._begun = time.perf_counter()
            self._reached("time")
        elif "stage" in said:
            self._reached("stage")
        elif "struck" in said:
            run.struck = True
            self._family |= set(said["family"])
        elif said.get("step") == STARTED:
            self._reached("child")
        said["at"] = time.perf_counter() - self._begun

    def _reached(self, kind: Kind) -> None:
        """Strike later where this is what the moment counts from."""
        self._counts[kind] += 1
        moment = self._moment
        if moment is not None and (moment.kind, moment.number or 1) == (kind, self._counts[kind]):
            self._killer = threading.Thread(target=self._strike, args=[moment])
            self._killer.start()

    def _strike(self, moment: Moment) -> None:
        if self._ended.wait(moment.seconds):
            return
        parent = self._process.pid
        assert parent is not None
        family = descendants_of(parent)
        while moment.victim == "second" and not family:
            if self._ended.wait(_POLL_S):
                return
            family = descendants_of(parent)
        self._family |= set(family)
        if self._process.is_alive() and not self._run.done:
            self._run.struck = True
            strike({"tree": [parent, *family], "parent": [parent], "second": family}[moment.victim])
