"""A tokenizer trained on texts, and vectors for its tokens taken from another model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from retrieval.datatypes import FloatArray
from retrieval.training.table import StaticTable

TokenizerKind = Literal["wordpiece", "bpe"]

_UNKNOWN = "[UNK]"
_LEAST = 300  # the 256 bytes of a byte-level vocabulary, and a few merges


def train_tokenizer(texts: Iterable[str], size: int, kind: TokenizerKind = "wordpiece") -> Tokenizer:
    """Train a tokenizer.

    ``wordpiece`` splits as BERT does, lower-cased and without accents: for English and other languages that put blanks
    between words; our encoder is fastest with it. ``bpe`` works on the bytes of lower-cased text: for every script,
    and no character is unknown.

    Args:
        texts: Read once.
        size: Most tokens, special ones included; fewer when the texts have no more.
        kind: See above.

    Returns:
        A tokenizer without truncation and padding.

    Raises:
        ValueError: ``size`` is below 300, or the texts hold nothing to learn from.
    """
    if size < _LEAST:
        raise ValueError(f"a tokenizer has at least {_LEAST} tokens, not {size}")
    if kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token=_UNKNOWN))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=[_UNKNOWN], show_progress=False)
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() <= (1 if kind == "wordpiece" else len(pre_tokenizers.ByteLevel.alphabet())):
        raise ValueError("there is no text to train a tokenizer on")
    return tokenizer


def random_vectors(tokens: int, dim: int, seed: int) -> FloatArray:
    """Normal vectors, float32 (tokens, dim)."""
    return np.random.default_rng(seed).standard_normal((tokens, dim)).astype(np.float32)


def transfer_vectors(table: StaticTable, tokenizer: Tokenizer, seed: int) -> FloatArray:
    """Vectors for the tokens of another tokenizer.

    A token that the table has too keeps its vector; another gets the sum of the vectors of its pieces; one without any
    known piece gets a short random vector.

    Args:
        table: The model to take from.
        tokenizer: The new tokenizer.
        seed: Of the random vectors.

    Returns:
        float32 (tokens of ``tokenizer``, dim).
    """
    names = sorted(tokenizer.get_vocab(), key=tokenizer.token_to_id)
    old = table.tokenizer.get_vocab()
    shown = [_text_of(tokenizer, name) for name in names]
    pieces = table.tokenize(shown)
    scale = 0.1 * float(np.sqrt(np.mean(table.vectors**2)))
    vectors = random_vectors(len(names), table.vectors.shape[1], seed) * scale
    same_kind = type(tokenizer.model) is type(table.tokenizer.model)
    for row, (name, ids) in enumerate(zip(names, pieces, strict=True)):
        if same_kind and name in old:
            vectors[row] = table.vectors[old[name]]
        elif ids:
            vectors[row] = table.vectors[ids].sum(axis=0)
    return vectors


def _text_of(tokenizer: Tokenizer, name: str) -> str:
    """What a token stands for, as text."""
    if isinstance(tokenizer.model, models.WordPiece):
        return name.removeprefix("##")
    return str(tokenizer.decoder.decode([name])).strip()
