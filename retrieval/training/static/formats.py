"""Writes a trained table as a folder of Model2Vec or of sentence-transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from retrieval.errors import MissingExtraError
from retrieval.training.table import StaticTable


def save_model2vec(table: StaticTable, folder: str | Path) -> None:
    """Write a folder for ``model2vec.StaticModel.from_pretrained``, which gives the same vectors.

    Args:
        table: The model.
        folder: Created when absent; files of the same names are replaced.

    Raises:
        MissingExtraError: model2vec is not installed.
        ValueError: The table counts unknown tokens or cuts texts in a way that Model2Vec does not.
    """
    try:
        from model2vec import StaticModel
    except ImportError as error:
        raise MissingExtraError("model2vec", "train", "writing a Model2Vec folder") from error
    rules, unknown = table.rules, table.unknown_id
    if rules.skip is None and unknown is not None and table.vectors[unknown].any():
        raise ValueError("Model2Vec leaves unknown tokens out, but this table gives them a vector")
    if (rules.max_tokens is not None and rules.loader != "model2vec") or rules.keep_end:
        raise ValueError(f"Model2Vec does not cut texts as this table does, to {rules.max_tokens} tokens")
    model = StaticModel(
        np.ascontiguousarray(table.vectors, np.float32), table.tokenizer, normalize=True, max_length=rules.max_tokens
    )
    model.save_pretrained(Path(folder))


def save_sentence_transformers(table: StaticTable, folder: str | Path) -> None:
    """Write a folder for ``SentenceTransformer(folder)``, which gives the same vectors.

    Tokens that do not count get a vector of zeros, because sentence-transformers adds up all of them.

    Args:
        table: The model.
        folder: Created when absent; files of the same names are replaced.

    Raises:
        ValueError: The table cuts texts by characters, which sentence-transformers does not.
    """
    from sentence_transformers import SentenceTransformer

    try:
        from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
    except ImportError:  # before 5.4
        from sentence_transformers.models import Normalize, StaticEmbedding  # type: ignore[no-redef]

    rules = table.rules
    if rules.max_characters is not None:
        raise ValueError(f"sentence-transformers does not cut texts to {rules.max_characters} characters")
    vectors = np.array(table.vectors, np.float32)
    if rules.skip is not None:
        vectors[rules.skip] = 0.0
    tokenizer = Tokenizer.from_str(table.tokenizer.to_str())
    if rules.max_tokens is not None:
        tokenizer.enable_truncation(rules.max_tokens, direction="left" if rules.keep_end else "right")
    Path(folder).mkdir(parents=True, exist_ok=True)
    model = SentenceTransformer(
        modules=[StaticEmbedding(tokenizer, embedding_weights=vectors), Normalize()], device="cpu"
    )
    model.save(str(folder), create_model_card=False)
