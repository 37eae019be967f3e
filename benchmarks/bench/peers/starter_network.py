"""The bundled cross-encoder as a model of transformers, so that `CrossEncoder` of sentence-transformers opens it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from retrieval.training.reranker.network import NetworkShape, score_pairs


class StarterConfig(PretrainedConfig):
    """Sizes of the network and the shapes of its tensors."""

    model_type = "starter-reranker"

    def __init__(
        self, network: dict[str, Any] | None = None, tensors: dict[str, list[int]] | None = None, **others: Any
    ) -> None:
        super().__init__(**others)
        self.network = network or {}
        self.tensors = tensors or {}


class StarterReranker(PreTrainedModel):
    """The parameters, and the function of this project that scores pairs with them."""

    config_class = StarterConfig

    def __init__(self, config: StarterConfig) -> None:
        super().__init__(config)
        self.shape = NetworkShape(**config.network)
        for name, shape in config.tensors.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape), requires_grad=False))
        self.dotted = {name.replace("__", "."): name for name in config.tensors}
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """All weights are read from the file."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor,
        **_: Any,
    ) -> SequenceClassifierOutput:
        named = dict(self.named_parameters())
        parameters = {name: named[stored] for name, stored in self.dotted.items()}
        return SequenceClassifierOutput(
            logits=score_pairs(parameters, self.shape, input_ids, attention_mask, token_type_ids)
        )


def register() -> None:
    """Make the model known to transformers; called once before a folder of it is opened."""
    AutoConfig.register("starter-reranker", StarterConfig, exist_ok=True)
    AutoModelForSequenceClassification.register(StarterConfig, StarterReranker, exist_ok=True)
