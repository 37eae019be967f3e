"""The table of quantization for one collection: what is missing is measured, what is there is kept."""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.quantization_grid import CODES, FLOAT, Setting, matryoshka, recall, searches, settings
from benchmarks.quantization_memory import Measured
from benchmarks.quantization_report import NDCG, Values
from benchmarks.quantization_systems import SYSTEMS, Bench, index_config
from pipelines import TwoStagePipeline
from retrieval.config import Config
from retrieval.datatypes import Quantization, ScoredPoint
from retrieval.evaluation import BeirCollection, evaluate_run, summarize_latency
from retrieval.manifest import peek_manifest
from retrieval.models import open_encoder
from retrieval.protocols import Reranker

_EXACT = "exact"
_SEARCH = "search"


class OutOfTimeError(Exception):
    """The minutes of this run are over; what was measured is kept."""


class Run:
    """The measurement of one collection in one state of the encoder.

    Args:
        collection: Queries and judgements.
        place: Folder for the indexes and what is measured.
        config: Settings with all dimensions.
        adapted: Whether the encoder is adapted to the collection first.
        read: How many queries the cross-encoder is asked about: the first of a random order; ``None`` for all.
        codes: Ways to compress.
        dims: Numbers of dimensions, largest first; ``None`` for all, half, a quarter and an eighth.
        deadline: On the clock of ``time.monotonic``.
    """

    def __init__(
        self,
        collection: BeirCollection,
        place: Path,
        config: Config,
        *,
        adapted: bool = False,
        read: int | None = None,
        codes: Sequence[Quantization] = CODES,
        dims: Sequence[int] | None = None,
        deadline: float = float("inf"),
    ) -> None:
        self.collection = collection
        self.name, self.state = collection.folder.resolve().name, "adapted" if adapted else "as bundled"
        self.codes = codes
        encoder = open_encoder(config.encoder)
        self.dims = tuple(dims or matryoshka(encoder.dim))
        shuffled = random.Random(0).sample(sorted(collection.queries), len(collection.queries))
        self.read = shuffled[:read]
        about = json.dumps([str(encoder.fingerprint), dict(collection.queries), collection.qrels])
        digest = hashlib.blake2b(about.encode(), digest_size=4).hexdigest()
        self._place = place / f"{self.name}-{collection.split}-{self.state.replace(' ', '-')}-{digest}"
        self._place.mkdir(parents=True, exist_ok=True)
        self._config = config
        self._deadline = deadline
        self.measured = Measured(place / "measured.sqlite", self._place.name)

    def measure(self, reranker: Reranker, dims: int, systems: Sequence[str] = tuple(SYSTEMS)) -> None:
        """Measure what is missing.

        Args:
            reranker: The cross-encoder.
            dims: One of `dims`, the largest of which is measured first.
            systems: Names of `SYSTEMS`.

        Raises:
            OutOfTimeError: The deadline has come.
        """
        codes = [code for code in (FLOAT, *self.codes) if self._missing(dims, code, systems)]
        if not codes:
            return
        config = index_config(dims, self._config.encoder.model)
        folder = self._index(dims, config)
        with Bench(folder, config, reranker, self.collection.queries) as bench:
            if self.measured.get(str(dims), "", _EXACT) is None:
                bench.switch(FLOAT)
                self.measured.put(_ids(bench.search(self.collection.queries)), str(dims), "", _EXACT)
            for code in codes:
                self._measure_code(bench, dims, code, systems)

    def _missing(self, dims: int, code: Quantization, systems: Sequence[str]) -> bool:
        return any(self._open_parts(Setting(dims, search), systems) for search in searches(code))

    def _open_parts(self, setting: Setting, systems: Sequence[str]) -> list[str]:
        return [
            part
            for part in (_SEARCH, *systems)
            if self.measured.get(str(setting.dims), setting.name, self._part(part)) is None
        ]

    def _part(self, part: str) -> str:
        # Another sample of the queries is another measurement.
        return f"{part} {len(self.read)}" if part in SYSTEMS and SYSTEMS[part]["rerank"] else part

    def _index(self, dims: int, config: Config) -> Path:
        folder = self._place / str(dims)
        with TwoStagePipeline.open(folder, config) as pipeline:
            self._say(f"{dims} dims: index")
            pipeline.ingest(self.collection.documents())
            if self.state == "adapted" and pipeline.manifest.adapted_from is None:
                pipeline.adapt()
            pipeline.store.optimize()
        return folder

    def _measure_code(self, bench: Bench, dims: int, code: Quantization, systems: Sequence[str]) -> None:
        checked = None
        for search in searches(code):
            setting = Setting(dims, search)
            missing = self._open_parts(setting, systems)
            if not missing:
                continue
            bench.switch(search)
            checked = checked or self._check(bench, setting)
            self._say(setting.name)
            found = bench.search(dict.fromkeys(name for part in missing for name in self.names(part)))
            for part in missing:
                if part == _SEARCH:
                    value = checked | self._of_search(bench, dims, _ids(found))
                else:
                    value = self._of_system(bench, part, found)
                self.measured.put(value, str(dims), setting.name, self._part(part))

    def _of_system(self, bench: Bench, system: str, found: Mapping[str, list[ScoredPoint]]) -> list[float]:
        """nDCG@10 of each query."""
        run = {}
        for name in self.names(system):
            run[name] = [(document, -float(place)) for place, document in enumerate(bench.ranked(system, name, found))]
            if time.monotonic() > self._deadline:
                raise OutOfTimeError
        qrels = {name: self.collection.qrels[name] for name in run}
        return list(evaluate_run(qrels, run, [NDCG]).per_query[NDCG].values())

    def _check(self, bench: Bench, setting: Setting) -> dict[str, float]:
        """Bytes of a code by the files of the engine, and that searches use it."""
        share = bench.in_effect()
        if setting.quantization.kind != "none" and share < 1:
            raise RuntimeError(f"{setting.name}: in effect for {share:.0%} of the vectors only")
        return {"in_effect": share, "code_bytes": bench.code_bytes()}

    def _of_search(self, bench: Bench, dims: int, found: dict[str, list[str]]) -> dict[str, Any]:
        latency = summarize_latency(bench.milliseconds())
        lists = {
            "recall_same_dims": self.measured.get(str(dims), "", _EXACT),
            "recall_all_dims": self.measured.get(str(self.dims[0]), "", _EXACT),
        }
        recalls = {
            name: [recall(exact[query], found[query]) for query in self.collection.queries]
            for name, exact in lists.items()
        }
        return recalls | {"p50_ms": latency.p50, "p95_ms": latency.p95}

    def names(self, part: str) -> list[str]:
        """Ids of the queries that a part of a row is measured with."""
        return list(self.read) if part in SYSTEMS and SYSTEMS[part]["rerank"] else list(self.collection.queries)

    def values(self) -> Values:
        """What was measured."""
        rows = {}
        for setting in settings(self.dims, self.codes):
            search = self.measured.get(str(setting.dims), setting.name, _SEARCH)
            if search is not None:
                parts = {part: self.measured.get(str(setting.dims), setting.name, self._part(part)) for part in SYSTEMS}
                rows[setting] = search | {part: value for part, value in parts.items() if value is not None}
        manifest = peek_manifest(self._place / str(self.dims[0]))
        assert manifest is not None, "an index was measured"
        return Values(self.name, self.collection.split, self.state, manifest.passages, rows)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.measured.close()

    def _say(self, what: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {self.name}, {self.state}: {what}", file=sys.stderr, flush=True)


def _ids(found: Mapping[str, list[ScoredPoint]]) -> dict[str, list[str]]:
    return {name: [point.id for point in points] for name, points in found.items()}
