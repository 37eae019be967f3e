"""Operations on a store as plain values, and a process that carries them out until it is killed.

python -m tests.store_operations FOLDER     reads pickled operations from stdin, prints a line for each one done
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.config import Config, parse_config
from retrieval.datatypes import Point, Quantization, SparseVector
from retrieval.protocols import Store
from retrieval.stores import open_store

DIM = 4


def config() -> Config:
    """Settings that need little disk."""
    return parse_config({"store": {"min_free_mb": 0}})


def name(number: int) -> str:
    """UUIDs whose order is that of the numbers."""
    return f"00000000-0000-4000-8000-{number:012d}"


def point(number: int, axis: int, terms: Mapping[int, float], payload: Mapping[str, Any]) -> Point:
    """A point whose vector lies between an axis and the next, so that scores are far apart or equal."""
    vector = np.zeros(DIM, np.float32)
    vector[axis % DIM], vector[(axis + 1) % DIM] = 0.8, 0.6
    sparse = SparseVector(np.array(sorted(terms), np.uint32), np.array([terms[at] for at in sorted(terms)], np.float32))
    return Point(name(number), vector, sparse if terms else None, dict(payload))


@dataclass(frozen=True, slots=True)
class Operation:
    """One call that changes a store.

    Args:
        kind: Name of the method.
        points: For ``upsert``.
        ids: For ``delete``.
        where: For ``delete_where``.
        quantization: For ``set_quantization``.
    """

    kind: str
    points: Sequence[Point] = ()
    ids: Sequence[str] = ()
    where: Mapping[str, Any] | None = None
    quantization: Quantization = Quantization()

    def apply(self, store: Store) -> Any:
        """Carry it out."""
        if self.kind == "upsert":
            return store.upsert(self.points)
        if self.kind == "delete":
            return store.delete(self.ids)
        if self.kind == "delete_where":
            return store.delete_where(self.where or {})
        if self.kind == "set_quantization":
            return store.set_quantization(self.quantization)
        return getattr(store, self.kind)()


def main() -> None:
    """Carry out what comes."""
    store = open_store(config(), dim=DIM, path=Path(sys.argv[1]))
    _say("open")
    while True:
        try:
            operation: Operation = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        _say("begin")
        operation.apply(store)
        _say("done")
    store.close()


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
