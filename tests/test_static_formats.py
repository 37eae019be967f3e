"""Folders of all three formats: vectors equal those of the owning library, malformed folders are refused by name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from retrieval.encoders import StaticEncoder
from retrieval.errors import ModelError
from tests import static_models

TEXTS = static_models.texts()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return static_models.bert_tokenizer()


def unigram_tokenizer() -> Tokenizer:
    pieces = ["<unk>", "\u2581", *(f"\u2581{word}" for word in ["the", "a", "function", "object", "of", "to", "is"])]
    letters = "abcdefghijklmnopqrstuvwxyz.,"
    tokenizer = Tokenizer(models.Unigram([(p, -float(i)) for i, p in enumerate([*pieces, *letters])], unk_id=0))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def assert_same_directions(ours: NDArray[Any], theirs: NDArray[Any]) -> None:
    theirs = np.nan_to_num(theirs.astype(np.float64))
    norms = np.linalg.norm(theirs, axis=1)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(~ours.any(axis=1), norms == 0)
    known = norms > 0
    assert known.sum() >= 1000
    cosines = (ours[known] * theirs[known]).sum(axis=1) / norms[known]
    assert cosines.min() >= 0.99999
    np.testing.assert_allclose(np.linalg.norm(ours[known], axis=1), 1, atol=1e-6)


MODEL2VEC: dict[str, Callable[[NDArray[np.float32]], dict[str, Any]]] = {
    "float32": lambda table: {"vectors": table, "normalize": True},
    "float16": lambda table: {"vectors": table.astype(np.float16), "normalize": True},
    "int8": lambda table: {"vectors": np.rint(table * 30).astype(np.int8), "normalize": True},
    "not-normalized": lambda table: {"vectors": table, "normalize": False},
    "weights": lambda table: {"vectors": table, "weights": np.linspace(0.1, 2, len(table)), "normalize": True},
    "mapping": lambda table: {
        "vectors": table[:50],
        "token_mapping": np.arange(len(table)) * 7 % 50,
        "weights": np.linspace(2, 0.1, len(table)).astype(np.float32),
        "normalize": True,
    },
    "everything-read": lambda table: {"vectors": table, "max_length": None},
    "sixteen-tokens": lambda table: {"vectors": table, "max_length": 16},
}


@pytest.mark.parametrize("variant", MODEL2VEC)
def test_model2vec(variant: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    from model2vec import StaticModel

    settings = MODEL2VEC[variant](static_models.random_table(tokenizer))
    StaticModel(tokenizer=tokenizer, **settings).save_pretrained(tmp_path / "model")
    theirs = StaticModel.from_pretrained(tmp_path / "model").encode(TEXTS)
    encoder = StaticEncoder.open(tmp_path / "model")
    assert_same_directions(encoder.encode_documents(TEXTS), theirs)
    fingerprint = encoder.fingerprint
    assert (fingerprint.name, fingerprint.loader, fingerprint.unknown) == ("model", "model2vec", "skip")
    assert fingerprint.max_tokens == {"everything-read": None, "sixteen-tokens": 16}.get(variant, 512)


def test_model2vec_without_recent_keys(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from model2vec import StaticModel

    StaticModel(static_models.random_table(tokenizer), tokenizer, normalize=True).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"tokenizer_name": "x/y", "apply_pca": 32, "normalize": true}')
    (tmp_path / "modules.json").unlink()
    theirs = StaticModel.from_pretrained(tmp_path).encode(TEXTS)
    encoder = StaticEncoder.open(tmp_path)
    assert_same_directions(encoder.encode_documents(TEXTS), theirs)
    assert encoder.fingerprint.max_tokens == 512


def test_model2vec_with_a_unigram_tokenizer(tmp_path: Path) -> None:
    from model2vec import StaticModel

    tokenizer = unigram_tokenizer()
    StaticModel(static_models.random_table(tokenizer), tokenizer, normalize=True).save_pretrained(tmp_path)
    theirs = StaticModel.from_pretrained(tmp_path).encode(TEXTS)
    assert_same_directions(StaticEncoder.open(tmp_path).encode_documents(TEXTS), theirs)


@pytest.mark.parametrize("layout", ["root", "nested", "normalized", "truncated", "truncated-left"])
def test_sentence_transformers(layout: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding

    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    if layout.startswith("truncated"):
        tokenizer.enable_truncation(20, direction="left" if layout == "truncated-left" else "right")
    modules = [StaticEmbedding(tokenizer, embedding_weights=static_models.random_table(tokenizer))]
    model = SentenceTransformer(modules=[*modules, *([Normalize()] if layout == "normalized" else [])], device="cpu")
    model.save(str(tmp_path / "model"), create_model_card=False)
    if layout == "nested":
        nest(tmp_path / "model")
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(TEXTS, show_progress_bar=False)
    encoder = StaticEncoder.open(tmp_path / "model")
    assert_same_directions(encoder.encode_documents(TEXTS), theirs)
    fingerprint = encoder.fingerprint
    assert (fingerprint.loader, fingerprint.unknown) == ("sentence-transformers", "keep")
    assert fingerprint.max_tokens == (20 if layout.startswith("truncated") else None)


def nest(folder: Path) -> None:
    """As the models on the hub have it: the module in its own folder."""
    module = folder / "0_StaticEmbedding"
    module.mkdir()
    for name in ("model.safetensors", "tokenizer.json"):
        os.replace(folder / name, module / name)
    listed = [{"idx": 0, "name": "0", "path": module.name, "type": "sentence_transformers.models.StaticEmbedding"}]
    (folder / "modules.json").write_text(json.dumps(listed), encoding="utf-8")


@pytest.mark.parametrize("dtype", ["int8", "float16", "float32"])
@pytest.mark.parametrize("unknown", ["skip", "keep"])
def test_own_format(dtype: str, unknown: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    table = static_models.random_table(tokenizer)
    tensors: dict[str, NDArray[Any]] = {"embeddings": table.astype(dtype)}
    if dtype == "int8":
        tensors = {"embeddings": np.rint(table * 30).astype(np.int8), "scales": np.linspace(0.1, 2, len(table))}
        tensors["scales"] = tensors["scales"].astype(np.float32)
        table = tensors["embeddings"] * tensors["scales"][:, None]
    encoder = StaticEncoder.open(static_models.write_own(tmp_path, tokenizer, tensors, unknown=unknown))
    skipped = tokenizer.token_to_id("[UNK]") if unknown == "skip" else -1
    expected = np.zeros((len(TEXTS), table.shape[1]))
    for row, encoding in enumerate(tokenizer.encode_batch(TEXTS, add_special_tokens=False)):
        ids = [token for token in encoding.ids if token != skipped]
        expected[row] = table[ids].astype(np.float64).sum(axis=0)
    assert_same_directions(encoder.encode_documents(TEXTS), expected)
    assert encoder.fingerprint.loader == "two-stage"
    assert encoder.fingerprint.unknown == unknown


def test_digest_changes_with_weights_tokenizer_and_rules_only(tmp_path: Path) -> None:
    tokenizer = static_models.word_tokenizer(["red", "blue"])
    table = np.eye(3, dtype=np.float32)

    def digest(folder: str, words: Tokenizer, weights: NDArray[np.float32], **config: object) -> str:
        path = static_models.write_own(tmp_path / folder, words, {"embeddings": weights}, **config)
        return StaticEncoder.open(path).fingerprint.digest

    first = digest("a", tokenizer, table)
    assert len(first) == 12
    assert digest("b", tokenizer, table, name="other") == first
    others = [
        digest("c", tokenizer, table + 1),
        digest("d", static_models.word_tokenizer(["red", "green"]), table),
        digest("e", tokenizer, table, unknown="keep"),
        digest("f", tokenizer, table, max_tokens=3),
    ]
    assert len({first, *others}) == 5


def test_digest_of_a_large_file_sees_its_ends(tmp_path: Path) -> None:
    tokenizer = static_models.word_tokenizer(["red", "blue"])
    table = np.zeros((70_000, 256), np.float32)
    digests = []
    for row, value in ((0, 0), (0, 1), (len(table) - 1, 1)):
        changed = table.copy()
        changed[row] = value
        folder = static_models.write_own(tmp_path, tokenizer, {"embeddings": changed})
        digests.append(StaticEncoder.open(folder).fingerprint.digest)
    assert len(set(digests)) == 3


def test_large_table_gives_the_same_vectors_as_a_small_one(tokenizer: Tokenizer, tmp_path: Path) -> None:
    small = static_models.random_table(tokenizer, dim=256)
    large = np.concatenate([small, np.zeros((70_000, 256), np.float32)])
    expected = StaticEncoder.open(static_models.write_own(tmp_path / "a", tokenizer, {"embeddings": small}))
    encoder = StaticEncoder.open(static_models.write_own(tmp_path / "b", tokenizer, {"embeddings": large}))
    np.testing.assert_array_equal(encoder.encode_documents(TEXTS), expected.encode_documents(TEXTS))


def test_name_comes_from_the_hub_cache(tmp_path: Path) -> None:
    tokenizer = static_models.word_tokenizer(["red", "blue"])
    folder = tmp_path / "models--minishlab--potion-base-8M" / "snapshots" / "dcbec7aa2d52fc76754ac6291803feedd8c619ce"
    tensors = {"embeddings": np.eye(3, dtype=np.float32)}
    assert StaticEncoder.open(static_models.write_own(folder, tokenizer, tensors, name=None)).fingerprint.name == (
        "minishlab/potion-base-8M"
    )


# What is done to a good folder, and what the message says.
MALFORMED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors is missing"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"tokenizer\.json is missing"),
    "no config": (lambda f: (f / "config.json").unlink(), r"config\.json is missing"),
    "broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{"), r"tokenizer\.json is not a tokenizer"),
    "broken config": (lambda f: (f / "config.json").write_text("{"), r"config\.json is not readable JSON"),
    "binary config": (lambda f: (f / "config.json").write_bytes(b"\xff\x00"), r"config\.json is not readable JSON"),
    "list as config": (lambda f: (f / "config.json").write_text("[]"), r"config\.json holds a list, not a dict"),
    "truncated": (lambda f: os.truncate(f / "model.safetensors", 90), r"model\.safetensors is not a complete"),
    "empty weights": (lambda f: os.truncate(f / "model.safetensors", 0), r"model\.safetensors is not a complete"),
    "not safetensors": (lambda f: (f / "model.safetensors").write_bytes(b"x" * 99), r"safetensors is not a complete"),
    "one dimension": (lambda f: tensors(f, embeddings=np.ones(3, np.float32)), r"shape \(3,\)"),
    "no rows": (lambda f: tensors(f, embeddings=np.ones((0, 3), np.float32)), r"shape \(0, 3\)"),
    "too few rows": (lambda f: tensors(f, embeddings=np.ones((2, 3), np.float32)), "vectors for 2 tokens.*ids up to 2"),
    "not a number": (lambda f: tensors(f, embeddings=np.diag([1, np.nan, 1]).astype("f4")), "row 1 .* not finite"),
    "infinite": (lambda f: tensors(f, embeddings=np.diag([1, 1, np.inf]).astype("f2")), "row 2 .* not finite"),
    "no scales": (lambda f: tensors(f, embeddings=np.ones((3, 3), np.int8)), "int8 embeddings without 'scales'"),
    "short scales": (lambda f: scaled(f, np.ones(2, np.float32)), r"token weights have shape \(2,\)"),
    "scale not a number": (
        lambda f: scaled(f, np.array([1, 1, np.nan], np.float32)),
        "weight of token 2 is not finite",
    ),
    "wrong tensor": (lambda f: tensors(f, vectors=np.ones((3, 3), np.float32)), "no tensor 'embeddings'"),
    "wrong dtype": (lambda f: tensors(f, embeddings=np.ones((3, 3), bool)), "'embeddings' has dtype BOOL"),
    "wrong dim": (lambda f: configure(f, dim=4), r"config\.json: dim is 4"),
    "next version": (lambda f: configure(f, version=2), "version 2"),
    "unknown rule": (lambda f: configure(f, unknown="drop"), "unknown is 'drop'"),
    "negative limit": (lambda f: configure(f, max_tokens=-1), "max_tokens is -1"),
    "limit in words": (lambda f: configure(f, max_tokens="many"), "max_tokens is 'many'"),
    "not normalized": (lambda f: configure(f, normalize=False), "normalize is False"),
    "modules no list": (lambda f: (f / "modules.json").write_text("{}"), r"modules\.json holds a dict"),
    "modules of strings": (
        lambda f: (f / "modules.json").write_text('["x"]'),
        r"modules\.json is not a list of modules",
    ),
    "transformer": (lambda f: modules(f, "Transformer", ""), "lists Transformer"),
    "outside": (lambda f: modules(f, "StaticEmbedding", "../.."), "points outside"),
    "not there": (lambda f: modules(f, "StaticEmbedding", "0_Static"), r"0_Static.model\.safetensors is missing"),
}


def tensors(folder: Path, **arrays: NDArray[Any]) -> None:
    save_file(arrays, folder / "model.safetensors")


def scaled(folder: Path, scales: NDArray[np.float32]) -> None:
    tensors(folder, embeddings=np.ones((3, 3), np.int8), scales=scales)


def configure(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def modules(folder: Path, kind: str, path: str) -> None:
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": path, "type": f"x.{kind}"}]))


@pytest.mark.parametrize("fault", MALFORMED)
def test_malformed_folder(fault: str, tmp_path: Path) -> None:
    damage, message = MALFORMED[fault]
    tokenizer = static_models.word_tokenizer(["red", "blue"])
    folder = static_models.write_own(tmp_path / "model", tokenizer, {"embeddings": np.eye(3, dtype=np.float32)})
    StaticEncoder.open(folder)
    damage(folder)
    with pytest.raises(ModelError, match=message) as raised:
        StaticEncoder.open(folder)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mapping": np.array([0, 1, 9])}, "'mapping' points outside of the 3 rows"),
        ({"mapping": np.array([0, -1, 2])}, "'mapping' points outside of the 3 rows"),
        ({"mapping": np.array([0.0, 1.0, 2.0])}, "'mapping' has dtype float64"),
        ({"mapping": np.array([0, 1])}, "vectors for 2 tokens"),
        ({"weights": np.ones((3, 1))}, r"token weights have shape \(3, 1\)"),
    ],
)
def test_malformed_quantized_vocabulary(changes: dict[str, NDArray[Any]], message: str, tmp_path: Path) -> None:
    from model2vec import StaticModel

    StaticModel(np.eye(3, dtype=np.float32), static_models.word_tokenizer(["red", "blue"])).save_pretrained(tmp_path)
    StaticEncoder.open(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({**load_file(path), **changes}, path)
    with pytest.raises(ModelError, match=message):
        StaticEncoder.open(tmp_path)


def test_pickled_weights_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(ModelError, match="pickle"):
        StaticEncoder.open(tmp_path)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing-here is not a folder"):
        StaticEncoder.open(tmp_path / "nothing-here")
