"""The cross-encoder as a function of its parameters.

It starts as the sentence embedding model it is made from: the query and the passage are two segments with their own
positions, attention between them is nearly closed, and the score is their cosine. Training opens the upper layers.
Writing it as a function keeps torch out of the import of this package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

Parameters = dict[str, "Tensor"]

_CLOSED = -10_000.0  # added to attention logits; exp() of it is zero in float32 and bfloat16


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """Sizes of the network.

    Args:
        layers: Transformer layers that are used, from the bottom.
        heads: Attention heads of each.
        separate: So many of them, from the bottom, never look across the two segments.
        epsilon: Of the layer normalisation.
    """

    layers: int
    heads: int
    separate: int
    epsilon: float = 1e-12


def load_network(
    teacher: str | Path, *, layers: int | None = None, separate: int = 3, opening: float = -3.0
) -> tuple[Parameters, NetworkShape]:
    """Parameters of a BERT sentence transformer with the head of a cross-encoder.

    Args:
        teacher: Folder with ``config.json`` and ``model.safetensors``.
        layers: Layers to keep from the bottom; ``None`` keeps all.
        separate: Lower layers that never look across.
        opening: What is added to attention logits across the segments in the others at the start.

    Raises:
        ModelError: The folder is not that of a BERT model.
    """
    import torch
    from safetensors.torch import load_file

    try:
        config = json.loads((Path(teacher) / "config.json").read_text(encoding="utf-8"))
        tensors = load_file(str(Path(teacher) / "model.safetensors"))
    except (OSError, json.JSONDecodeError) as error:
        raise ModelError(f"{teacher} is not a folder with config.json and model.safetensors: {error}") from error
    if config.get("model_type") != "bert":
        raise ModelError(f"{teacher} is a {config.get('model_type')} model; the cross-encoder starts from BERT models")
    kept = config["num_hidden_layers"] if layers is None else layers
    heads = config["num_attention_heads"]
    shape = NetworkShape(kept, heads, min(separate, kept), config["layer_norm_eps"])
    parameters = {name: tensor.float() for name, tensor in tensors.items() if _is_used(name, kept)}
    types = parameters["embeddings.token_type_embeddings.weight"]
    parameters["embeddings.token_type_embeddings.weight"] = types[:1].repeat(2, 1)  # both segments start equal
    width = types.shape[1]
    opened = kept - shape.separate
    parameters["across.opening"] = torch.full((opened, heads), opening)
    parameters["across.match"] = torch.zeros(opened, heads)
    parameters["across.segment"] = torch.zeros(2, width)
    parameters["across.repeated"] = torch.zeros(width)
    parameters["head.scale"] = torch.tensor([20.0, 0.0])
    parameters["head.cosine"] = torch.ones(width)
    parameters["head.pooled"] = torch.zeros(width)
    parameters["head.bias"] = torch.zeros(1)
    return parameters, shape


def _is_used(name: str, layers: int) -> bool:
    if name.startswith("encoder.layer."):
        return int(name.split(".")[2]) < layers
    return name.startswith("embeddings.") and not name.endswith("position_ids")


def scale_head(parameters: Parameters, slope: float, offset: float) -> Parameters:
    """The parameters with a head whose logit is ``slope`` times the old one plus ``offset``.

    Listwise training fixes neither; both decide how a sigmoid spreads the logits when they are blended.
    """
    changed = {name: parameters[name] * slope for name in ("head.scale", "head.pooled", "head.bias")}
    changed["head.bias"] = changed["head.bias"] + offset
    return {**parameters, **changed}


def score_pairs(
    parameters: Mapping[str, Tensor],
    shape: NetworkShape,
    input_ids: Tensor,
    attention_mask: Tensor,
    types: Tensor,
    words: Tensor | None = None,
) -> Tensor:
    """Raw logits of a batch of pairs, (batch, 1).

    Args:
        parameters: Of `load_network`.
        shape: Sizes.
        input_ids: (batch, length) tokens of ``[CLS] query [SEP] passage [SEP]`` and padding.
        attention_mask: (batch, length) 1 for tokens, 0 for padding.
        types: (batch, length) 0 for the query, 1 for the passage.
        words: (batch, length, width) vectors of the tokens; ``None`` looks them up in the parameters.
    """
    import torch
    from torch.nn.functional import embedding

    mask = attention_mask.to(parameters["head.bias"].dtype)
    passage = types.to(mask.dtype) * mask
    query = mask - passage
    if words is None:
        words = embedding(input_ids, parameters["embeddings.word_embeddings.weight"])
    hidden = _embed(parameters, shape, words, query, passage)
    # [CLS] is open to the passage too: these models park their attention there, and without it they lose their way.
    shown = torch.cat([torch.zeros_like(query[:, :1]), query[:, 1:]], dim=1)
    across = query[:, :, None] * passage[:, None, :] + passage[:, :, None] * shown[:, None, :]
    same = (input_ids[:, :, None] == input_ids[:, None, :]).to(mask.dtype) * across
    padding = (1.0 - mask)[:, None, None, :] * _CLOSED
    bias = padding + across[:, None] * _CLOSED
    for layer in range(shape.layers):
        opened = layer - shape.separate
        if opened == 0:
            hidden = hidden + same.amax(dim=2)[:, :, None] * parameters["across.repeated"]
            hidden = hidden + embedding(types, parameters["across.segment"])
        if opened >= 0:
            opening, match = (parameters[f"across.{kind}"][opened][:, None, None] for kind in ("opening", "match"))
            bias = padding + across[:, None] * opening + same[:, None] * match
        hidden = _layer(parameters, f"encoder.layer.{layer}.", shape, hidden, bias)
    return _head(parameters, hidden, query, passage)


def _embed(
    parameters: Mapping[str, Tensor], shape: NetworkShape, words: Tensor, query: Tensor, passage: Tensor
) -> Tensor:
    import torch
    from torch.nn.functional import embedding, layer_norm

    # The passage counts its positions from 1: position 0 is that of [CLS], which only the query has.
    place = torch.arange(words.shape[1], device=words.device)[None, :]
    start = (query.sum(dim=1, keepdim=True) - 1.0).to(torch.int64)
    positions = (place - start * passage.to(torch.int64)).clamp(0, 511)
    places = embedding(positions, parameters["embeddings.position_embeddings.weight"])
    kinds = embedding(passage.to(torch.int64), parameters["embeddings.token_type_embeddings.weight"])
    name = "embeddings.LayerNorm."
    return layer_norm(
        words + places + kinds,
        words.shape[-1:],
        parameters[name + "weight"],
        parameters[name + "bias"],
        shape.epsilon,
    )


def _layer(parameters: Mapping[str, Tensor], name: str, shape: NetworkShape, hidden: Tensor, bias: Tensor) -> Tensor:
    from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention

    def dense(part: str, value: Tensor) -> Tensor:
        return linear(value, parameters[f"{name}{part}.weight"], parameters[f"{name}{part}.bias"])

    def normalize(part: str, value: Tensor) -> Tensor:
        weight, offset = parameters[f"{name}{part}.LayerNorm.weight"], parameters[f"{name}{part}.LayerNorm.bias"]
        return layer_norm(value, value.shape[-1:], weight, offset, shape.epsilon)

    batch, length, width = hidden.shape

    def split(value: Tensor) -> Tensor:
        return value.view(batch, length, shape.heads, width // shape.heads).transpose(1, 2)

    queries, keys = split(dense("attention.self.query", hidden)), split(dense("attention.self.key", hidden))
    values = split(dense("attention.self.value", hidden))
    mixed = scaled_dot_product_attention(queries, keys, values, attn_mask=bias.to(queries.dtype))
    mixed = mixed.transpose(1, 2).reshape(batch, length, width)
    hidden = normalize("attention.output", hidden + dense("attention.output.dense", mixed))
    inner = gelu(dense("intermediate.dense", hidden))
    return normalize("output", hidden + dense("output.dense", inner))


def _head(parameters: Mapping[str, Tensor], hidden: Tensor, query: Tensor, passage: Tensor) -> Tensor:
    """Cosine of the two means, mean over the query tokens of their best cosine in the passage, and ``[CLS]``."""
    from torch.nn.functional import normalize

    def mean(segment: Tensor) -> Tensor:
        total = (hidden * segment[:, :, None]).sum(dim=1)
        return normalize(total, dim=-1, eps=1e-6)

    cosine = (mean(query) * mean(passage) * parameters["head.cosine"]).sum(dim=-1)
    unit = normalize(hidden, dim=-1, eps=1e-6)
    cosines = unit @ unit.transpose(1, 2) + (1.0 - passage)[:, None, :] * _CLOSED
    best = (cosines.amax(dim=2) * query).sum(dim=1) / query.sum(dim=1)
    best = best * passage.amax(dim=1)  # an empty passage has no best token
    scale = parameters["head.scale"]
    logits = scale[0] * cosine + scale[1] * best + (hidden[:, 0] * parameters["head.pooled"]).sum(dim=-1)
    return (logits + parameters["head.bias"])[:, None]
