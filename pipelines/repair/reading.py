"""The texts of a damaged index, from wherever they can still be read."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.apart import ApartError, run_apart, say, take_order
from pipelines.index_checks import is_complete
from pipelines.points import passage_id
from pipelines.progress import StepCallback
from retrieval.datatypes import FloatArray
from retrieval.stores.file_digests import BLOCK
from retrieval.stores.salvage import SalvagedPayload, salvage_payloads
from retrieval.stores.seal import Seal
from retrieval.stores.seal_differences import whole_blocks

_START = "from pipelines.repair.reading import read_for_parent; read_for_parent()"


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A passage that could be read.

    Args:
        id: Its point id, made of what its payload says.
        payload: Its payload, with all fields.
        dense: The vector that was stored for it, ``None`` where that is not known.
        proven: Whether the seal says that the place it was read from is whole.
    """

    id: str
    payload: Mapping[str, Any]
    dense: FloatArray | None
    proven: bool


Reader = Callable[[], Iterator[Kept]]
"""Reads all passages; may be called more than once."""


def files_reader(generation: Path, dim: int, seal: Seal | None, *, everywhere: bool = False) -> Reader:
    """Reads the files of the engine without the engine.

    Args:
        generation: Folder of the damaged generation.
        dim: Dimensions of its vectors.
        seal: Its seal; ``None`` proves nothing.
        everywhere: Also what the trackers do not point to, such as passages that were removed.
    """
    whole: dict[str, set[int]] = {}

    def proven(found: SalvagedPayload) -> bool:
        name = f"engine/{found.page}"
        if seal is None or name not in seal.files:
            return False
        if name not in whole:
            whole[name] = whole_blocks(generation / name, seal.files[name])
        return set(range(found.start // BLOCK, (found.end - 1) // BLOCK + 1)) <= whole[name]

    def read() -> Iterator[Kept]:
        for found in salvage_payloads(generation / "engine", dim, everywhere=everywhere):
            kept = _kept(found.payload, found.dense, proven(found))
            if kept is not None:
                yield kept

    return read


def engine_reader(generation: Path, scratch: Path, on_progress: StepCallback) -> Reader | None:
    """Reads what the engine gives, in a process of its own, with what its log still holds.

    Args:
        generation: Folder of the damaged generation.
        scratch: File to keep it in.
        on_progress: Called while it is read.

    Returns:
        ``None`` where the engine cannot read it to the end.
    """
    order = {"engine": str(generation / "engine"), "scratch": str(scratch)}
    try:
        for said in run_apart(_START, order):
            on_progress("reading with the engine", said["read"], 0)
    except ApartError:
        scratch.unlink(missing_ok=True)
        return None

    def read() -> Iterator[Kept]:
        with scratch.open(encoding="utf-8") as lines:
            for line in lines:
                saved = json.loads(line)
                vector = saved["dense"]
                dense = None if vector is None else np.frombuffer(base64.b64decode(vector), np.float32)
                kept = _kept(saved["payload"], dense, proven=False)
                if kept is not None:
                    yield kept

    return read


def read_for_parent() -> None:
    """What the process of `engine_reader` does."""
    order = take_order()
    from retrieval.stores.edge_reading import read_shard

    with Path(order["scratch"]).open("w", encoding="utf-8") as file:
        for number, point in enumerate(read_shard(Path(order["engine"])), start=1):
            dense = None if point.dense is None else base64.b64encode(point.dense.tobytes()).decode("ascii")
            file.write(json.dumps({"payload": point.payload, "dense": dense}) + "\n")
            if number % 1000 == 0:
                say({"read": number})


def _kept(payload: Mapping[str, Any], dense: FloatArray | None, proven: bool) -> Kept | None:
    if not is_complete(payload):
        return None
    return Kept(passage_id(payload["document"], payload["hash"], payload["index"]), payload, dense, proven)
