"""The cross-encoder as a function of its parameters.

It starts as the sentence embedding model it is made from: the query and the passage are two segments with their own
positions, attention between them is nearly closed, and the score is their cosine. Training opens the upper layers.
Writing it as a function keeps torch out of the import of this package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.errors import ModelError
from retrieval.training.reranker.attention import AttentionBias, attend

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
    teacher: str | Path,
    *,
    layers: int | tuple[int, ...] | None = None,
    separate: int | None = None,
    opening: float = -3.0,
) -> tuple[Parameters, NetworkShape]:
    """Parameters of a BERT sentence transformer with the head of a cross-encoder.

    Args:
        teacher: Folder with ``config.json`` and ``model.safetensors``.
        layers: Layers to keep: a number keeps the first, the last and others evenly between them, a tuple those that it
            names, counted from 0, from the bottom to the top; ``None`` keeps all.
        separate: Lower layers that never look across; ``None`` takes half of those that are kept.
        opening: What is added to attention logits across the segments in the others at the start.

    Raises:
        ModelError: The folder is not that of a BERT model.
        ValueError: It does not have the layers asked for.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((Path(teacher) / "config.json").read_text(encoding="utf-8"))
        tensors = load_file(str(Path(teacher) / "model.safetensors"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, RecursionError, SafetensorError) as error:
        raise ModelError(f"{teacher} is not a folder with config.json and model.safetensors: {error}") from error
    if config.get("model_type") != "bert":
        raise ModelError(f"{teacher} is a {config.get('model_type')} model; the cross-encoder starts from BERT models")
    kept = chosen_layers(layers, config["num_hidden_layers"])
    heads = config["num_attention_heads"]
    shape = NetworkShape(len(kept), heads, _separate(separate, len(kept)), config["layer_norm_eps"])
    renamed = {_renamed(name.removeprefix("bert."), kept): tensor for name, tensor in tensors.items()}
    parameters = {name: tensor.float() for name, tensor in renamed.items() if name}
    if "embeddings.token_type_embeddings.weight" not in parameters:
        raise ModelError(f"{teacher} holds no BERT encoder: its tensors begin with {sorted(tensors)[:1]}")
    types = parameters["embeddings.token_type_embeddings.weight"]
    parameters["embeddings.token_type_embeddings.weight"] = types[:1].repeat(2, 1)  # both segments start equal
    width = types.shape[1]
    opened = shape.layers - shape.separate
    parameters["across.opening"] = torch.full((opened, heads), opening)
    parameters["across.match"] = torch.zeros(opened, heads)
    parameters["across.segment"] = torch.zeros(2, width)
    parameters["across.repeated"] = torch.zeros(width)
    parameters["head.scale"] = torch.tensor([20.0, 0.0])
    parameters["head.cosine"] = torch.ones(width)
    parameters["head.pooled"] = torch.zeros(width)
    parameters["head.bias"] = torch.zeros(1)
    return parameters, shape


def chosen_layers(layers: int | tuple[int, ...] | None, of: int) -> tuple[int, ...]:
    """Numbers of the layers that are kept of so many: see `load_network`.

    Raises:
        ValueError: There are not so many, or the numbers do not rise.
    """
    if layers is None:
        return tuple(range(of))
    if isinstance(layers, int):
        if not 1 <= layers <= of:
            raise ValueError(f"the model has {of} layers: {layers} cannot be kept")
        return tuple(round(place * (of - 1) / (layers - 1)) for place in range(layers)) if layers > 1 else (of - 1,)
    if not layers or list(layers) != sorted(set(layers)) or layers[0] < 0 or layers[-1] >= of:
        raise ValueError(f"the layers {layers} are not rising numbers from 0 to {of - 1}")
    return tuple(layers)


def _separate(separate: int | None, layers: int) -> int:
    return layers // 2 if separate is None else min(separate, layers)


def save_network(parameters: Parameters, shape: NetworkShape, folder: str | Path) -> None:
    """Write ``network.safetensors`` and ``network.json``, in full precision, to train on or to export again."""
    from safetensors.torch import save_file

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    part = target / "network.safetensors.part"
    save_file({name: tensor.detach().contiguous() for name, tensor in parameters.items()}, str(part))
    part.replace(target / "network.safetensors")
    (target / "network.json").write_text(json.dumps(asdict(shape)) + "\n", encoding="utf-8")


def open_network(folder: str | Path) -> tuple[Parameters, NetworkShape]:
    """Read what `save_network` wrote.

    Raises:
        ModelError: The folder does not hold it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        shape = NetworkShape(**json.loads((Path(folder) / "network.json").read_text(encoding="utf-8")))
        return load_file(str(Path(folder) / "network.safetensors")), shape
    except (OSError, ValueError, TypeError, RecursionError, SafetensorError) as error:
        raise ModelError(f"{folder} does not hold network.json and network.safetensors: {error}") from error


def _renamed(name: str, kept: tuple[int, ...]) -> str:
    """Name of a tensor of the encoder once only some layers are left; empty when it is not used."""
    if name.startswith("encoder.layer."):
        number, _, rest = name.removeprefix("encoder.layer.").partition(".")
        return f"encoder.layer.{kept.index(int(number))}.{rest}" if int(number) in kept else ""
    return name if name.startswith("embeddings.") and not name.endswith("position_ids") else ""


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
    bias: AttentionBias | Tensor = padding + across[:, None] * _CLOSED
    for layer in range(shape.layers):
        opened = layer - shape.separate
        if opened == 0:
            hidden = hidden + same.amax(dim=2)[:, :, None] * parameters["across.repeated"]
            hidden = hidden + embedding(types, parameters["across.segment"])
        if opened >= 0:
            opening, match = (parameters[f"across.{kind}"][opened] for kind in ("opening", "match"))
            bias = AttentionBias(padding, across, same, opening, match)
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


def _layer(
    parameters: Mapping[str, Tensor], name: str, shape: NetworkShape, hidden: Tensor, bias: AttentionBias | Tensor
) -> Tensor:
    from torch.nn.functional import gelu, layer_norm, linear

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
    mixed = attend(queries, keys, values, bias).transpose(1, 2).reshape(batch, length, width)
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
