"""Tokens of single words under a tokenizer of the BERT family, most of them without asking the tokenizer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

from retrieval.encoders.entries import Entries
from retrieval.token_tables.tokenizer_parts import tokenizer_parts

# Printable ASCII: BERT splits off every character that is neither a letter nor a digit.
_PIECES = re.compile(r"[0-9A-Za-z]+|[^0-9A-Za-z]")
# A regular expression tries one alternative after the other: of many added tokens only the beginnings are tried.
_MANY, _BEGINNING = 50, 4
# Copying the vocabulary takes as long as looking up some thousand words in the tokenizer: a search has fewer.
_WORDS_BEFORE_COPY = 2**13

_Find = Callable[[str], int | None]


def splits_into_words(tokenizer: Tokenizer) -> bool:
    """Whether the tokens of a text are those of its whitespace-delimited words, and of `spaced_entries`, in order.

    True for BERT's normalizer and splitter with WordPiece, unless an added token could be changed by the normalizer, or
    reach across whitespace in a way that `Entries` does not know.
    """
    parts = tokenizer_parts(tokenizer)
    kinds = [(parts[name] or {}).get("type") for name in ("normalizer", "pre_tokenizer", "model")]
    return kinds == ["BertNormalizer", "BertPreTokenizer", "WordPiece"] and all(
        token["content"].isascii()
        and token["content"].isprintable()
        and (" " not in token["content"] or _is_spaced_entry(token, parts["normalizer"]))
        for token in parts["added_tokens"]
    )


def _is_spaced_entry(token: dict[str, Any], normalizer: dict[str, Any]) -> bool:
    plain = " ".join(token["content"].split()) == token["content"]
    return bool(
        plain and token["normalized"] and not token["lstrip"] and not token["rstrip"] and normalizer["clean_text"]
    )


def spaced_entries(tokenizer: Tokenizer) -> Entries | None:
    """The added tokens that contain spaces, ``None`` when there are none."""
    contents = [token["content"] for token in tokenizer_parts(tokenizer)["added_tokens"] if " " in token["content"]]

    def normalize(word: str) -> str:
        normal: str = tokenizer.normalizer.normalize_str(_utf8(word))
        return normal

    return Entries(map(normalize, contents), normalize) if contents else None


def tokenize(texts: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    """Token ids of texts as the tokenizer gives them, without special tokens; works for lone surrogates too."""
    encodings = tokenizer.encode_batch_fast([_utf8(text) for text in texts], add_special_tokens=False)
    return [encoding.ids for encoding in encodings]


class BertWords:
    """Tokenizes words without whitespace, exactly as ``tokenizer`` does.

    A word of printable ASCII is cut into runs of letters and digits and single other characters, and WordPiece takes
    the longest match first, which needs no more than the vocabulary. Other words, and words in which an added token
    such as ``[SEP]`` may hide, go to the tokenizer.

    Args:
        tokenizer: One for which `splits_into_words` is true, without truncation and padding.

    Attributes:
        prefix: What continuations of a word begin with in the vocabulary.
        unknown: Id of a piece that the vocabulary cannot make, ``None`` when the tokenizer refuses it.
        lowercase: Whether words are looked up in lower case.
        longest: Characters of the longest word that is cut up; a longer one goes to the tokenizer.
        added: What single-word added tokens begin with, in lower case.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        parts = tokenizer_parts(tokenizer)
        self._tokenizer = tokenizer
        self._model = tokenizer.model
        self._asked = 0
        self.prefix = str(parts["model"]["continuing_subword_prefix"])
        self.unknown: int | None = self._model.token_to_id(parts["model"]["unk_token"])
        self.lowercase = bool(parts["normalizer"]["lowercase"])
        self.longest = int(parts["model"]["max_input_chars_per_word"])
        # Ignoring case is on the safe side: an added token may be matched before or after lowercasing.
        added = {token["content"].lower() for token in parts["added_tokens"] if " " not in token["content"]}
        if len(added) > _MANY:
            added = {content[:_BEGINNING] for content in added}
        self.added = frozenset(added)
        self._added = re.compile("|".join(map(re.escape, sorted(added))) or r"(?!)", re.IGNORECASE)

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Ids of all entries but added tokens."""
        vocabulary: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=False)
        return vocabulary

    @cached_property
    def _longest_entry(self) -> int:
        return max(map(len, self.vocabulary), default=1)

    def tokenize(self, words: Sequence[str]) -> list[list[int]]:
        """Token ids of each word."""
        cut = [self._cut(word) for word in words]
        whole = self._ask(word for word, pieces in zip(words, cut, strict=True) if pieces is None)
        self._asked += len(words)
        if self._asked > _WORDS_BEFORE_COPY:
            vocabulary, find, longest = self.vocabulary, self.vocabulary.get, self._longest_entry
        else:
            find, longest = self._model.token_to_id, self.longest
            different = {piece for pieces in cut if pieces for piece in pieces}
            vocabulary = {piece: token for piece in different if (token := find(piece)) is not None}
        rare = self._match_all(
            (piece for pieces in cut if pieces for piece in pieces if piece not in vocabulary), find, longest
        )
        return [
            whole[word]
            if pieces is None
            else [token for piece in pieces for token in ((vocabulary[piece],) if piece in vocabulary else rare[piece])]
            for word, pieces in zip(words, cut, strict=True)
        ]

    def _cut(self, word: str) -> list[str] | None:
        if len(word) > self.longest or not word.isascii() or not word.isprintable() or self._added.search(word):
            return None
        return _PIECES.findall(word.lower() if self.lowercase else word)

    def _match_all(self, pieces: Iterable[str], find: _Find, longest: int) -> dict[str, list[int]]:
        if self.unknown is None:
            return self._ask(pieces)
        return {piece: self._match(piece, self.unknown, find, longest) for piece in set(pieces)}

    def _match(self, piece: str, unknown: int, find: _Find, longest: int) -> list[int]:
        tokens: list[int] = []
        start, prefix = 0, ""
        while start < len(piece):
            for end in range(min(len(piece), start + longest), start, -1):
                if (token := find(prefix + piece[start:end])) is not None:
                    tokens.append(token)
                    break
            else:
                return [unknown]
            start, prefix = end, self.prefix
        return tokens

    def _ask(self, texts: Iterable[str]) -> dict[str, list[int]]:
        different = sorted(set(texts))
        return dict(zip(different, tokenize(different, self._tokenizer), strict=True))


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
