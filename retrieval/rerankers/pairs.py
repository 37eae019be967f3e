"""Token ids of (query, text) pairs: the query first, and only the text is cut to fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Encoding

from retrieval.errors import ModelError
from retrieval.model_files import MAX_LENGTH, guarded, read_model_json, read_tokenizer

_CHARACTERS_PER_TOKEN = 64
_DEFAULT_LENGTH = 512
_PADDING_TOKENS = ("[PAD]", "<pad>", "<|padding|>")
# Families that count positions from one past the padding token, so that two positions cannot be used.
_SHIFTED_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "longformer"}


@dataclass(frozen=True, slots=True)
class Pair:
    """Token and segment ids of one pair, same length, without padding."""

    ids: list[int]
    segments: list[int]


@dataclass(frozen=True, slots=True)
class _Frame:
    """The special tokens around and between query and text, each with its segment."""

    before: Pair
    between: Pair
    after: Pair
    query_segment: int
    text_segment: int

    special: frozenset[int]

    @property
    def size(self) -> int:
        return len(self.before.ids) + len(self.between.ids) + len(self.after.ids)


class PairTokenizer:
    """Tokenizes pairs as the tokenizer of a cross-encoder would, with the query kept whole where possible.

    What spells a special token in a query or text (``[SEP]``) is read as ordinary words, or left out where the
    vocabulary has no others for it, so that a text cannot pretend to end and another to begin. Of query and text, at
    most 64 characters for each token that fits are looked at. Safe to call from several threads.

    Args:
        folder: Folder with ``tokenizer.json``, and ``config.json`` or ``tokenizer_config.json`` where they exist.
        max_tokens: Tokens of a pair; ``None`` for what the model was made for, which is also the limit.

    Raises:
        ModelError: A file is missing or malformed, or too few tokens are left for query and text.
    """

    def __init__(self, folder: Path, max_tokens: int | None = None) -> None:
        path = folder / "tokenizer.json"
        self._tokenizer = read_tokenizer(path, folder)
        config = read_model_config(folder)
        length = model_length(folder, config)
        self.max_tokens = length if max_tokens is None else min(max_tokens, length)
        self.pad_id = self._padding(config)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._frame = self._learn_frame(path)
        self._tokenizer.encode_special_tokens = True
        if self._room < 2:
            raise ModelError(f"{folder} reads {self.max_tokens} tokens, {self._frame.size} of them special: too few")

    @property
    def _room(self) -> int:
        return self.max_tokens - self._frame.size

    @property
    def _query_room(self) -> int:
        return min(self.max_tokens // 2, self._room - 1)

    def readable_query(self, query: str) -> str:
        """The beginning of the query that fits into half of ``max_tokens``; equal to ``query`` when all of it does."""
        text = self._bounded(query)
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        if len(encoding.ids) <= self._query_room:
            return query if len(text) == len(query) else query[: len(text)]
        return query[: encoding.offsets[self._query_room - 1][1]]

    def encode(self, query: str, texts: Sequence[str]) -> list[Pair]:
        """One pair for each text, in input order, each at most ``max_tokens`` long."""
        question = self._words(self._tokenizer.encode(self._bounded(query), add_special_tokens=False))
        question = question[: self._query_room]
        room = self._room - len(question)
        encodings = self._tokenizer.encode_batch([self._bounded(text) for text in texts], add_special_tokens=False)
        return [self._framed(question, self._words(encoding)[:room]) for encoding in encodings]

    def _words(self, encoding: Encoding) -> list[int]:
        special = self._frame.special
        return [number for number in encoding.ids if number not in special]

    def _framed(self, query: list[int], text: list[int]) -> Pair:
        frame = self._frame
        ids = [*frame.before.ids, *query, *frame.between.ids, *text, *frame.after.ids]
        segments = [
            *frame.before.segments,
            *([frame.query_segment] * len(query)),
            *frame.between.segments,
            *([frame.text_segment] * len(text)),
            *frame.after.segments,
        ]
        return Pair(ids, segments)

    def _bounded(self, text: str) -> str:
        # Lone surrogates, which JSON can hold and UTF-8 cannot, become question marks, one character each.
        return text[: self.max_tokens * _CHARACTERS_PER_TOKEN].encode("utf-8", "replace").decode("utf-8")

    def _learn_frame(self, path: Path) -> _Frame:
        sample = guarded(path, lambda: self._tokenizer.encode("a", "a"))
        parts = sample.sequence_ids
        if 0 not in parts or 1 not in parts or parts.index(0) > parts.index(1):
            raise ModelError(f"{path} does not put the query before the text; it is no tokenizer of a cross-encoder")
        first, second = parts.index(0), parts.index(1)
        query_end = first + parts.count(0)
        text_end = second + parts.count(1)

        def part(start: int, end: int) -> Pair:
            return Pair(sample.ids[start:end], sample.type_ids[start:end])

        return _Frame(
            part(0, first),
            part(query_end, second),
            part(text_end, len(parts)),
            sample.type_ids[first],
            sample.type_ids[second],
            frozenset(number for number, side in zip(sample.ids, parts, strict=True) if side is None),
        )

    def _padding(self, config: Mapping[str, Any]) -> int:
        stated = config.get("pad_token_id")
        if isinstance(stated, int) and 0 <= stated <= MAX_LENGTH:
            return stated
        if self._tokenizer.padding:
            return int(self._tokenizer.padding["pad_id"])
        known = (self._tokenizer.token_to_id(token) for token in _PADDING_TOKENS)
        return next((number for number in known if number is not None), 0)


def model_length(folder: Path, config: Mapping[str, Any]) -> int:
    """Tokens of a pair that a model was made for.

    Args:
        folder: Folder of the model; its ``tokenizer_config.json`` is looked at.
        config: Content of its ``config.json``, empty when there is none.

    Returns:
        ``max_length`` of ``config.json`` where it stands, otherwise the smaller of what tokenizer and positions allow,
        512 when neither says.

    Raises:
        ModelError: ``tokenizer_config.json`` is malformed, or the length is not a number above 0.
    """
    stated = config.get("max_length") if config.get("format") == "two-stage-reranker" else None
    tokenizer = _read_json(folder, "tokenizer_config.json")
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and str(config.get("model_type")) in _SHIFTED_POSITIONS:
        positions -= 2
    # Tokenizers without a limit state about 1e30.
    limits = [stated] if stated is not None else [tokenizer.get("model_max_length"), positions]
    usable = [limit for limit in limits if limit is not None and not (isinstance(limit, int | float) and limit > 1e9)]
    for limit in usable:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ModelError(f"{folder} states a length of {limit!r} tokens, not a whole number above 0")
    return min(usable, default=_DEFAULT_LENGTH)


def read_model_config(folder: Path) -> Mapping[str, Any]:
    """Content of ``config.json``, empty when there is none.

    Raises:
        ModelError: It is not readable JSON, or not an object.
    """
    return _read_json(folder, "config.json")


def _read_json(folder: Path, name: str) -> Mapping[str, Any]:
    path = folder / name
    content: Mapping[str, Any] = read_model_json(path, folder) if path.is_file() else {}
    return content
