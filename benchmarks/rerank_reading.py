"""What the cross-encoder makes of candidates of the development sets, and what reading less of them would change."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.defaults import DEVELOPMENT_PAIRS, DevelopmentSet, fused, ranked, read_collection, read_pairs
from pipelines import TwoStagePipeline
from pipelines.points import readable_text
from retrieval.config import DEFAULT_DENSE_WEIGHT, Config
from retrieval.datatypes import Arm, FloatArray, ScoredPoint, SearchRequest
from retrieval.evaluation import evaluate_run
from retrieval.ordering import order
from retrieval.rerankers import (
    EarlyStop,
    Forecast,
    LikelySettled,
    OnnxCrossEncoder,
    Reading,
    choose_windows,
    read_candidates,
)

WINDOWS: dict[str, int] = {"48": 30, "64": 24, "90": 20}
"""Words of a window, and how many candidates are read in it."""
TOP_K = 5
WEIGHT = Config().rerank.first_stage_weight
_RIDGE = 1e-2


@dataclass(frozen=True, slots=True)
class Asked:
    """One query: its candidates in first-stage order, and logit and tokens of those that were read, by window."""

    name: str
    first: list[float]
    documents: list[str]
    judged: dict[str, int]
    read: dict[str, list[tuple[float, int]]]


def development_set(data: Path, name: str, queries: int) -> DevelopmentSet:
    if name == "scifact-train":
        return read_collection(data / "beir" / "scifact", "train", queries)
    return read_pairs(data / "pairs" / f"{name}.jsonl.gz", queries, 6000)


def collect(data: Path, raw: Path, queries: int) -> None:
    """One file a set; sets that have one are left as they are."""
    raw.mkdir(parents=True, exist_ok=True)
    for name in ("scifact-train", *DEVELOPMENT_PAIRS):
        path = raw / f"{name}.json"
        if not path.is_file():
            rows = list(_asked(development_set(data, name, queries)))
            path.write_text(json.dumps(rows), encoding="utf-8")
            print(name, len(rows), flush=True)


def _asked(development: DevelopmentSet) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder, TwoStagePipeline.open(folder, Config()) as pipeline:
        pipeline.ingest(development.documents)
        reranker = pipeline.reranker()
        assert isinstance(reranker, OnnxCrossEncoder)
        for name, query in development.queries.items():
            dense, sparse = pipeline.encoder.encode_queries([query]), pipeline.sparse.encode_queries([query])
            answers = pipeline.store.search([SearchRequest(dense[0], 100), SearchRequest(sparse[0], 100)])
            arms: dict[Arm, list[ScoredPoint]] = {"dense": answers[0], "bm25": answers[1]}
            candidates = fused(arms, DEFAULT_DENSE_WEIGHT)
            payloads = {point.id: point.payload for point in pipeline.store.get([one.id for one in candidates])}
            ordered = [payloads[one.id] for one in candidates]
            read = {}
            for words, depth in WINDOWS.items():
                texts = [str(payload["text"]) for payload in ordered[:depth]]
                spans = choose_windows(dense[0], texts, pipeline.encoder, int(words))
                stretches = [
                    readable_text(payload, text[start:end])
                    for payload, text, (start, end) in zip(ordered, texts, spans, strict=False)
                ]
                prepared = reranker.prepare(query, stretches)
                logits = reranker.score_pairs([(prepared, range(len(stretches)))])[0].tolist()
                read[words] = [(logit, len(pair.ids)) for logit, pair in zip(logits, prepared.pairs, strict=True)]
            yield {
                "name": name,
                "first": [one.score for one in candidates],
                "documents": [str(payload["document_id"]) for payload in ordered],
                "judged": development.qrels[name],
                "read": read,
            }


def collected(raw: Path) -> dict[str, list[Asked]]:
    """What `collect` has written, by set; queries without candidates are left out."""
    sets = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(raw.glob("*.json"))}
    return {name: [Asked(**row) for row in rows if row["first"]] for name, rows in sets.items()}


class _Remembered:
    """A cross-encoder whose texts are positions of what was read before."""

    name = "remembered"

    def __init__(self, logits: Sequence[float]) -> None:
        self._logits = logits

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        return np.array([self._logits[int(text)] for text in texts], dtype=np.float32)


def replay(one: Asked, words: str, depth: int, stop: EarlyStop, *, top_k: int = TOP_K, batch: int = 8) -> Reading:
    """Read a query again with other settings, by the loop that searches use."""
    logits = [logit for logit, _ in one.read[words][:depth]]
    return read_candidates(
        "",
        [str(position) for position in range(len(logits))],
        one.first,
        _Remembered(logits),
        first_stage_weight=WEIGHT,
        top_k=top_k,
        groups=one.documents,
        batch_size=batch,
        early_stop=stop,
    )


def documents(one: Asked, reading: Reading) -> list[tuple[str, float]]:
    """The documents of a reading, the best first."""
    places = range(1, len(one.first) + 1)
    positions = order(reading.scores, places, [f"{place:05d}" for place in places])
    return ranked([one.documents[at] for at in positions], [reading.scores[at] for at in positions])


def tokens(one: Asked, words: str, reading: Reading) -> int:
    """Tokens of what was read."""
    return sum(size for (_, size), logit in zip(one.read[words], reading.logits, strict=False) if logit is not None)


def ndcg(asked: Sequence[Asked], runs: Sequence[list[tuple[str, float]]]) -> FloatArray:
    """nDCG@10 of every query."""
    judged = {str(number): one.judged for number, one in enumerate(asked)}
    report = evaluate_run(judged, {str(number): run for number, run in enumerate(runs)}, ("nDCG@10",))
    by_query = report.per_query["nDCG@10"]
    return np.array([by_query[str(number)] for number in range(len(asked))], dtype=np.float32)


@dataclass(slots=True)
class _Recorder:
    """Stands in for a forecast: never stops, and notes what it was asked."""

    asked: list[tuple[FloatArray, FloatArray, list[float]]] = field(default_factory=list)

    def chance(self, needed: Any, first: Any, read: Sequence[float]) -> float:
        self.asked.append((np.asarray(needed), np.asarray(first), list(read)))
        return 1.0


def fit_forecast(sets: Mapping[str, Sequence[Asked]], fitted_on: str, words: str = "90") -> Forecast:
    """A logistic function of what unread candidates need, every set weighing the same; see `Forecast`."""
    rows, labels, weights = [], [], []
    for asked in sets.values():
        for one in asked:
            recorder = _Recorder()
            rule = LikelySettled(cast(Forecast, recorder), 0.5)
            replay(one, words, WINDOWS[words], rule, batch=4)
            for needed, first, read in recorder.asked:
                later = np.array([logit for logit, _ in one.read[words][len(read) :]][: len(needed)])
                open_ = (needed > 0) & (needed < 1)
                logit = np.log(np.clip(needed, 1e-6, None) / np.clip(1 - needed, 1e-6, None))
                recent = np.full(len(needed), np.mean(read[-4:]))
                rows.append(np.stack([np.ones(len(needed)), logit, first, recent], axis=1)[open_])
                labels.append((1 / (1 + np.exp(-later)) > needed)[open_])
                weights.append(np.full(int(open_.sum()), 1 / len(asked)))
    x, y, w = np.concatenate(rows), np.concatenate(labels).astype(float), np.concatenate(weights)
    w *= len(w) / w.sum()
    numbers = np.zeros(4)
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ numbers, -30, 30)))
        slope = x.T @ (w * (p - y)) + _RIDGE * numbers
        step = np.linalg.solve((x * (w * p * (1 - p))[:, None]).T @ x + _RIDGE * np.eye(4), slope)
        numbers -= step
        if np.abs(step).max() < 1e-10:
            break
    return Forecast(*(float(number) for number in numbers), fitted_on=fitted_on)
