"""`retrieval push` to a server, whose client is killed. The server is the double of the tests, a process of its own."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.reliability.checks import Acknowledged, Verdict, compare_contents
from benchmarks.reliability.contents import NOTHING, Contents, read_all
from benchmarks.reliability.corpus import documents, write_folder
from benchmarks.reliability.killing import Run, choose_moment, run_worker
from benchmarks.reliability.operations import Tell, base
from benchmarks.reliability.trial import Beside, as_record, checked, since
from pipelines import TwoStagePipeline
from pipelines.transfer.push_pull import push_index
from retrieval.config import Config, parse_config
from retrieval.errors import RetrievalError
from retrieval.stores import peek_index

NAME = "push"
SAYS = "an index to a server (the double of the tests); only the client is killed"
SHARE = 16
_TRIES = 6


@contextmanager
def serving() -> Iterator[str]:
    """URL of a server."""
    from tests.qdrant_double import qdrant_process

    with qdrant_process() as (url, _):
        yield url


def prepare(room: Path) -> None:
    """Two editions of one index: ``index`` is pushed first, ``next`` over it."""
    from benchmarks.reliability.operations import copied

    base(room)
    copied(room / "index", room / "next")
    write_folder(room / "documents", documents(2))
    with TwoStagePipeline.open(room / "next") as pipeline:
        pipeline.ingest(room / "documents", sync=True)


def settings(url: str, collection: str) -> Config:
    """A configuration that names a collection."""
    return parse_config({"store": {"kind": "server", "url": url, "collection": collection, "retries": 0}})


def push(index: Path, url: str, collection: str, tell: Tell) -> None:
    """What the worker does."""
    tell(begun=True)
    push_index(index, settings(url, collection), on_progress=lambda stage, done, of: tell(stage=stage))
    tell(done=True)


def contents_there(url: str, collection: str) -> Contents:
    """What a collection holds and how many collections stand behind its name."""
    from qdrant_client import QdrantClient

    config = settings(url, collection)
    if peek_index(config, None) is None:
        return NOTHING
    with TwoStagePipeline.open(config=config) as pipeline:
        client = QdrantClient(url=url, check_compatibility=False)
        names = [each.name for each in client.get_collections().collections if each.name.startswith(f"{collection}-g")]
        client.close()
        return read_all(pipeline, len(names), [])


def examine_there(url: str, collection: str, before: Contents, after: Contents) -> Verdict:
    """Is the old or the new index there, as a whole?"""
    try:
        now = contents_there(url, collection)
    except RetrievalError as error:
        return {"opened": repr(error)}
    verdict = {"opened": ""}
    if now.points not in (before.points, after.points):
        verdict["contents"] = f"{len(now.points)} points, before {len(before.points)}, after {len(after.points)}"
    if now.answers not in (before.answers, after.answers):
        verdict["found"] = "the answers are neither those before nor those after"
    return verdict


def compare_there(url: str, collection: str, after: Contents) -> Verdict:
    """Is the index there that an unkilled push leaves?"""
    try:
        return compare_contents(contents_there(url, collection), after)
    except RetrievalError as error:
        return {"opened": repr(error)}


class PushBench:
    """Kills pushes, each to a collection of its own, every other one over an older copy.

    Args:
        work: Folder for the indexes.
        url: The server.
        beside: Where the checks run.
    """

    def __init__(self, work: Path, url: str, beside: Beside) -> None:
        self._room, self._url, self._beside = work / NAME, url, beside
        if not (self._room / "next").exists():
            prepare(self._room)
        self._there = [NOTHING]
        self._runs: list[Run] = []
        for edition in ("index", "next"):
            self._runs.append(self._push(edition, "unkilled"))
            if self._runs[-1].code:
                raise RuntimeError(f"push fails where nobody kills it: {self._runs[-1].errors}")
            self._there.append(beside.call(contents_there, url, "unkilled"))

    def _push(self, edition: str, collection: str, moment: Any = None) -> Run:
        order = {"url": self._url, "collection": collection}
        return run_worker(NAME, self._room / edition, self._room, moment, order)

    def kill_once(self, number: int, seed: int) -> dict[str, Any]:
        """Kill a push, look, push again, and compare; as `benchmarks.reliability.trial.kill_once`."""
        started = time.perf_counter()
        chosen = random.Random(f"{seed} {NAME} {number}")
        over = number % 2
        edition, before, after = ("index", "next")[over], self._there[over], self._there[over + 1]
        for missed in range(_TRIES):
            collection = f"kill{number}x{missed}"
            if over:
                self._push("index", collection)
            moment = choose_moment(chosen, self._runs[over], second=False)
            run = self._push(edition, collection, moment)
            if not run.struck:
                continue
            at_once = checked(self._beside, examine_there, self._url, collection, before, after)
            again = self._push(edition, collection)
            resumed = {"run": f"the command fails: {again.errors[-500:]}"} if again.code else {}
            resumed |= checked(self._beside, compare_there, self._url, collection, after)
            record = as_record(NAME, number, moment, run, Acknowledged(), at_once, resumed)
            return record | {"missed": missed, "resumed": "run again", "untouched": True, "seconds": since(started)}
        return {"operation": NAME, "number": number, "struck": False, "missed": _TRIES}
