"""Cross-encoders as ONNX graphs, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.datatypes import FloatArray
from retrieval.errors import ModelError
from retrieval.rerankers.graphs import ONNX_FILES, find_graph, model_digest, quantises_activations
from retrieval.rerankers.model_calibration import RerankerCalibration, read_calibration
from retrieval.rerankers.pairs import Pair, PairTokenizer, read_model_config
from retrieval.telemetry import refuse_telemetry

if TYPE_CHECKING:
    import onnxruntime

_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}


class OnnxCrossEncoder:
    """A cross-encoder in a folder: one of `ONNX_FILES` with ``tokenizer.json``; loaded when it is first used.

    Graphs that quantise their activations when they run (dynamic int8) choose the range over the whole batch, so that
    a logit would depend on the other texts of its batch, by about a tenth of the spread of the logits of a MiniLM.
    They read one pair at a time, and nothing is padded. Float graphs read batches of pairs of similar length.

    Every run has one thread, and as many runs go on side by side as there are threads: operations on a single pair are
    too small to be worth sharing out (20 pairs of 128 tokens on two cores: 342 ms with the threads inside a run).

    Long texts are cut, never the query, unless it takes more than half of the tokens; see `readable_query`. Safe to
    call from several threads.

    Args:
        folder: Folder of the model.
        max_tokens: Tokens of a pair; ``None`` for what the model was made for, which is also the limit.
        threads: Runs side by side, over all callers; ``None`` for all cores that the process may use.
        batch_size: Pairs of one run of a float graph, at least 1.

    Raises:
        ModelError: The folder or a file in it is missing, or a configuration file is malformed.
        ValueError: A number is below 1.
    """

    def __init__(
        self, folder: Path | str, *, max_tokens: int | None = None, threads: int | None = None, batch_size: int = 8
    ) -> None:
        self._folder = Path(folder)
        for name, value in (("max_tokens", max_tokens), ("threads", threads), ("batch_size", batch_size)):
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
        self._batch_size = 1 if quantises_activations(graph) else batch_size
        self._loaded: tuple[PairTokenizer, onnxruntime.InferenceSession] | None = None
        self._workers: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return self._name

    @property
    def batch_size(self) -> int:
        """Pairs of one run: 1 for a graph whose logits would depend on the batch."""
        return self._batch_size

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
        tokenizer, session = self._load()
        pairs = tokenizer.encode(query, texts)
        # The longest first, so that the runs side by side end together.
        by_length = sorted(range(len(pairs)), key=lambda position: -len(pairs[position].ids))
        size = min(self._batch_size, math.ceil(len(pairs) / self._threads))
        batches = [by_length[start : start + size] for start in range(0, len(pairs), size)]
        logits = np.empty(len(pairs), dtype=np.float32)

        def run(positions: list[int]) -> FloatArray:
            return self._run(session, [pairs[position] for position in positions], tokenizer.pad_id)

        for positions, scores in zip(batches, self._side_by_side(run, batches), strict=True):
            logits[positions] = scores
        if not np.isfinite(logits).all():
            position = int(np.argmin(np.isfinite(logits)))
            raise ModelError(f"{self._name} gives {logits[position]} for text {position}: its weights are damaged")
        return logits

    def _side_by_side(
        self, run: Callable[[list[int]], FloatArray], batches: Sequence[list[int]]
    ) -> Iterator[FloatArray]:
        if self._threads == 1 or len(batches) == 1:
            return map(run, batches)
        with self._lock:
            if self._workers is None:
                self._workers = ThreadPoolExecutor(self._threads, thread_name_prefix="rerank")
        return self._workers.map(run, batches)

    def _run(self, session: onnxruntime.InferenceSession, pairs: Sequence[Pair], pad_id: int) -> FloatArray:
        inputs = _padded(pairs, pad_id)
        try:
            output = np.asarray(session.run(None, {part.name: inputs[part.name] for part in session.get_inputs()})[0])
        except Exception as error:  # ONNX Runtime has no common base for its errors
            raise ModelError(f"{self._graph} cannot be run: {error}") from error
        if output.shape == (len(pairs), 1):
            return np.asarray(output[:, 0], dtype=np.float32)
        if output.shape == (len(pairs), 2):
            return np.asarray(output[:, 1] - output[:, 0], dtype=np.float32)
        raise ModelError(f"{self._graph} gives shape {output.shape} for {len(pairs)} pairs, not 1 or 2 logits each")

    def _load(self) -> tuple[PairTokenizer, onnxruntime.InferenceSession]:
        with self._lock:
            if self._loaded is None:
                tokenizer = PairTokenizer(self._folder, self._max_tokens)
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
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has no common base for its errors
        raise ModelError(f"cannot load {graph}: {error}") from error
    names = {part.name for part in session.get_inputs()}
    if not {"input_ids", "attention_mask"} <= names or not names <= _INPUTS:
        raise ModelError(f"{graph} takes {sorted(names)}, not input_ids, attention_mask and perhaps token_type_ids")
    return session


def _padded(pairs: Sequence[Pair], pad_id: int) -> dict[str, Any]:
    shape = (len(pairs), max(len(pair.ids) for pair in pairs))
    ids = np.full(shape, pad_id, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    segments = np.zeros(shape, dtype=np.int64)
    for row, pair in enumerate(pairs):
        ids[row, : len(pair.ids)] = pair.ids
        mask[row, : len(pair.ids)] = 1
        segments[row, : len(pair.ids)] = pair.segments
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments}


def _cores() -> int:
    # The affinity of the process, where the system has one: a container may be given two cores of sixty-four.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
