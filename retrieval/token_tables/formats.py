"""Opens the three folder formats of static models and keeps the rules that each of them comes with.

========================  ==================================  =====================  ==========================
format                    recognised by                       unknown tokens         tokens read of a text
========================  ==================================  =====================  ==========================
two-stage-static          ``format`` in config.json           as config.json says    as config.json says
model2vec                 tensor ``embeddings``               skipped                512, or as config.json says
sentence-transformers     tensor ``embedding.weight``         kept                   as tokenizer.json says: all
========================  ==================================  =====================  ==========================

A text vector has unit length in each of them, whatever the owning library would leave to the caller.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from retrieval.errors import ModelError
from retrieval.model_files import MAX_LENGTH, checked_file, read_model_json, read_tokenizer
from retrieval.token_tables.table import TokenTable
from retrieval.token_tables.tensors import map_tensors
from retrieval.token_tables.tokenizer_parts import tokenizer_parts
from retrieval.yaml_text import shown

Loader = Literal["two-stage", "model2vec", "sentence-transformers"]

FORMAT = "two-stage-static"
_MODEL2VEC_TOKENS = 512
_HASHED_WHOLE = 64 * 2**20
_SAMPLES, _SAMPLE_BYTES = 256, 2**16
_NAME_CHARACTERS = 200
_HUB_CACHE = re.compile(r"models--(.+?)--(.+)")


@dataclass(frozen=True, slots=True)
class Rules:
    """How a format turns a text into tokens.

    Args:
        loader: The format.
        skip: Id of the token that is left out of the vector, ``None`` to keep all.
        max_tokens: Tokens read of a text, ``None`` for all; skipped ones count.
        max_characters: Characters read of a text, ``None`` for all.
        keep_end: Whether ``max_tokens`` keeps the end of a text, not its beginning.
    """

    loader: Loader
    skip: int | None
    max_tokens: int | None = None
    max_characters: int | None = None
    keep_end: bool = False

    @property
    def unknown(self) -> Literal["skip", "keep"]:
        """What happens to unknown tokens."""
        return "keep" if self.skip is None else "skip"


@dataclass(frozen=True, slots=True, eq=False)
class StaticModel:
    """What a folder holds.

    Args:
        name: Name of the model.
        table: Token vectors.
        tokenizer: Tokenizer without truncation and padding.
        rules: Rules of the format.
        digest: First 12 hex digits of a SHA-256 over weights, tokenizer and rules.
    """

    name: str
    table: TokenTable
    tokenizer: Tokenizer
    rules: Rules
    digest: str


def open_static_model(folder: Path) -> StaticModel:
    """Open a folder in any of the three formats; weights stay on disk until they are used.

    The digest covers the whole weights up to 64 MiB. Of larger files it covers the size, and 256 blocks of 64 KiB
    spread evenly from the header to the end, so that opening a large table does not read it.

    Args:
        folder: The model folder.

    Raises:
        ModelError: A file is missing or malformed; the message names it.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder")
    files = _locate(folder)
    tensors = map_tensors(checked_file(files.weights, folder))
    tokenizer, truncation = _open_tokenizer(files.tokenizer, folder)
    config = read_model_json(files.config, folder) if files.config.exists() else {}
    if config.get("format") == FORMAT:
        table, rules = _own_table(files, tensors), _own_rules(files.config, config, tokenizer)
        _check_dim(files, config, table)
    elif "embeddings" in tensors:
        if "scales" in tensors or not files.config.exists():
            raise ModelError(
                f"{files.config} is missing or does not say format {FORMAT!r}, which {files.weights} needs"
            )
        table, rules = _model2vec_table(files, tensors), _model2vec_rules(files.config, config, tokenizer)
    elif "embedding.weight" in tensors:
        table, rules = TokenTable(tensors["embedding.weight"]), _sentence_transformers_rules(truncation)
    else:
        names = ", ".join(sorted(tensors)) or "nothing"
        raise ModelError(f"{files.weights} holds {names}, but neither 'embeddings' nor 'embedding.weight'")
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if not vocabulary:
        raise ModelError(f"{files.tokenizer} has an empty vocabulary")
    table.check(files.weights, tokens=max(vocabulary.values()) + 1)
    name = config.get("name") if config.get("format") == FORMAT else None
    return StaticModel(str(name or _name(folder))[:_NAME_CHARACTERS], table, tokenizer, rules, _digest(files, rules))


@dataclass(frozen=True, slots=True)
class _Files:
    weights: Path
    tokenizer: Path
    config: Path


def _locate(folder: Path) -> _Files:
    inner = folder
    modules = folder / "modules.json"
    if modules.exists():
        inner = folder / _static_module(modules, folder)
        if not inner.resolve().is_relative_to(folder.resolve()):
            raise ModelError(f"{modules} points outside of its folder, to {inner}")
    files = _Files(inner / "model.safetensors", inner / "tokenizer.json", folder / "config.json")
    if not files.weights.exists() and (inner / "pytorch_model.bin").exists():
        raise ModelError(
            f"{inner / 'pytorch_model.bin'} is a pickle, which can run code when it is opened; "
            "save the model again with sentence-transformers to get model.safetensors"
        )
    for path in (files.weights, files.tokenizer):
        if not path.is_file():
            raise ModelError(f"{path} is missing")
    return files


def _static_module(path: Path, folder: Path) -> str:
    modules = read_model_json(path, folder, list)
    try:
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
        places = [str(module["path"]) for module in modules]
    except (TypeError, KeyError) as error:
        raise ModelError(f"{path} is not a list of modules with a type and a path") from error
    if not kinds or kinds[0] != "StaticEmbedding" or set(kinds[1:]) - {"Normalize"}:
        listed = ", ".join(kinds) or "nothing"
        raise ModelError(f"{path} lists {listed}; a static model is StaticEmbedding, then perhaps Normalize")
    return places[0]


def _open_tokenizer(path: Path, folder: Path) -> tuple[Tokenizer, dict[str, Any] | None]:
    tokenizer = read_tokenizer(path, folder)
    truncation = tokenizer.truncation
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, truncation


def _own_table(files: _Files, tensors: dict[str, NDArray[Any]]) -> TokenTable:
    if "embeddings" not in tensors:
        raise ModelError(f"{files.weights} has no tensor 'embeddings'")
    embeddings, scales = tensors["embeddings"], tensors.get("scales")
    if embeddings.dtype == np.int8 and scales is None:
        raise ModelError(f"{files.weights} has int8 embeddings without 'scales'")
    return TokenTable(embeddings, weights=_as_weights(scales))


def _own_rules(path: Path, config: dict[str, Any], tokenizer: Tokenizer) -> Rules:
    if config.get("version") != 1:
        raise ModelError(f"{path}: version {config.get('version')!r} of {FORMAT} is not known, only 1")
    if config.get("normalize", True) is not True:
        raise ModelError(f"{path}: normalize is {config['normalize']!r}, but vectors always have unit length")
    unknown = config.get("unknown")
    if unknown not in ("skip", "keep"):
        raise ModelError(f"{path}: unknown is {shown(unknown)}, not 'skip' or 'keep'")
    limit = _token_limit(path, "max_tokens", config.get("max_tokens"))
    characters = _token_limit(path, "max_characters", config.get("max_characters"))
    skip = unknown_id(tokenizer) if unknown == "skip" else None
    return Rules("two-stage", skip, limit, characters, keep_end=config.get("keep_end") is True)


def _model2vec_table(files: _Files, tensors: dict[str, NDArray[Any]]) -> TokenTable:
    mapping = tensors.get("mapping")
    if mapping is not None and mapping.dtype.kind not in "iu":
        raise ModelError(f"{files.weights}: 'mapping' has dtype {mapping.dtype}, not integers")
    return TokenTable(
        tensors["embeddings"],
        weights=_as_weights(tensors.get("weights")),
        mapping=None if mapping is None else np.array(mapping, np.int64),
    )


def _model2vec_rules(path: Path, config: dict[str, Any], tokenizer: Tokenizer) -> Rules:
    limit = _token_limit(path, "max_length", config.get("max_length", _MODEL2VEC_TOKENS))
    median = int(np.median([len(token) for token in tokenizer.get_vocab()]))
    return Rules("model2vec", unknown_id(tokenizer), limit, None if limit is None else limit * median)


def _sentence_transformers_rules(truncation: dict[str, Any] | None) -> Rules:
    if truncation is None:
        return Rules("sentence-transformers", None)
    keep_end = str(truncation["direction"]).lower() == "left"
    return Rules("sentence-transformers", None, int(truncation["max_length"]), keep_end=keep_end)


def _as_weights(tensor: NDArray[Any] | None) -> NDArray[np.float32] | None:
    return None if tensor is None else np.array(tensor, np.float32)


def _token_limit(path: Path, key: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_LENGTH:
        raise ModelError(f"{path}: {key} is {shown(value)}, not null or a number of at least 1 and below 2^31")
    return value


def unknown_id(tokenizer: Tokenizer) -> int | None:
    """Id of the token that stands for everything outside the vocabulary, ``None`` when there is none."""
    model = tokenizer_parts(tokenizer)["model"]
    # Unigram has the id, all others the token.
    unknown: int | None = model.get("unk_id")
    if model.get("unk_token") is not None:
        unknown = tokenizer.token_to_id(model["unk_token"])
    return unknown


def _check_dim(files: _Files, config: dict[str, Any], table: TokenTable) -> None:
    if table.embeddings.ndim == 2 and config.get("dim") != table.embeddings.shape[1]:
        raise ModelError(
            f"{files.config}: dim is {config.get('dim')!r}, but 'embeddings' in {files.weights} has shape "
            f"{table.embeddings.shape}"
        )


def _name(folder: Path) -> str:
    resolved = folder.resolve()
    for part in reversed(resolved.parts):
        if match := _HUB_CACHE.fullmatch(part):
            return f"{match[1]}/{match[2]}"
    return resolved.name


def _digest(files: _Files, rules: Rules) -> str:
    digest = hashlib.sha256()
    with files.weights.open("rb") as file:
        size = files.weights.stat().st_size
        digest.update(str(size).encode())
        if size <= _HASHED_WHOLE:
            digest.update(file.read())
        else:
            for sample in range(_SAMPLES):
                file.seek((size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    digest.update(files.tokenizer.read_bytes())
    digest.update(repr((rules.loader, rules.skip, rules.max_tokens, rules.max_characters, rules.keep_end)).encode())
    return digest.hexdigest()[:12]
