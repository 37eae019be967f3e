"""All that an index holds and answers, in a form that two runs can be compared in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.reliability.corpus import paragraphs
from pipelines import TwoStagePipeline
from retrieval.datatypes import StoredPoint
from retrieval.protocols import Store

_FLEETING = ("created", "updated", "runs", "generation", "previous")
_QUERIES = 12


@dataclass(frozen=True, slots=True)
class Contents:
    """What an index holds.

    Args:
        points: Document id, position, digest of payload and dense vector, and digest of BM25 weights, by point id.
        manifest: The manifest but for times and numbers of runs and generations.
        settings: What the store remembers of its compression.
        answers: Ids and scores of the first ten for some queries.
        generations: How many there are in the folder.
        leftovers: Files that only a run that is under way should have.
    """

    points: dict[str, list[Any]]
    manifest: dict[str, Any]
    settings: dict[str, Any]
    answers: list[list[list[Any]]]
    generations: int
    leftovers: list[str]

    def documents(self) -> dict[str, set[str]]:
        """Point ids of each document."""
        found: dict[str, set[str]] = {}
        for point_id, point in self.points.items():
            found.setdefault(point[0], set()).add(point_id)
        return found


NOTHING = Contents({}, {}, {}, [], 0, [])


def contents_of(index: Path) -> Contents:
    """Read an index from end to end."""
    if not (index / "manifest.json").exists():
        return NOTHING
    with TwoStagePipeline.open(index) as pipeline:
        return read_all(pipeline, sum(1 for _ in (index / "generations").iterdir()), leftovers_of(index))


def read_all(pipeline: TwoStagePipeline, generations: int, leftovers: list[str]) -> Contents:
    """What an open index holds."""
    manifest = asdict(pipeline.manifest)
    lasting = {name: manifest[name] for name in sorted(manifest.keys() - set(_FLEETING))}
    return Contents(
        points=points_of(pipeline.store),
        manifest=json.loads(json.dumps(lasting)),
        settings=asdict(pipeline.store.quantization),
        answers=answers_of(pipeline),
        generations=generations,
        leftovers=leftovers,
    )


def points_of(store: Store) -> dict[str, list[Any]]:
    """Every point as `Contents.points` has it."""
    return {point.id: _compared(point) for point in store.scan(vectors=True)}


def _compared(point: StoredPoint) -> list[Any]:
    """All of a point but for the number of the run that wrote it, to the last bit of both vectors."""
    payload = {name: value for name, value in point.payload.items() if name != "run"}
    dense = b"" if point.dense is None else point.dense.tobytes()
    weights = []
    if point.sparse is not None:
        weights = sorted(zip(point.sparse.indices.tolist(), point.sparse.values.tolist(), strict=True))
    text = json.dumps(payload, sort_keys=True).encode()
    return [payload["document_id"], payload["index"], _digest(text + dense), _digest(json.dumps(weights).encode())]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def queries() -> Sequence[str]:
    """Openings of paragraphs from all over the corpus."""
    source = paragraphs()[: 5 * 300]
    return [" ".join(text.split()[:9]) for text in source[:: len(source) // _QUERIES]][:_QUERIES]


def answers_of(pipeline: TwoStagePipeline) -> list[list[list[Any]]]:
    """Passage ids and scores of the first ten for each query; nothing for an empty index."""
    found = pipeline.search_many(queries(), top_k=10, rerank=False)
    return [[[hit.passage_id, round(hit.score, 4)] for hit in results] for results in found]


def leftovers_of(index: Path) -> list[str]:
    """Files and folders that a complete index does not have."""
    names = ("*.new", "*.before", "growing.json", "origin.json", "going-*", "temp_segments/*")
    found = sorted(str(path.relative_to(index)) for name in names for path in index.rglob(name))
    # Copies for readers are tidied by the next that is made, and a small file replaces what was to replace it before.
    return [path for path in found if not path.startswith("published/") and not path.endswith(".json.new")]
