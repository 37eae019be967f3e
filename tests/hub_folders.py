"""Writes tiny models with random weights, file by file as the models on the Hugging Face hub lay them out.

The cross-encoders are complete transformers of one layer: the same weights as safetensors, for transformers, and as
an ONNX graph, so that both ways to run a folder can be held against each other.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tests.hub_onnx import HEADS, HIDDEN, INTERMEDIATE, POSITIONS, write_onnx

Family = Literal["bert", "xlm-roberta"]
Weights = dict[str, NDArray[np.float32]]

STATIC_MODELS = (
    "sentence-transformers/static-retrieval-mrl-en-v1",
    "sentence-transformers/static-similarity-mrl-multilingual-v1",
)
CROSS_ENCODERS: dict[str, Family] = {
    "cross-encoder/ms-marco-MiniLM-L6-v2": "bert",
    "cross-encoder/mmarco-mMiniLMv2-L12-H384-v1": "xlm-roberta",
}
STATIC_DIMENSIONS = 64

_WORDS = (
    *("copper", "pipe", "leak", "repair", "bright", "star", "galaxy", "night"),
    *("sour", "bread", "dough", "flour", "rohr", "stern", "brot", "the", "of"),
)


def write_static_model(folder: Path, seed: int = 7) -> None:
    """Write a sentence-transformers folder with one StaticEmbedding module, 64 dimensions."""
    module = folder / "0_StaticEmbedding"
    module.mkdir(parents=True)
    tokenizer = _tokenizer("bert")
    tokenizer.save(str(module / "tokenizer.json"))
    table = np.random.default_rng(seed).normal(size=(tokenizer.get_vocab_size(), STATIC_DIMENSIONS))
    save_file({"embedding.weight": table.astype(np.float32)}, module / "model.safetensors")
    module_type = "sentence_transformers.models.StaticEmbedding"
    _write_json(folder / "modules.json", [{"idx": 0, "name": "0", "path": module.name, "type": module_type}])
    _write_json(
        folder / "config_sentence_transformers.json",
        {
            "__version__": {"sentence_transformers": "3.3.1", "transformers": "4.47.1", "pytorch": "2.5.1"},
            "prompts": {},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )


def write_cross_encoder(folder: Path, family: Family, seed: int = 7) -> None:
    """Write a transformers folder for sequence classification with one label, and ``onnx/model.onnx`` beside it."""
    folder.mkdir(parents=True)
    tokenizer = _tokenizer(family)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = _config(family, tokenizer.get_vocab_size())
    _write_json(folder / "config.json", config)
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(family))
    weights = _weights(config, np.random.default_rng(seed))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    write_onnx(folder / "onnx" / "model.onnx", weights, family)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _tokenizer(family: Family) -> Tokenizer:
    if family == "bert":
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        pieces = [*special, *_WORDS, *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
        vocabulary = {piece: index for index, piece in enumerate(pieces)}
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        template = ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)])
    else:
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        scores = [*((piece, 0.0) for piece in special), *((f"\u2581{word}", -2.0) for word in _WORDS)]
        scores += [("\u2581", -3.0), *((letter, -5.0) for letter in "abcdefghijklmnopqrstuvwxyz")]
        tokenizer = Tokenizer(models.Unigram(scores, unk_id=3, byte_fallback=False))
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        template = ("<s> $A </s>", "<s> $A </s> </s> $B </s>", [("<s>", 0), ("</s>", 2)])
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template[0], pair=template[1], special_tokens=template[2]
    )
    return tokenizer


def _tokenizer_config(family: Family) -> dict[str, Any]:
    names = ("pad", "unk", "cls", "sep", "mask")
    bert = family == "bert"
    tokens = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if bert else ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
    return {
        "tokenizer_class": "BertTokenizer" if bert else "XLMRobertaTokenizer",
        "model_max_length": POSITIONS[family],
        **{f"{name}_token": token for name, token in zip(names, tokens, strict=True)},
    }


def _config(family: Family, vocabulary: int) -> dict[str, Any]:
    bert = family == "bert"
    return {
        "architectures": ["BertForSequenceClassification" if bert else "XLMRobertaForSequenceClassification"],
        "model_type": family,
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "num_hidden_layers": 1,
        "num_attention_heads": HEADS,
        "intermediate_size": INTERMEDIATE,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12 if bert else 1e-5,
        # XLM-R counts positions from one past the padding token.
        "max_position_embeddings": POSITIONS[family] + (0 if bert else 2),
        "type_vocab_size": 2 if bert else 1,
        "pad_token_id": 0 if bert else 1,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.1.0"},
    }


def _weights(config: dict[str, Any], random: np.random.Generator) -> Weights:
    root = "bert" if config["model_type"] == "bert" else "roberta"
    layer = f"{root}.encoder.layer.0"
    weights: Weights = {}

    def add(name: str, *shape: int) -> None:
        weights[f"{name}.weight"] = random.normal(scale=0.3, size=shape).astype(np.float32)

    def linear(name: str, rows: int, columns: int) -> None:
        add(name, rows, columns)
        weights[f"{name}.bias"] = random.normal(scale=0.1, size=rows).astype(np.float32)

    def norm(name: str) -> None:
        weights[f"{name}.weight"] = np.ones(HIDDEN, dtype=np.float32)
        weights[f"{name}.bias"] = np.zeros(HIDDEN, dtype=np.float32)

    add(f"{root}.embeddings.word_embeddings", config["vocab_size"], HIDDEN)
    add(f"{root}.embeddings.position_embeddings", config["max_position_embeddings"], HIDDEN)
    add(f"{root}.embeddings.token_type_embeddings", config["type_vocab_size"], HIDDEN)
    norm(f"{root}.embeddings.LayerNorm")
    for part in ("query", "key", "value"):
        linear(f"{layer}.attention.self.{part}", HIDDEN, HIDDEN)
    linear(f"{layer}.attention.output.dense", HIDDEN, HIDDEN)
    norm(f"{layer}.attention.output.LayerNorm")
    linear(f"{layer}.intermediate.dense", INTERMEDIATE, HIDDEN)
    linear(f"{layer}.output.dense", HIDDEN, INTERMEDIATE)
    norm(f"{layer}.output.LayerNorm")
    linear("bert.pooler.dense" if root == "bert" else "classifier.dense", HIDDEN, HIDDEN)
    linear("classifier" if root == "bert" else "classifier.out_proj", 1, HIDDEN)
    return weights
