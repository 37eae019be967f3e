"""Filters: any JSON is parsed or refused, and a parsed one means the same to every store."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.filter_trees import filter_of, odd_time, payload, point_id
from benchmarks.fuzz.target import Check, Target, require_short
from retrieval.config import parse_config
from retrieval.datatypes import Point
from retrieval.errors import StoreError, StoreInputError
from retrieval.protocols import Store
from retrieval.stores import open_store
from retrieval.stores.filters import Clause, parse_filter, parse_path
from retrieval.stores.matching import matches, values_at
from retrieval.stores.memory import MemoryStore
from retrieval.stores.points import checked_delete_filter, checked_filter

POINTS = 40


def library(seed: int = 0, *, odd: bool = False) -> list[Point]:
    """Points whose payloads hold a bit of everything, with ``odd`` also dates in odd spellings; the same each time."""
    draw = random.Random(seed)
    payloads = [payload(Choices(draw.randbytes(80)), odd) for _ in range(POINTS - 1)]
    return [Point(point_id(number), None, None, values) for number, values in enumerate([{}, *payloads])]


def require_same(where: Mapping[str, Any], oracle: Store, others: Mapping[str, Store]) -> None:
    """Fail unless a filter finds the same points in all stores, or is refused by all."""
    wanted = _found(where, oracle)
    for name, store in others.items():
        found = _found(where, store)
        assert found == wanted, f"{name} finds {_short(found)}, memory {_short(wanted)} with {json.dumps(where)}"


def _found(where: Mapping[str, Any], store: Store) -> list[str] | None:
    try:
        return sorted(point.id for point in store.scan(where, payload=False))
    except StoreInputError:
        return None


def _short(ids: list[str] | None) -> Any:
    return "nothing: refused" if ids is None else [int(name[-8:], 16) - 1 for name in ids]


def _over_stores(make: Callable[[Path], Mapping[str, Store]]) -> Callable[[Path, ExitStack], Check]:
    def opened(folder: Path, stack: ExitStack) -> Check:
        oracle, others = MemoryStore(4), make(folder)
        for store in others.values():
            stack.callback(store.close)
        for store in (oracle, *others.values()):
            store.upsert(library(odd="server" not in others))

        def check(data: bytes) -> None:
            require_same(filter_of(Choices(data)), oracle, others)

        return check

    return opened


def _edge(folder: Path) -> Mapping[str, Store]:
    config = parse_config({"store": {"min_free_mb": 0}})
    return {"edge": open_store(config, dim=4, path=folder / "index", fresh=True)}


def _server(folder: Path) -> Mapping[str, Store]:
    from qdrant_client import QdrantClient

    from retrieval.stores.server import ServerStore

    config = parse_config({"store": {"kind": "server", "collection": "fuzz"}})
    return {"server": ServerStore(config, dim=4, client=QdrantClient(":memory:"))}


def _parse(folder: Path, stack: ExitStack) -> Check:
    """JSON of any shape is a filter with a meaning, or refused with a message in bounds."""
    from retrieval.stores.edge_filters import edge_filter
    from retrieval.stores.server.wire import server_filter

    points = library(1)[:6]

    def check(data: bytes) -> None:
        choices = Choices(data)
        where = _bent(choices, filter_of(choices, 3))
        try:
            clause = parse_filter(where)
        except StoreInputError as error:
            require_short(error, 5_000)
            return
        assert isinstance(clause, Clause)
        for point in points:
            matches(clause, point.payload, point.id)
        edge_filter(clause)
        server_filter(clause).model_dump_json()
        checked_filter(where)
        with suppress(StoreInputError):
            checked_delete_filter(where)

    return check


def _bent(choices: Choices, value: Any) -> Any:
    """The value with something in it replaced by JSON of another kind, or by an odd one of its own."""
    if choices.left and choices.chance(8):
        return choices.json()
    if isinstance(value, str) and choices.chance(6):
        return choices.pick((f'"{choices.text(2)}"', choices.text(), odd_time(choices)))
    if isinstance(value, int | float) and choices.chance(6):
        return choices.number() if choices.chance() else choices.real()
    if isinstance(value, dict):
        return {key if not choices.chance(12) else choices.text(2): _bent(choices, each) for key, each in value.items()}
    return [_bent(choices, each) for each in value] if isinstance(value, list) else value


def _paths(folder: Path, stack: ExitStack) -> Check:
    """A path is read, or refused; what was read finds what it names."""

    def check(data: bytes) -> None:
        choices = Choices(data)
        pieces = ("a", "b", ".", "[]", "[0]", '"', '"two words"', "-", "_", "\u65e5", "[", "]", "\\")
        text = "".join(choices.list_of(lambda: choices.pick(pieces) if choices.chance() else choices.text(1), 12))
        try:
            path = parse_path(text)
        except StoreInputError:
            return
        assert path.parts
        text.encode("utf-8")
        value: Any = 7
        for part in reversed(path.parts):
            value = {part: value} if isinstance(part, str) else [None] * min(part or 0, 9) + [value]
        near = all(part is None or isinstance(part, str) or part < 10 for part in path.parts)
        if near and isinstance(value, dict):
            assert values_at(path, value)[-1:] == [7], f"{text!r} does not find what it names"

    return check


def _engine_takes(folder: Path, stack: ExitStack) -> Check:
    """What is parsed is taken by the engine too: no filter reaches it that it refuses or panics over."""
    store = _edge(folder)["edge"]
    stack.callback(store.close)
    store.upsert(library(1)[:6])

    def check(data: bytes) -> None:
        choices = Choices(data)
        where = _bent(choices, filter_of(choices, 2))
        try:
            parse_filter(where)
        except StoreInputError:
            return
        try:
            assert 0 <= store.count(where) <= 6
        except StoreError as error:
            raise AssertionError(f"the engine refuses {where!r}: {error}") from error

    return check


TARGETS = [
    Target("filter, memory and edge", "the same points", _over_stores(_edge), longest=200, weight=3),
    Target("filter, memory and server", "the same points", _over_stores(_server), longest=200, weight=1.5),
    Target("filter, any JSON", "parsed, or refused with a bounded message", _parse, longest=300, weight=2),
    Target("filter, any JSON, edge", "what is parsed the engine takes", _engine_takes, longest=300),
    Target("payload path", "found where it points, or refused", _paths, longest=60, weight=0.5),
]
