"""Write a cross-encoder as the folder that `retrieval.rerankers` opens: ONNX, tokenizer and configuration."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from retrieval.errors import MissingExtraError
from retrieval.training.reranker.batches import INPUTS, TokenPair, tokenize_pairs
from retrieval.training.reranker.network import NetworkShape, Parameters, score_pairs
from retrieval.training.reranker.quantize import Rounding, float_scores, quantize_graph

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "two-stage-reranker"
_WORDS = "embeddings.word_embeddings.weight"


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """How a cross-encoder is written.

    Args:
        name: Name in the configuration.
        max_length: Longest pair in tokens that the model should be given.
        int8: Round matrices to 8 bits; token vectors are rounded by row.
        per_channel: One scale for each output of a matrix instead of one for the matrix.
        agreement: Rank correlation with the float network that rounding has to keep, measured where ``check`` is given.
        opset: Version of the ONNX operators.
    """

    name: str = "starter-reranker"
    max_length: int = 256
    int8: bool = True
    per_channel: bool = True
    agreement: float = 0.99
    opset: int = 20


def export_reranker(
    parameters: Parameters,
    shape: NetworkShape,
    tokenizer: Tokenizer,
    folder: str | Path,
    settings: ExportSettings = ExportSettings(),
    *,
    check: Sequence[tuple[str, Sequence[str]]] = (),
) -> list[Rounding]:
    """Write ``model.onnx``, ``tokenizer.json`` and ``config.json``.

    The graph takes ``input_ids``, ``attention_mask`` and ``token_type_ids``, int64 (batch, length), and returns
    ``logits``, float32 (batch, 1).

    Args:
        parameters: The trained network.
        shape: Its sizes.
        tokenizer: A BERT tokenizer; truncation and padding are taken off, the template for pairs is put on.
        folder: Created when absent.
        settings: Name, length and rounding.
        check: Queries with real candidates. With them the rounded network is compared to the float one, and parts of
            its layers stay in float until the rankings agree.

    Returns:
        What was tried to round and how it agreed, the last one is what was written; empty without ``check`` or
        ``int8``.

    Raises:
        MissingExtraError: torch, onnx or onnxscript is not installed.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    try:
        import onnx
        import onnxscript  # noqa: F401  # torch.onnx needs it and says so only late
    except ImportError as error:
        raise MissingExtraError(error.name or "onnx", "train", "writing a reranker") from error
    tried: list[Rounding] = []
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        full = Path(scratch) / "full.onnx"
        _export_graph(parameters, shape, full, settings)
        if settings.int8:
            queries = [_tokens(tokenizer, query, texts, settings.max_length) for query, texts in check]
            tried = quantize_graph(
                full,
                target / "model.onnx",
                per_channel=settings.per_channel,
                agreement=settings.agreement,
                reference=float_scores(parameters, shape, queries),
                queries=queries,
            )
        else:
            onnx.save(onnx.load(str(full)), str(target / "model.onnx"))
        _forget_origin(target / "model.onnx")
    pair_tokenizer(tokenizer).save(str(target / "tokenizer.json"), pretty=False)
    config = {"format": FORMAT, "version": 1, "name": settings.name, "max_length": settings.max_length}
    (target / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return tried


def _tokens(tokenizer: Tokenizer, query: str, texts: Sequence[str], longest: int) -> list[TokenPair]:
    return tokenize_pairs(tokenizer, [query] * len(texts), texts, max_tokens=longest, query_tokens=longest // 2)


def pair_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that writes ``[CLS] query [SEP] passage [SEP]`` with segment ids 0 and 1."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    copy.post_processor = TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, copy.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return copy


def _export_graph(parameters: Parameters, shape: NetworkShape, path: Path, settings: ExportSettings) -> None:
    import torch

    rounded = settings.int8

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, tensor in parameters.items():
                if not (rounded and name == _WORDS):
                    self.register_buffer(name.replace(".", "__"), tensor.detach())
            if rounded:
                scales = (parameters[_WORDS].detach().abs().amax(dim=1, keepdim=True) / 127.0).clamp_min(1e-12)
                self.scales = torch.nn.Buffer(scales)
                self.rows = torch.nn.Buffer((parameters[_WORDS].detach() / scales).round().to(torch.int8))

        def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
            buffers = dict(self.named_buffers())
            named = {name: buffers[name.replace(".", "__")] for name in parameters if name != _WORDS or not rounded}
            words = None
            if rounded:
                words = self.rows[input_ids].float() * self.scales[input_ids]
            return score_pairs(named, shape, input_ids, attention_mask, token_type_ids, words)

    example = torch.tensor([[101, 7592, 102, 2088, 3000, 102], [101, 2129, 102, 2023, 102, 0]])
    mask, types = (example != 0).long(), torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0]])
    names = list(INPUTS)
    free: Any = {name: {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")} for name in names}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter, nothing a caller could act on
        torch.onnx.export(
            Network().eval(),
            (example, mask, types),
            str(path),
            input_names=names,
            output_names=["logits"],
            dynamic_shapes=free,
            opset_version=settings.opset,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _forget_origin(path: Path) -> None:
    """Drop what the exporter notes about the program that made the graph: file paths and lines of source."""
    import onnx

    model = onnx.load(str(path))
    graphs = [model.graph, *model.functions]
    for part in (model, *graphs, *(node for graph in graphs for node in graph.node)):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    onnx.save(model, str(path))
