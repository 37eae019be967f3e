"""A bigger encoder that a static model may learn from while it is adapted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from retrieval.datatypes import EncoderFingerprint, FloatArray
from retrieval.encoders import StaticEncoder
from retrieval.errors import ModelError
from retrieval.models import find_model
from retrieval.protocols import Encoder


def open_teacher(name_or_path: str) -> Encoder:
    """Open a static model or a sentence transformer to learn from.

    Args:
        name_or_path: Bundled name, folder, or hub name.

    Raises:
        ModelError: It is not found, or is neither.
        MissingExtraError: It is a transformer, and a package for those is not installed.
    """
    folder = find_model(name_or_path)
    try:
        return StaticEncoder.open(folder)
    except ModelError:
        return TransformerTeacher(folder)


class TransformerTeacher:
    """A sentence transformer as an `Encoder`.

    Args:
        folder: Its folder.

    Raises:
        ModelError: The folder does not hold a sentence transformer.
        MissingExtraError: A package for transformers is not installed.
    """

    def __init__(self, folder: Path) -> None:
        from retrieval.training.teacher import Teacher

        self._teacher = Teacher(folder)
        self._name = folder.name

    @property
    def dim(self) -> int:
        """Dimensions of its vectors."""
        return self._teacher.dim

    @property
    def fingerprint(self) -> EncoderFingerprint:
        """Its name; the weights are not read for it."""
        return EncoderFingerprint(self._name, "", "sentence-transformers", "keep", None, self.dim, True)

    def encode_queries(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of queries, the same as those of documents."""
        return self.encode_documents(texts)

    def encode_documents(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of texts at unit length, float32 (texts, dim)."""
        if isinstance(texts, str):
            raise TypeError("texts is a sequence of strings, not one string; put it in a list")
        return self._teacher.encode(texts)

    def count_tokens(self, text: str) -> int:
        """Number of words; a teacher cuts no documents."""
        return len(text.split())
