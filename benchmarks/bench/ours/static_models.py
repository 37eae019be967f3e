"""The static encoder of this project."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np

from retrieval.encoders import StaticEncoder
from retrieval.encoders.words import WordTokenizer
from retrieval.models import find_model


def open_system(*, texts: str) -> Ours:
    """Open the bundled model and read the texts, a JSON list of strings."""
    return Ours(json.loads(Path(texts).read_text(encoding="utf-8")))


class Ours:
    """One encoder that stays, so that it knows the words it has met."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts
        self._encoder = StaticEncoder.open(find_model("starter-static"))

    def forget(self) -> None:
        """Begin with an encoder that has met no word."""
        self._encoder = StaticEncoder.open(find_model("starter-static"))

    def encode(self) -> None:
        self._encoder.encode_documents(self._texts)

    def save(self, path: str) -> None:
        """Write the vectors, to compare them."""
        np.save(path, self._encoder.encode_documents(self._texts))

    def unequal_tokens(self) -> int:
        """How many of the texts do not get the very token ids that the tokenizers library gives them."""
        model = self._encoder.model
        ids, offsets = WordTokenizer(model.tokenizer).tokenize(self._texts)
        right = model.tokenizer.encode_batch_fast(self._texts, add_special_tokens=False)
        own = (ids[start:end].tolist() for start, end in pairwise(offsets.tolist()))
        return sum(ours != theirs.ids for ours, theirs in zip(own, right, strict=True))
