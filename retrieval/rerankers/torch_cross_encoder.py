"""Any cross-encoder of sentence-transformers, run by torch."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.datatypes import FloatArray
from retrieval.errors import MissingExtraError, ModelError


class TorchCrossEncoder:
    """A cross-encoder by hub name or folder, loaded when it is first used; safe to call from several threads.

    Args:
        name_or_path: ``owner/model`` on the Hugging Face hub (downloaded once) or a folder.
        max_tokens: Tokens of a pair; ``None`` for what the model was made for, which is also the limit.
        threads: Threads of torch in this process; ``None`` leaves them as they are.
        batch_size: Pairs of one run, at least 1.

    Raises:
        ValueError: A number is below 1.
    """

    def __init__(
        self,
        name_or_path: str | Path,
        *,
        max_tokens: int | None = None,
        threads: int | None = None,
        batch_size: int = 8,
    ) -> None:
        for name, value in (("max_tokens", max_tokens), ("threads", threads), ("batch_size", batch_size)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is at least 1, not {value}")
        self._source = str(name_or_path)
        self._max_tokens = max_tokens
        self._threads = threads
        self._batch_size = batch_size
        self._model: Any = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return self._source

    def readable_query(self, query: str) -> str:
        """The beginning of the query that the model reads: at most half of its tokens.

        Raises:
            MissingExtraError: sentence-transformers or torch is not installed.
            ModelError: The model cannot be loaded.
        """
        with self._lock:
            return self._cut(self._load(), query)

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        """Raw logits of the pairs of the query with each text.

        Args:
            query: May be empty.
            texts: Texts, in any order and of any length; may be empty strings.

        Returns:
            float32 ``(n,)`` in input order; the difference of the two logits where the model has two classes.

        Raises:
            TypeError: ``texts`` is a string.
            MissingExtraError: sentence-transformers or torch is not installed.
            ModelError: The model cannot be loaded or run, or gives something else than finite logits.
        """
        if isinstance(texts, str):
            raise TypeError("texts is a sequence of strings, not a string")
        if not len(texts):
            return np.empty(0, dtype=np.float32)
        # A fast tokenizer is set up anew by every call, so calls take turns.
        with self._lock:
            output = self._predict(self._load(), query, texts)
        logits = output[:, 1] - output[:, 0] if output.ndim == 2 and output.shape[1] == 2 else output
        if logits.shape != (len(texts),):
            raise ModelError(
                f"{self._source} gives shape {output.shape} for {len(texts)} pairs, not 1 or 2 logits each"
            )
        if not np.isfinite(logits).all():
            position = int(np.argmin(np.isfinite(logits)))
            raise ModelError(f"{self._source} gives {logits[position]} for text {position}: its weights are damaged")
        return np.ascontiguousarray(logits, dtype=np.float32)

    def _load(self) -> Any:
        if self._model is None:
            self._model = _open_model(self._source)
            if self._threads is not None:
                import torch

                torch.set_num_threads(self._threads)
            if self._max_tokens is not None:
                tokenizer = self._model.tokenizer
                tokenizer.model_max_length = min(self._max_tokens, tokenizer.model_max_length)
        return self._model

    def _predict(self, model: Any, query: str, texts: Sequence[str]) -> FloatArray:
        import torch

        readable = self._cut(model, _valid(query))
        try:
            return np.asarray(
                model.predict(
                    [(readable, _valid(text)) for text in texts],
                    batch_size=self._batch_size,
                    activation_fn=torch.nn.Identity(),
                    show_progress_bar=False,
                )
            )
        except Exception as error:  # torch and transformers raise whatever went wrong inside
            raise ModelError(f"{self._source} cannot be run: {error}") from error

    def _cut(self, model: Any, query: str) -> str:
        half = model.tokenizer.model_max_length // 2
        if len(query) <= half:
            return query
        encoding = model.tokenizer(query, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        room = max(1, half - model.tokenizer.num_special_tokens_to_add(pair=True))
        if len(encoding["input_ids"]) <= room:
            return query
        return query[: encoding["offset_mapping"][room - 1][1]]


def _open_model(source: str) -> Any:
    try:
        from sentence_transformers import CrossEncoder
    except ImportError as error:
        missing = (error.name or "sentence_transformers").partition(".")[0]
        raise MissingExtraError(missing, "train", f"the cross-encoder {source}") from error
    try:
        # Code that a model brings along is never run, and weights are safetensors: the others are pickles.
        return CrossEncoder(source, device="cpu", trust_remote_code=False, model_kwargs={"use_safetensors": True})
    except Exception as error:  # the hub, transformers and torch raise whatever went wrong inside
        raise ModelError(f"cannot load the cross-encoder {source}: {error}") from error


def _valid(text: str) -> str:
    # Lone surrogates, which JSON can hold and UTF-8 cannot, become question marks.
    return text.encode("utf-8", "replace").decode("utf-8")
