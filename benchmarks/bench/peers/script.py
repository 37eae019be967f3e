"""The script that one writes with sentence-transformers: static vectors, exact search, a cross-encoder over 100.

Each ranker is a function of a query and texts that gives one score a text; `FlashRank` and `fastembed` run the graph of
the same cross-encoder, so the script is shown in its quickest forms too.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Ranker = Callable[[str, Sequence[str]], "np.ndarray[Any, Any]"]


def open_system(
    *, static: str, reranker: str, corpus: str, kind: str = "torch", max_length: int = 512, threads: int | None = None
) -> Script:
    """Load both models and encode the corpus.

    Args:
        static: Folder of the static model, as sentence-transformers opens it.
        reranker: Folder that `reranker_folder.write_folders` wrote.
        corpus: JSON Lines with ``id`` and ``text``.
        kind: One of `RANKERS`.
        max_length: Tokens of a pair that torch reads.
        threads: Of torch; ``None`` leaves them to it.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    return Script(Path(static), Path(corpus), RANKERS[kind](Path(reranker), max_length))


class Script:
    """First the 100 nearest passages of all, then a score for each pair of query and passage."""

    def __init__(self, static: Path, corpus: Path, ranker: Ranker) -> None:
        from sentence_transformers import SentenceTransformer

        with corpus.open(encoding="utf-8") as lines:
            records = [json.loads(line) for line in lines]
        self._ids = [record["id"] for record in records]
        self._texts = [record["text"] for record in records]
        self._encoder = SentenceTransformer(str(static), device="cpu")
        self._vectors = self._encoder.encode(self._texts, convert_to_tensor=True, show_progress_bar=False)
        self._rank = ranker

    def search(self, query: str, depth: int = 100, keep: int = 10) -> dict[str, Any]:
        """The best passages: ids, scores and the milliseconds of both stages.

        Args:
            query: The question.
            depth: How many passages of the first stage are read.
            keep: How many are returned.
        """
        from sentence_transformers import util

        started = time.perf_counter()
        asked = self._encoder.encode(query, convert_to_tensor=True, show_progress_bar=False)
        found = [int(hit["corpus_id"]) for hit in util.semantic_search(asked, self._vectors, top_k=depth)[0]]
        between = time.perf_counter()
        scores = np.asarray(self._rank(query, [self._texts[place] for place in found]), np.float64)
        best = np.argsort(-scores, kind="stable")[:keep]
        ended = time.perf_counter()
        return {
            "ids": [self._ids[found[place]] for place in best],
            "scores": [round(float(scores[place]), 5) for place in best],
            "first_stage_ms": (between - started) * 1000,
            "rerank_ms": (ended - between) * 1000,
        }

    def all_scores(self, query: str, depth: int = 100) -> dict[str, Any]:
        """The passages of the first stage in its order, each with the score of the cross-encoder."""
        from sentence_transformers import util

        asked = self._encoder.encode(query, convert_to_tensor=True, show_progress_bar=False)
        found = [int(hit["corpus_id"]) for hit in util.semantic_search(asked, self._vectors, top_k=depth)[0]]
        scores = self._rank(query, [self._texts[place] for place in found])
        return {"ids": [self._ids[place] for place in found], "scores": [round(float(score), 5) for score in scores]}

    def score(self, query: str, texts: list[str]) -> list[float]:
        """Scores of texts that are given."""
        return [float(score) for score in self._rank(query, texts)]


def torch_ranker(folder: Path, max_length: int, dtype: str | None = None) -> Ranker:
    """`CrossEncoder` with its own batches, padding and order; raw logits."""
    from sentence_transformers import CrossEncoder
    from torch.nn import Identity

    from benchmarks.bench.peers.starter_network import register

    register()
    options = {"model_kwargs": {"dtype": dtype}} if dtype else {}
    model = CrossEncoder(str(folder / "torch"), device="cpu", max_length=max_length, **options)
    return lambda query, texts: model.predict(
        [(query, text) for text in texts], activation_fn=Identity(), show_progress_bar=False
    )


def plain_ranker(folder: Path, max_length: int) -> Ranker:
    """The same with a plain BERT of the same sizes and random weights: what it takes, not what it finds."""
    import tempfile

    from sentence_transformers import CrossEncoder
    from torch.nn import Identity
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    settings = json.loads((folder / "torch" / "config.json").read_text(encoding="utf-8"))
    words, width = settings["tensors"]["embeddings__word_embeddings__weight"]
    shape = BertConfig(
        vocab_size=words,
        hidden_size=width,
        num_hidden_layers=settings["network"]["layers"],
        num_attention_heads=settings["network"]["heads"],
        intermediate_size=settings["tensors"]["encoder__layer__0__intermediate__dense__weight"][0],
        num_labels=1,
    )
    with tempfile.TemporaryDirectory() as target:
        BertForSequenceClassification(shape).save_pretrained(target)
        AutoTokenizer.from_pretrained(folder / "torch").save_pretrained(target)
        model = CrossEncoder(target, device="cpu", max_length=max_length)
    return lambda query, texts: model.predict(
        [(query, text) for text in texts], activation_fn=Identity(), show_progress_bar=False
    )


def fastembed_ranker(folder: Path, max_length: int) -> Ranker:
    """`TextCrossEncoder` of fastembed over the graph of 8 bits; it always reads what the tokenizer allows, 512."""
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    TextCrossEncoder.add_custom_model("local/starter", sources=ModelSource(hf="local/starter"), model_file="model.onnx")
    model = TextCrossEncoder(
        "local/starter", specific_model_path=str(folder / "fastembed"), local_files_only=True, threads=os.cpu_count()
    )
    return lambda query, texts: np.fromiter(model.rerank(query, texts), np.float64, len(texts))


def flashrank_ranker(folder: Path, max_length: int) -> Ranker:
    """`Reranker` of rerankers with FlashRank, over the same graph under the name of a model that FlashRank knows."""
    from rerankers import Reranker

    model = Reranker("ms-marco-MiniLM-L-12-v2", model_type="flashrank", cache_dir=str(folder / "flashrank"), verbose=0)

    def rank(query: str, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        scores = np.empty(len(texts))
        for result in model.rank(query, list(texts), doc_ids=list(range(len(texts)))).results:
            scores[result.document.doc_id] = result.score
        return scores

    return rank


RANKERS: dict[str, Callable[[Path, int], Ranker]] = {
    "torch": torch_ranker,
    "torch bfloat16": lambda folder, length: torch_ranker(folder, length, "bfloat16"),
    "plain": plain_ranker,
    "fastembed": fastembed_ranker,
    "flashrank": flashrank_ranker,
}
