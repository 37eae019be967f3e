"""What a tokenizer is made of, without its vocabulary, of which the text would take long to write and to read."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer

_SETTINGS = {
    "WordPiece": ("unk_token", "continuing_subword_prefix", "max_input_chars_per_word"),
    "WordLevel": ("unk_token",),
    "BPE": ("unk_token",),
}
_FLAGS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")


def tokenizer_parts(tokenizer: Tokenizer) -> dict[str, Any]:
    """The keys ``normalizer``, ``pre_tokenizer``, ``model`` and ``added_tokens`` as in tokenizer.json.

    Of the model there are the type and the settings: of WordPiece, WordLevel and BPE those that `_SETTINGS` names, of
    others all there is, the vocabulary included.
    """
    model = tokenizer.model
    kind = type(model).__name__
    if kind not in _SETTINGS:
        parts: dict[str, Any] = json.loads(tokenizer.to_str())
        return parts
    added = sorted(tokenizer.get_added_tokens_decoder().items())
    return {
        "normalizer": _state(tokenizer.normalizer),
        "pre_tokenizer": _state(tokenizer.pre_tokenizer),
        "model": {"type": kind, **{name: getattr(model, name) for name in _SETTINGS[kind]}},
        "added_tokens": [{"id": number, **{flag: getattr(token, flag) for flag in _FLAGS}} for number, token in added],
    }


def _state(part: Any) -> Any:
    return None if part is None else json.loads(part.__getstate__())
