"""The sentence transformer that a static model learns from."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from retrieval.datatypes import FloatArray
from retrieval.errors import MissingExtraError, ModelError

Progress = Callable[[int, int], None]
"""Called with what is done, and of how much."""

# How Model2Vec calls the ways in which sentence-transformers pools; max and weighted means have no name there.
_POOLINGS = {"mean": "mean", "mean_sqrt_len_tokens": "mean", "cls": "first", "lasttoken": "last"}
_BATCH = 64
_MOST_TOKENS = 128


@dataclass(frozen=True, slots=True, eq=False)
class TokenStates:
    """The tokens of a text under a teacher: ids (n,), character spans (n, 2), states float32 (n, width)."""

    ids: NDArray[np.int64]
    spans: NDArray[np.int64]
    states: FloatArray


class Teacher:
    """A sentence transformer on the CPU.

    Args:
        folder: Its folder; one that only has a transformer is pooled by the mean of its tokens.

    Raises:
        MissingExtraError: A package for training is not installed.
        ModelError: The folder does not hold a sentence transformer that can be distilled; the message says why.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            import model2vec.distill  # noqa: F401
            import torch  # noqa: F401
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise MissingExtraError(error.name or "model2vec", "train", "distillation") from error
        self.folder = Path(folder)
        if not (self.folder / "config.json").is_file() and not (self.folder / "modules.json").is_file():
            raise ModelError(
                f"{folder} is not the folder of a sentence transformer: it has no modules.json or config.json"
            )
        try:
            with _quiet():
                self._model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        except Exception as error:  # whatever the library meets in a folder that is not one of its own
            raise ModelError(f"{folder} cannot be opened as a sentence transformer: {_first_line(error)}") from error
        modules = list(self._model)
        if type(modules[0]).__name__ != "Transformer":
            raise ModelError(f"{folder} is not a sentence transformer: it begins with {type(modules[0]).__name__}")
        self._transformer: Any = modules[0]
        self._behind = [module for module in modules[2:] if type(module).__name__ != "Normalize"]
        self.pooling = _pooling(modules, self.folder)

    @property
    def dim(self) -> int:
        """Dimensions of its vectors."""
        get = getattr(self._model, "get_embedding_dimension", None) or self._model.get_sentence_embedding_dimension
        return int(get() or 0)

    @property
    def width(self) -> int:
        """Dimensions of the states of its tokens."""
        return int(self._transformer.auto_model.config.hidden_size)

    @property
    def vocabulary(self) -> Container[str]:
        """The tokens of its tokenizer."""
        known: dict[str, int] = self._transformer.tokenizer.get_vocab()
        return known

    def encode(self, texts: Sequence[str], on_progress: Progress | None = None) -> FloatArray:
        """Vectors of texts at unit length, float32 (texts, dim), texts cut as the teacher cuts them."""
        # Texts of a length together: padding costs as much as text.
        order = np.argsort([-len(text) for text in texts], kind="stable")
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for start in range(0, len(texts), _BATCH):
            rows = order[start : start + _BATCH]
            vectors[rows] = self._model.encode(
                [texts[row] for row in rows], batch_size=_BATCH, show_progress_bar=False, normalize_embeddings=True
            )
            if on_progress is not None:
                on_progress(min(start + _BATCH, len(texts)), len(texts))
        return vectors

    def states(self, texts: Sequence[str]) -> Iterator[TokenStates]:
        """What each token of each text means there, in the order of the texts; texts are cut at 128 tokens."""
        import torch

        for start in range(0, len(texts), _BATCH):
            batch = self._transformer.tokenizer(
                list(texts[start : start + _BATCH]),
                padding=True,
                truncation=True,
                max_length=_MOST_TOKENS,
                return_tensors="pt",
                return_offsets_mapping=True,
            )
            places = batch.pop("offset_mapping").numpy()
            with torch.inference_mode():
                hidden = self._transformer.auto_model(**batch).last_hidden_state.numpy()
            for ids, spans, rows in zip(batch["input_ids"].numpy(), places, hidden, strict=True):
                real = spans[:, 1] > spans[:, 0]
                yield TokenStates(ids[real], spans[real], rows[real])

    def token(self, number: int) -> str:
        """The token with this id."""
        return str(self._transformer.tokenizer.convert_ids_to_tokens(number))

    def embed_vocabulary(
        self, extra: Sequence[str], on_progress: Progress | None = None
    ) -> tuple[FloatArray, Tokenizer]:
        """Vectors of all tokens of the vocabulary and of ``extra`` words and phrases, each alone.

        Args:
            extra: Words, which join the vocabulary, and phrases with spaces, which become added tokens.
            on_progress: Told how many tokens are done.

        Returns:
            float32 (tokens, dim) in the order of the ids, and the tokenizer without truncation and padding.

        Raises:
            ModelError: The teacher's tokenizer cannot be used.

        Source:
            Model2Vec, https://github.com/MinishLab/model2vec
        """
        from model2vec.distill import distill_from_model

        # The model is changed on the way: its table follows the vocabulary.
        network = copy.deepcopy(self._transformer.auto_model)
        tokenizer = copy.deepcopy(self._transformer.tokenizer)
        # Some tokenizers fill every text up to a fixed length, and model2vec would let the teacher read the filling.
        tokenizer.backend_tokenizer.no_padding()
        total, done = len(self._transformer.tokenizer) + len(extra), 0

        def count(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            nonlocal done
            done = min(done + len(kwargs["input_ids"]), total)
            if on_progress is not None:
                on_progress(done, total)

        network.register_forward_pre_hook(count, with_kwargs=True)
        with _quiet():
            try:
                model = distill_from_model(
                    network,
                    tokenizer,
                    vocabulary=list(extra) or None,
                    device="cpu",
                    pca_dims=None,
                    sif_coefficient=None,
                    quantize_to="float32",
                    pooling=self.pooling,
                )
            except (KeyError, TypeError, ValueError, NotImplementedError) as error:
                raise ModelError(f"the tokenizer of {self.folder} cannot be used: {_first_line(error)}") from error
        ours = single_words(Tokenizer.from_str(model.tokenizer.to_str()))
        return self._finished(np.asarray(model.embedding, np.float32)), ours

    def _finished(self, pooled: FloatArray) -> FloatArray:
        """What the teacher does behind pooling (dense layers), done to each vector."""
        import torch

        with torch.inference_mode():
            features = {"sentence_embedding": torch.from_numpy(pooled)}
            for module in self._behind:
                features = module(features)
        return features["sentence_embedding"].numpy().astype(np.float32)


def single_words(tokenizer: Tokenizer) -> Tokenizer:
    """A copy whose added tokens stand for whole words only, without truncation and padding.

    ``not able`` must not be found in ``knot ables``.
    """
    parts = json.loads(tokenizer.to_str())
    for token in parts["added_tokens"]:
        if not token["special"]:
            token.update(single_word=True, lstrip=False, rstrip=False)
    changed = Tokenizer.from_str(json.dumps(parts))
    changed.no_truncation()
    changed.no_padding()
    return changed


def _pooling(modules: Sequence[Any], folder: Path) -> str:
    if len(modules) < 2 or type(modules[1]).__name__ != "Pooling":
        raise ModelError(f"{folder} is a sentence transformer without pooling, which cannot be distilled")
    config: dict[str, Any] = modules[1].get_config_dict()
    mode = config.get("pooling_mode")
    if mode is None:  # as sentence-transformers 5 says it
        on = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
        mode = (
            on[0].removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token") if len(on) == 1 else on
        )
    if not isinstance(mode, str) or mode not in _POOLINGS:
        raise ModelError(
            f"{folder} pools tokens by {mode}, which cannot be distilled; known are {', '.join(_POOLINGS)}"
        )
    return _POOLINGS[mode]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing on the terminal from the libraries: they warn of every word, and draw bars of their own."""
    from model2vec.distill import inference
    from transformers.utils import logging as hub_logging

    names = ("model2vec", "sentence_transformers", "transformers", "skeletoken")
    levels = {name: logging.getLogger(name).level for name in names}
    bar, drawn = getattr(inference, "tqdm", None), hub_logging.is_progress_bar_enabled()
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    hub_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if bar is not None:
        inference.tqdm = lambda *args, **kwargs: bar(*args, **{**kwargs, "disable": True})  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if drawn:
            hub_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
        if bar is not None:
            inference.tqdm = bar  # type: ignore[attr-defined]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
