"""Model folders: whatever is in their files, they open as models or end as a ModelError."""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz import samples
from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.target import Check, Target, require_short
from benchmarks.fuzz.target_files import bent
from retrieval.encoders import StaticEncoder
from retrieval.errors import ModelError
from retrieval.rerankers import OnnxCrossEncoder
from retrieval.rerankers.pairs import PairTokenizer
from retrieval.token_tables.tensors import map_tensors

_TEXTS = ["copper pipes", "", "a" * 300, "\0 \u65e5\u672c [SEP]"]


def _patched(choices: Choices, whole: bytes) -> bytes:
    at, kind = choices.whole(0, 65535) % (len(whole) + 1), choices.byte() % 3
    new = choices.rest()
    return whole[:at] + new + (b"" if kind == 2 else whole[at + (len(new) if kind else 0) :])


def _header(choices: Choices, whole: bytes) -> bytes:
    """A safetensors file whose header is bent, or states another size."""
    size = int.from_bytes(whole[:8], "little")
    header = bent(choices, json.loads(whole[8 : 8 + size]), 8)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    stated = len(text) if not choices.chance(8) else choices.number() % 2**64
    return stated.to_bytes(8, "little") + text + whole[8 + size :]


def _tensors(folder: Path, stack: ExitStack) -> Check:
    samples.static_model(folder)
    path = folder / "model.safetensors"
    whole = path.read_bytes()

    def check(data: bytes) -> None:
        choices = Choices(data)
        path.write_bytes(_header(choices, whole) if choices.chance() else _patched(choices, whole))
        try:
            found = map_tensors(path)
        except ModelError as error:
            require_short(error, 20_000)
            return
        for array in found.values():
            assert array.nbytes <= path.stat().st_size
            np.asarray(array).sum()

    return check


def _json_file(choices: Choices, path: Path, whole: dict[str, Any]) -> None:
    if choices.chance(4):
        path.write_bytes(_patched(choices, json.dumps(whole).encode()))
    else:
        path.write_bytes(json.dumps(bent(choices, whole, 10)).encode("utf-8", "surrogatepass"))


def _static(folder: Path, stack: ExitStack) -> Check:
    """The whole folder: one of its files is changed."""
    samples.static_model(folder)
    names = ("config.json", "tokenizer.json", "model.safetensors")
    sound = {name: (folder / name).read_bytes() for name in names}

    def check(data: bytes) -> None:
        choices = Choices(data)
        name = choices.pick(names)
        for each, content in sound.items():
            (folder / each).write_bytes(content)
        if name == "model.safetensors":
            (folder / name).write_bytes(_header(choices, sound[name]))
        else:
            _json_file(choices, folder / name, json.loads(sound[name]))
        with suppress(ModelError):
            encoder = StaticEncoder.open(folder)
            rows = encoder.encode_documents(_TEXTS)
            assert rows.shape == (len(_TEXTS), encoder.dim)
            assert np.isfinite(rows).all()
            encoder.encode_queries(_TEXTS[:1])
            encoder.count_tokens(_TEXTS[0])

    return check


def _pairs(folder: Path, stack: ExitStack) -> Check:
    """The files beside the graph of a cross-encoder."""
    samples.pair_tokenizer(folder)
    names = ("config.json", "tokenizer.json", "tokenizer_config.json")
    sound = {name: json.loads((folder / name).read_bytes()) for name in names}

    def check(data: bytes) -> None:
        choices = Choices(data)
        name = choices.pick(names)
        for each, content in sound.items():
            (folder / each).write_text(json.dumps(content), encoding="utf-8")
        _json_file(choices, folder / name, sound[name])
        with suppress(ModelError):
            tokenizer = PairTokenizer(folder)
            pairs = tokenizer.encode("copper pipe", _TEXTS)
            assert all(len(pair.ids) <= tokenizer.max_tokens for pair in pairs)
            assert all(len(pair.ids) == len(pair.segments) for pair in pairs)
            tokenizer.readable_query("copper " * 100)

    return check


def _graph(folder: Path, stack: ExitStack) -> Check:
    """A graph opens, and reads two pairs, or is refused."""
    samples.pair_tokenizer(folder)
    whole, path = samples.graph(), folder / "model.onnx"

    def check(data: bytes) -> None:
        path.write_bytes(_patched(Choices(data), whole))
        with suppress(ModelError):
            scores = OnnxCrossEncoder(folder, threads=1).score("copper pipe", ["pipe", "star leak"])
            assert scores.shape == (2,)
            assert np.isfinite(scores).all()

    return check


TARGETS = [
    Target("safetensors", "ModelError, or arrays that lie in the file", _tensors, longest=120),
    Target("static model", "ModelError, or vectors that are finite", _static, longest=160),
    Target("tokenizer of pairs", "ModelError, or pairs within the length", _pairs, longest=160),
    Target("graph", "ModelError, or logits that are finite", _graph, longest=60, weight=0.7, extra="onnx"),
]
