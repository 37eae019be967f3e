"""What is wrong with an index after a kill, and after the same command was run again.

Every check gives an empty text where all is well, and otherwise what is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.reliability.contents import Contents, contents_of, points_of
from benchmarks.reliability.corpus import word
from pipelines import TwoStagePipeline
from pipelines.deep import deep_check
from retrieval.errors import RetrievalError

_SHOWN = 3
_SEARCHES_AT_ONCE = 64
Verdict = dict[str, str]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What a worker had said to be done before it died.

    Args:
        stored: Ids of documents that are in.
        removed: Ids of documents that are out.
        passages: How many passages were written.
    """

    stored: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    passages: int = 0

    @classmethod
    def by(cls, said: Sequence[Mapping[str, Any]]) -> Acknowledged:
        """By all that a worker has said."""
        stored: dict[str, bool] = {}
        for record in said:
            stored |= dict.fromkeys(record.get("stored", ()), True)
            stored |= dict.fromkeys(record.get("removed", ()), False)
        return cls(
            tuple(sorted(name for name, there in stored.items() if there)),
            tuple(sorted(name for name, there in stored.items() if not there)),
            max((int(record.get("written", 0)) for record in said), default=0),
        )


@dataclass(frozen=True, slots=True)
class Rules:
    """What may be seen after a kill.

    Args:
        whole: Only the state before or the state after.
        mends: The state before may be damaged.
        several: Readers may have a state between the two.
    """

    whole: bool = False
    mends: bool = False
    several: bool = False


def examine(index: Path, before: Contents, after: Contents, acknowledged: Acknowledged, rules: Rules) -> Verdict:
    """Look at an index as a kill has left it.

    Args:
        index: A copy of its folder, which is opened.
        before: What it held before the operation.
        after: What it holds after one that was not killed.
        acknowledged: What was acknowledged before the kill.
        rules: What may be seen.
    """
    verdict = {"reader": _said(lambda: _reader(index, before, after, several=rules.several))}
    try:
        with TwoStagePipeline.open(index) as pipeline:
            verdict["opened"] = ""
            points = points_of(pipeline.store)
            verdict["contents"] = _said(
                lambda: _foreign(points, pipeline.manifest.state, before, after, whole=rules.whole)
            )
            verdict["kept"] = _kept(points, before, after)
            verdict["acknowledged"] = _acknowledged(points, before, after, acknowledged)
            verdict["found"] = _said(lambda: _found(pipeline, points, before, after, acknowledged))
        if not (rules.mends and points == before.points):
            verdict["deep"] = _said(lambda: _damage(index))
    except (RetrievalError, OSError) as error:
        verdict["opened"] = repr(error)
    return verdict


def compare(index: Path, after: Contents) -> Verdict:
    """Compare an index, after the command was run again, with one where nobody was killed."""
    try:
        return {**compare_contents(contents_of(index), after), "deep": _said(lambda: _damage(index, ready=True))}
    except (RetrievalError, OSError) as error:
        return {"opened": repr(error)}


def compare_contents(now: Contents, after: Contents) -> Verdict:
    """What is different between two indexes."""
    return {
        "opened": "",
        "points": _different(now.points, after.points),
        "manifest": _different(now.manifest, after.manifest),
        "settings": _different(now.settings, after.settings),
        "answers": "" if now.answers == after.answers else f"{_first(now.answers, after.answers)}",
        "leftovers": "" if now.leftovers == after.leftovers else f"left over: {now.leftovers[:_SHOWN]}",
        "generations": "" if now.generations == after.generations else f"{now.generations} generations",
    }


def _said(check: Callable[[], str]) -> str:
    try:
        return check()
    except (RetrievalError, OSError) as error:
        return repr(error)


def _damage(index: Path, *, ready: bool = False) -> str:
    if not (index / "manifest.json").exists():
        return ""
    report = deep_check(index, apart=False)
    failed = [check for check in report.checks if check.ok is False] if ready else report.damage
    return "; ".join(f"{check.name}: {check.detail}" for check in failed)


def _foreign(points: Mapping[str, Sequence[Any]], state: str, before: Contents, after: Contents, *, whole: bool) -> str:
    """Is every point one that somebody wrote, bit by bit, and of one generation where that is to be?"""
    if whole:
        return "" if points in (before.points, after.points) else _different(points, before.points)
    # On the way BM25 may weigh with another average length; the deep check knows which.
    part = slice(None) if state == "ready" else slice(0, 3)
    wrong = [
        name
        for name, point in points.items()
        if point[part] not in (before.points.get(name, [])[part], after.points.get(name, [])[part])
    ]
    return f"{len(wrong)} points are neither as before nor as after, {wrong[0]} first ({state})" if wrong else ""


def _kept(points: Mapping[str, Sequence[Any]], before: Contents, after: Contents) -> str:
    """Is every document that was there and is to stay there in one complete version, old or new?"""
    old, new = before.documents(), after.documents()
    lost = [
        name for name in old.keys() & new.keys() if not old[name] <= points.keys() and not new[name] <= points.keys()
    ]
    return f"{len(lost)} documents are lost, {min(lost)} first" if lost else ""


def _acknowledged(
    points: Mapping[str, Sequence[Any]], before: Contents, after: Contents, acknowledged: Acknowledged
) -> str:
    documents: dict[str, set[str]] = {}
    for name, point in points.items():
        documents.setdefault(point[0], set()).add(name)
    expected = after.documents()
    # Of one that a later call removes it is not known what it consists of.
    lost = [
        name
        for name in acknowledged.stored
        if name not in documents or not documents[name] >= expected.get(name, set())
    ]
    risen = [name for name in acknowledged.removed if name in documents]
    fresh = len(points.keys() & after.points.keys() - before.points.keys())
    problems = []
    if lost:
        problems.append(f"{len(lost)} acknowledged documents are lost, {lost[0]} first")
    if risen:
        problems.append(f"{len(risen)} documents are there again, {risen[0]} first")
    if fresh < acknowledged.passages:
        problems.append(f"{acknowledged.passages} passages were acknowledged, {fresh} are there")
    return "; ".join(problems)


def _found(
    pipeline: TwoStagePipeline,
    points: Mapping[str, Sequence[Any]],
    before: Contents,
    after: Contents,
    acknowledged: Acknowledged,
) -> str:
    """Does a search find every complete document by its word, and nothing twice?"""
    complete = sorted(
        name
        for versions in (before.documents(), after.documents())
        for name, ids in versions.items()
        if ids <= points.keys()
    )
    wanted = sorted({*complete, *acknowledged.stored})
    problems = []
    for start in range(0, len(wanted), _SEARCHES_AT_ONCE):
        batch = wanted[start : start + _SEARCHES_AT_ONCE]
        found = pipeline.search_many([word(name) for name in batch], top_k=5, rerank=False, first_stage="bm25")
        for name, results in zip(batch, found, strict=True):
            ids = [hit.document_id for hit in results]
            if not ids or ids[0] != name:
                problems.append(f"{name} is not found")
            if len(set(ids)) != len(ids):
                problems.append(f"the search for {name} gives a document twice")
    for results in pipeline.search_many([word(name) for name in acknowledged.removed], top_k=5, rerank=False):
        if results.query.removeprefix("mark").removesuffix("x") in {hit.document_id for hit in results}:
            problems.append(f"{results.query} finds what was removed")
    return f"{len(problems)} searches: {problems[0]}" if problems else ""


def _reader(index: Path, before: Contents, after: Contents, *, several: bool) -> str:
    """Does a reader have a complete state?"""
    try:
        reader = TwoStagePipeline.open(index, read_only=True)
    except RetrievalError as error:
        return repr(error) if before.points else ""
    with reader:
        points, manifest = points_of(reader.store), reader.manifest
    if manifest.state != "ready" or manifest.passages != len(points):
        return f"a reader has {len(points)} of {manifest.passages} passages, state {manifest.state}"
    if several:
        return _foreign(points, manifest.state, before, after, whole=False)
    return "" if points in (before.points, after.points) else "a reader has neither the state before nor the one after"


def _different(now: Mapping[str, Any], then: Mapping[str, Any]) -> str:
    wrong = sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))
    if not wrong:
        return ""
    shown = ", ".join(f"{name}: {now.get(name)!r:.80} is not {then.get(name)!r:.80}" for name in wrong[:_SHOWN])
    return f"{len(wrong)} differ: {shown}"


def _first(now: Sequence[Any], then: Sequence[Any]) -> str:
    number = next((n for n, (one, other) in enumerate(zip(now, then, strict=False)) if one != other), len(now))
    return f"query {number}: {now[number : number + 1]!r:.200} is not {then[number : number + 1]!r:.200}"
