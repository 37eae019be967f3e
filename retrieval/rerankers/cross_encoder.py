"""Cross-encoders as ONNX graphs, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.datatypes import FloatArray
from retrieval.errors import ModelError
from retrieval.model_files import MAX_GRAPH_BYTES, checked_file
from retrieval.rerankers.graphs import ONNX_FILES, find_graph, model_digest
from retrieval.rerankers.model_calibration import RerankerCalibration, read_calibration
from retrieval.rerankers.pairs import Pair, PairTokenizer, read_model_config
from retrieval.rerankers.score_cache import CacheStatistics, ScoreCache
from retrieval.rerankers.speed import ReadingSpeed, known_speed
from retrieval.telemetry import refuse_telemetry

if TYPE_CHECKING:
    import onnxruntime

_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
_SLOW_FUSIONS = ["SkipLayerNormFusion"]
"""Rewritings of ONNX Runtime that cost more than they save on a CPU: 3.2 ms instead of .6 of a pair of 128 tokens."""


@dataclass(frozen=True, slots=True)
class TokenPairs:
    """A query with some texts, ready to be read.

    Args:
        pairs: Tokens of each.
        keys: What each is known by in the cache; empty without one.
        milliseconds: What reading each will probably take; 0 for what is in the cache. Empty when nobody asked.
    """

    pairs: tuple[Pair, ...]
    keys: tuple[bytes, ...]
    milliseconds: tuple[float, ...]


class OnnxCrossEncoder:
    """A cross-encoder in a folder: one of `ONNX_FILES` with ``tokenizer.json``; loaded when it is first used.

    Every pair is read by itself, without padding, by one thread, and as many side by side as there are threads. So a
    logit depends on nothing but its pair: graphs that quantise their activations when they run (dynamic int8) choose
    the range over the whole batch, by which a logit of a MiniLM would move by a tenth of their spread; float graphs
    move in the last digits. It is also the fastest way: eight pairs of a float graph in one batch took a fourth longer.

    Long texts are cut, never the query, unless it takes more than half of the tokens; see `readable_query`. Safe to
    call from several threads.

    Args:
        folder: Folder of the model.
        max_tokens: Tokens of a pair; ``None`` for what the model was made for, which is also the limit.
        threads: Pairs that are read side by side, over all callers; ``None`` for all cores that the process may use.
        cache_bytes: What logits of pairs that were read may take, to be given again; 0 reads everything anew.

    Raises:
        ModelError: The folder or a file in it is missing, or a configuration file is malformed.
        ValueError: A number is out of range.
    """

    def __init__(
        self, folder: Path | str, *, max_tokens: int | None = None, threads: int | None = None, cache_bytes: int = 0
    ) -> None:
        self._folder = Path(folder)
        for name, value in (("max_tokens", max_tokens), ("threads", threads)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is at least 1, not {value}")
        graph = find_graph(self._folder)
        if graph is None:
            raise ModelError(f"no cross-encoder in {self._folder}: none of {', '.join(ONNX_FILES)} is there")
        if not (self._folder / "tokenizer.json").is_file():
            raise ModelError(f"{self._folder} has no tokenizer.json")
        stated = read_model_config(self._folder).get("name")
        self._name = stated if isinstance(stated, str) and stated else self._folder.resolve().name
        self._graph = graph
        self._max_tokens = max_tokens
        self._threads = threads or _cores()
        self._cache = ScoreCache(cache_bytes) if cache_bytes else None
        self._loaded: tuple[PairTokenizer, onnxruntime.InferenceSession] | None = None
        self._workers: ThreadPoolExecutor | None = None
        self._speed: ReadingSpeed | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return self._name

    @property
    def workers(self) -> int:
        """Pairs that are read side by side."""
        return self._threads

    @property
    def cache(self) -> CacheStatistics:
        """What the cache of logits did so far."""
        return CacheStatistics() if self._cache is None else self._cache.statistics

    def digest(self) -> str:
        """First 12 hex digits of the SHA-256 of the graph: whose logits these are.

        Raises:
            ModelError: The graph cannot be read.
        """
        return self._digest

    def calibration(self) -> RerankerCalibration | None:
        """What the logits mean, as the folder says; ``None`` when it does not.

        Raises:
            ModelError: It is malformed, or belongs to other weights.
        """
        return self._calibration

    @cached_property
    def _digest(self) -> str:
        return model_digest(self._folder)

    @cached_property
    def _calibration(self) -> RerankerCalibration | None:
        return read_calibration(self._folder, self._digest)

    def readable_query(self, query: str) -> str:
        """The beginning of the query that the model reads; equal to ``query`` when it reads all of it.

        Raises:
            ModelError: The model cannot be loaded.
        """
        return self._load()[0].readable_query(query)

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        """Raw logits of the pairs of the query with each text.

        Args:
            query: May be empty.
            texts: Texts, in any order and of any length; may be empty strings.

        Returns:
            float32 ``(n,)`` in input order; the difference of the two logits where the model has two classes.

        Raises:
            TypeError: ``texts`` is a string.
            ModelError: The model cannot be loaded or run, or gives something else than finite logits.
        """
        if isinstance(texts, str):
            raise TypeError("texts is a sequence of strings, not a string")
        if not len(texts):
            return np.empty(0, dtype=np.float32)
        return self.score_pairs([(self.prepare(query, texts), range(len(texts)))])[0]

    def speed(self) -> ReadingSpeed:
        """How long this machine reads a pair, from the user's cache or measured now (a fraction of a second).

        Raises:
            ModelError: The model cannot be loaded or run.
        """
        if self._speed is None:
            longest = self._load()[0].max_tokens
            self._speed = known_speed(self._digest, self._threads, longest, self._time_pairs)
        return self._speed

    def prepare(self, query: str, texts: Sequence[str], *, timed: bool = False) -> TokenPairs:
        """Make pairs ready for `score_pairs`.

        Args:
            query: May be empty.
            texts: Texts.
            timed: Whether to say what reading each will take; see `speed`.

        Raises:
            ModelError: The model cannot be loaded.
        """
        tokenizer = self._load()[0]
        pairs = tuple(tokenizer.encode(query, texts))
        keys: tuple[bytes, ...] = ()
        known = [False] * len(pairs)
        if self._cache is not None:
            keys = tuple(ScoreCache.keys(f"{self._digest} {tokenizer.max_tokens}", query, texts))
            known = self._cache.holds(keys)
        if not timed:
            return TokenPairs(pairs, keys, ())
        speed = self.speed()
        times = (0.0 if there else speed.of(len(pair.ids)) for pair, there in zip(pairs, known, strict=True))
        return TokenPairs(pairs, keys, tuple(times))

    def score_pairs(self, jobs: Sequence[tuple[TokenPairs, Sequence[int]]]) -> list[FloatArray]:
        """Raw logits of some of the pairs of several queries, all of them shared out to the workers together.

        Args:
            jobs: Pairs of a query, and the positions of those that are to be read.

        Returns:
            float32 ``(n,)`` for each job, in the order of its positions.

        Raises:
            ModelError: The model cannot be loaded or run, or gives something else than finite logits.
        """
        logits = [self._remembered(prepared, positions) for prepared, positions in jobs]
        missing = [(job, at) for job, row in enumerate(logits) for at in np.flatnonzero(np.isnan(row)).tolist()]
        waiting = [jobs[job][0].pairs[jobs[job][1][at]] for job, at in missing]
        for (job, at), logit in zip(missing, self._read(waiting), strict=True):
            if not np.isfinite(logit):
                raise ModelError(f"{self._name} gives {logit} for text {jobs[job][1][at]}: its weights are damaged")
            logits[job][at] = logit
            prepared, positions = jobs[job]
            if self._cache is not None:
                self._cache.put([prepared.keys[positions[at]]], [float(logits[job][at])])
        return logits

    def _remembered(self, prepared: TokenPairs, positions: Sequence[int]) -> FloatArray:
        """What the cache has; nan elsewhere."""
        if self._cache is None:
            return np.full(len(positions), np.nan, dtype=np.float32)
        found = self._cache.get([prepared.keys[at] for at in positions])
        return np.array([np.nan if logit is None else logit for logit in found], dtype=np.float32)

    def _read(self, pairs: Sequence[Pair]) -> list[float]:
        session = self._load()[1]
        # The longest first, so that the workers end together.
        order = sorted(range(len(pairs)), key=lambda position: -len(pairs[position].ids))
        run: Callable[[int], float] = lambda position: self._run(session, pairs[position])  # noqa: E731
        if self._threads == 1 or len(pairs) < 2:
            answers = [run(position) for position in order]
        else:
            answers = list(self._pool().map(run, order))
        logits = [0.0] * len(pairs)
        for position, logit in zip(order, answers, strict=True):
            logits[position] = logit
        return logits

    def _pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._workers is None:
                self._workers = ThreadPoolExecutor(self._threads, thread_name_prefix="rerank")
            return self._workers

    def _run(self, session: onnxruntime.InferenceSession, pair: Pair) -> float:
        ids = np.array([pair.ids], dtype=np.int64)
        given: dict[str, Any] = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.array([pair.segments], dtype=np.int64),
        }
        try:
            output = np.asarray(session.run(None, {part.name: given[part.name] for part in session.get_inputs()})[0])
        except Exception as error:  # ONNX Runtime has no common base for its errors
            raise ModelError(f"{self._graph} cannot be run: {error}") from error
        if output.shape == (1, 1):
            return float(output[0, 0])
        if output.shape == (1, 2):
            return float(np.float32(output[0, 1] - output[0, 0]))
        raise ModelError(f"{self._graph} gives shape {output.shape} for 1 pair, not 1 or 2 logits each")

    def _time_pairs(self, tokens: int) -> float:
        pair = Pair([1] * tokens, [0] * (tokens // 2) + [1] * (tokens - tokens // 2))
        started = time.perf_counter()
        self._read([pair] * self._threads)
        return 1000 * (time.perf_counter() - started)

    def _load(self) -> tuple[PairTokenizer, onnxruntime.InferenceSession]:
        with self._lock:
            if self._loaded is None:
                tokenizer = PairTokenizer(self._folder, self._max_tokens)
                checked_file(self._graph, self._folder, MAX_GRAPH_BYTES)
                self._loaded = tokenizer, _open_session(self._graph)
            return self._loaded


def _open_session(graph: Path) -> onnxruntime.InferenceSession:
    refuse_telemetry()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Every length is another shape, and an arena keeps the largest ever asked for; without it nothing is slower.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            str(graph), options, providers=["CPUExecutionProvider"], disabled_optimizers=_SLOW_FUSIONS
        )
    except Exception as error:  # ONNX Runtime has no common base for its errors
        raise ModelError(f"cannot load {graph}: {error}") from error
    names = {part.name for part in session.get_inputs()}
    if not {"input_ids", "attention_mask"} <= names or not names <= _INPUTS:
        raise ModelError(f"{graph} takes {sorted(names)}, not input_ids, attention_mask and perhaps token_type_ids")
    return session


def _cores() -> int:
    # The affinity of the process, where the system has one: a container may be given two cores of sixty-four.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
