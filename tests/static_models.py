"""Writes small static models in the formats that the encoder opens, and the texts that they are compared on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

NASTY = (
    "",
    " ",
    "\t\r\n \u00a0\u2003\u3000",
    "line one\r\nline two\rline three\n",
    "tab\tseparated\tvalues",
    "non\u00a0breaking\u202fspaces\u2009thin\u2028line\u2029paragraph\u1680ogham\u205fmath",
    "vertical\x0btab form\x0cfeed file\x1cgroup\x1drecord\x1eunit\x1fnext\x85line",
    "nul\x00byte bell\x07 escape\x1b[0m delete\x7f",
    "zero\u200bwidth join\u200der non\u200cjoiner word\u2060joiner \ufeffbom soft\u00adhyphen mongolian\u180evowel",
    "right\u200fto\u202eleft\u202c marks",
    "caf\u00e9 cafe\u0301 CAFE\u0301 \u0301alone e \u0301 a\u0323\u0307 \u1e69 \u212b \ufb01ligature",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8 \u4f60\u597d\u4e16\u754c mixed\u4e2dtext",
    "\ud55c\uad6d\uc5b4 \U00020000",
    "emoji \U0001f600 family \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "flag \U0001f1e9\U0001f1ea skin \U0001f44d\U0001f3fd",
    "[UNK] [SEP] the[SEP]object [CLS]first [MASK]. [unk] [Sep] [PAD][PAD] x[MASK",
    "[ SEP ] [SEP\u200b] [S\x0cEP] [UN\u00adK]",
    "under_score dash-ed don't e.g. a.b.c $1,000.00 50% #tag @name http://x.y/z?q=1&r=2 C++ <b>",
    "\u201ccurly\u201d \u2018quotes\u2019 \u2014 dash \u2026 \u00bf\u00a1 \u3001\u3002 \uff0c\uff1f \u066a \u0964",
    "\u0130stanbul \u0131 \u1e9e stra\u00dfe \u03a3\u03a3 \u039f\u0394\u03a5\u03a3\u03a3\u0395\u03a5\u03a3 \u01c5",
    "x" * 100,
    "x" * 101 + " after",
    "y" * 5000,
    "!" * 300,
    "\ufffd replacement \ufffe \uffff \ue000 \U0010ffff",
    "qzxj vwkq zzzyx \u16a0\u16b1 \u0e44\u0e17\u0e22",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1\u05e8\u05d9\u05ea \u0939\u093f\u0928\u094d\u0926\u0940",
    "function " * 10_000,
)


def texts() -> list[str]:
    """More than 1,000 texts: paragraphs of the language reference, and the nasty ones."""
    paragraphs = [paragraph for topic in topics.values() for paragraph in topic.split("\n\n") if len(paragraph) > 40]
    return [*NASTY, *paragraphs[:1000], "\n\n".join(paragraphs)]


def bert_tokenizer(vocabulary: int = 1200, added: Sequence[AddedToken | str] = (), **normalizer: bool) -> Tokenizer:
    """A WordPiece tokenizer trained on the language reference, as BERT sets it up."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(**normalizer)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(list(topics.values())[:30], trainer)
    tokenizer.add_tokens(list(added))
    return tokenizer


def word_tokenizer(words: Sequence[str]) -> Tokenizer:
    """A WordPiece tokenizer that knows ``[UNK]`` as 0 and the words from 1, in their order."""
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, **{w: i for i, w in enumerate(words, 1)}}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def random_table(tokenizer: Tokenizer, dim: int = 32, seed: int = 5) -> NDArray[np.float32]:
    """One random vector for each token."""
    return np.random.default_rng(seed).normal(size=(tokenizer.get_vocab_size(), dim)).astype(np.float32)


def write_own(folder: Path, tokenizer: Tokenizer, tensors: Mapping[str, NDArray[Any]], **config: object) -> Path:
    """Write a folder in the format of this project; ``config`` overrides single keys."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "format": "two-stage-static",
        "version": 1,
        "dim": int(tensors["embeddings"].shape[-1]),
        "unknown": "skip",
        "max_tokens": None,
        "normalize": True,
        "name": "tiny",
        **config,
    }
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file(dict(tensors), folder / "model.safetensors")
    return folder
