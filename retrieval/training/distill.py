"""Make a static model out of a sentence transformer, without any text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from tokenizers import Tokenizer

from retrieval.errors import MissingExtraError
from retrieval.training.table import StaticTable


@dataclass(frozen=True, slots=True)
class DistillSettings:
    """How a sentence transformer becomes a token table.

    Args:
        dim: Principal components that are kept.
        sif_coefficient: Weight of a token is ``a / (a + p)`` with ``p`` its Zipf probability; smaller damps frequent
            tokens more.
        normalize: Scale the table so that the root mean square of its entries is 1: learning rates then mean the same
            for every teacher.
    """

    dim: int = 256
    sif_coefficient: float = 1e-4
    normalize: bool = True


def distill(teacher: str | Path, settings: DistillSettings = DistillSettings()) -> StaticTable:
    """Run every token of the teacher's vocabulary through the teacher, reduce with PCA, and weigh by frequency.

    Args:
        teacher: Folder or hub name of a sentence transformer.
        settings: Dimensions and weighting.

    Returns:
        The table with the teacher's tokenizer.

    Raises:
        MissingExtraError: model2vec or transformers is not installed.

    Source:
        Model2Vec, https://github.com/MinishLab/model2vec
    """
    try:
        from model2vec.distill import distill_from_model
        from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast
    except ImportError as error:
        raise MissingExtraError(error.name or "model2vec", "train", "distillation") from error

    model = distill_from_model(
        AutoModel.from_pretrained(str(teacher)),
        cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(str(teacher))),
        device="cpu",
        pca_dims=settings.dim,
        sif_coefficient=settings.sif_coefficient,
        quantize_to="float32",
    )
    vectors = np.asarray(model.embedding, dtype=np.float32)
    if settings.normalize:
        vectors = vectors / np.sqrt(np.mean(vectors**2))
    tokenizer = Tokenizer.from_str(model.tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return StaticTable(vectors.astype(np.float32), tokenizer)
