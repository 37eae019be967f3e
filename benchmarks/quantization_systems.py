"""One index of the table: the pipeline as it is shipped, with a memory for what it would otherwise do again."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from benchmarks.quantization_memory import RememberedEncoder, RememberedScores, RememberedStore
from pipelines import TwoStagePipeline
from pipelines.opening import open_index_encoder
from pipelines.quantization.measure import Measurer
from pipelines.quantization.queries import SampledQueries
from pipelines.search_options import SearchArguments
from retrieval.config import Config
from retrieval.datatypes import Quantization, ScoredPoint, SearchRequest
from retrieval.encoders import Bm25Encoder
from retrieval.models import find_model
from retrieval.protocols import Reranker
from retrieval.rerankers import model_digest, open_reranker
from retrieval.stores import open_store, peek_index

CANDIDATES = 100
TOP = 10
SYSTEMS: Mapping[str, SearchArguments] = {
    "static": {"first_stage": "dense", "rerank": False},
    "hybrid": {"first_stage": "hybrid", "rerank": False},
    "static + cross-encoder": {"first_stage": "dense", "rerank": True},
    "hybrid + cross-encoder": {"first_stage": "hybrid", "rerank": True},
}
_TIMED = 100
_PASSES = 3
_PROBES = 20


def remembered_scores(path: Path, config: Config) -> RememberedScores:
    """The cross-encoder of a configuration with a file for its logits."""
    folder = find_model(config.rerank.model)
    return RememberedScores(open_reranker(config.rerank, folder), path, f"{model_digest(folder)} {config.rerank}")


def index_config(dims: int | None, encoder: str | None = None) -> Config:
    """The defaults with fewer dimensions, in an index that compresses every vector and compares a query with all.

    Without a graph (``m`` 0) nothing is lost but what compression loses, and from the first passage on (``threshold``
    1) the engine lays segments out as it does above its thresholds, scalar codes included.

    Args:
        dims: Leading dimensions; ``None`` for all.
        encoder: Name or folder of the static model; ``None`` for the default.
    """
    model = {} if encoder is None else {"model": encoder}
    return Config.model_validate({"encoder": model | {"dimensions": dims}, "hnsw": {"m": 0, "threshold": 1}})


class Bench:
    """One collection in an index with some number of dimensions.

    Args:
        folder: Folder of the index, which holds the collection.
        config: What it was made with.
        reranker: The cross-encoder.
        queries: Text of each query by its id.
    """

    def __init__(self, folder: Path, config: Config, reranker: Reranker, queries: Mapping[str, str]) -> None:
        encoder = RememberedEncoder(open_index_encoder(config, peek_index(config, folder)))
        self.engine = open_store(config, dim=encoder.dim, path=folder)
        self.pipeline = TwoStagePipeline(
            config,
            encoder=encoder,
            sparse=Bm25Encoder(config.bm25),
            store=RememberedStore(self.engine),  # type: ignore[arg-type]
            open_reranker=lambda: reranker,
        )
        self._folder = folder
        self._queries = queries
        rows = encoder.encode_queries(list(queries.values()))
        self._vectors = {name: row for name, row in zip(queries, rows, strict=True) if row.any()}
        self._outcomes: dict[tuple[str, str, int], list[str]] = {}

    def switch(self, quantization: Quantization) -> None:
        """Compress and search in another way."""
        self.pipeline.store.set_quantization(quantization)

    def in_effect(self) -> float:
        """Share of the vectors that searches score in compressed form; see `Measurer.in_effect`."""
        some = dict(list(self._queries.items())[:_PROBES])
        with self.pipeline.reading() as serving:
            measurer = Measurer(
                self.pipeline.config,
                serving,
                self.pipeline.manifest.passages,
                SampledQueries(some, "pseudo"),
                lambda stage, done, total: None,
            )
            return measurer.in_effect()

    def code_bytes(self) -> float:
        """Bytes of a compressed vector by the files of the engine; 0 where there are none."""
        files = [file for file in self._folder.rglob("quantized.data") if file.is_file()]
        return sum(file.stat().st_size for file in files) / self.pipeline.manifest.passages

    def search(self, names: Collection[str]) -> dict[str, list[ScoredPoint]]:
        """The best 100 of the static arm for some queries, none where the encoder knows no word of one."""
        known = [name for name in names if name in self._vectors]
        answers = self.pipeline.store.search([SearchRequest(self._vectors[name], CANDIDATES) for name in known])
        found = dict(zip(known, answers, strict=True))
        return {name: found.get(name, []) for name in names}

    def milliseconds(self) -> list[float]:
        """Time of one search of the static arm for each of up to a hundred queries, the shortest of three."""
        requests = [[SearchRequest(row, CANDIDATES)] for row in list(self._vectors.values())[:_TIMED]]
        times = []
        for _ in range(_PASSES):
            for request in requests:
                started = time.perf_counter()
                self.engine.search(request)
                times.append((time.perf_counter() - started) * 1000)
        return [min(times[at :: len(requests)]) for at in range(len(requests))]

    def ranked(self, system: str, name: str, dense: Mapping[str, Sequence[ScoredPoint]]) -> list[str]:
        """The best ten documents of a query, as the pipeline gives them with the quantization that is set.

        Args:
            system: One of `SYSTEMS`.
            name: Id of the query.
            dense: What `search` gave: with the same list comes the same result, which is not computed again.
        """
        if system == "static":
            # Nothing to fuse and nothing to read: the documents in the order of their passages.
            points = self.pipeline.store.get([point.id for point in dense[name]])
            return list(dict.fromkeys(str(point.payload["document_id"]) for point in points))[:TOP]
        key = (system, name, hash(tuple((point.id, point.score) for point in dense[name])))
        if key not in self._outcomes:
            hits = self.pipeline.search(self._queries[name], TOP, candidates=CANDIDATES, **SYSTEMS[system])
            self._outcomes[key] = [hit.document_id for hit in hits]
        return self._outcomes[key]

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.pipeline.close()
