"""Attention of the cross-encoder with learned openings between the two segments."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class AttentionBias:
    """What is added to attention logits, in parts that each head weighs.

    Args:
        padding: (batch, 1, 1, length) 0 for tokens, very negative for padding.
        across: (batch, length, length) 1 where a token looks at the other segment.
        same: (batch, length, length) 1 where it is the same token there.
        opening: (heads,) weights of ``across``.
        match: (heads,) weights of ``same``.
    """

    padding: Tensor
    across: Tensor
    same: Tensor
    opening: Tensor
    match: Tensor

    def whole(self) -> Tensor:
        """The sum of the parts, (batch, heads, length, length)."""
        opened = self.across[:, None] * self.opening[:, None, None]
        return self.padding + opened + self.same[:, None] * self.match[:, None, None]


def attend(queries: Tensor, keys: Tensor, values: Tensor, bias: AttentionBias | Tensor) -> Tensor:
    """Scaled dot-product attention, (batch, heads, length, width of a head).

    Args:
        queries: (batch, heads, length, width of a head); ``keys`` and ``values`` likewise.
        keys: See ``queries``.
        values: See ``queries``.
        bias: Added to the logits; with parts that are trained, the gradient of a whole bias is never written down,
            which makes a training step faster and changes nothing else.
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    if isinstance(bias, AttentionBias) and bias.opening.requires_grad and torch.is_grad_enabled():
        parts = (bias.padding, bias.across, bias.same, bias.opening, bias.match)
        mixed: Tensor = _trained_attention().apply(queries, keys, values, *parts)
        return mixed
    added = bias.whole() if isinstance(bias, AttentionBias) else bias
    return scaled_dot_product_attention(queries, keys, values, attn_mask=added.to(queries.dtype))


@cache
def _trained_attention() -> Any:  # a torch.autograd.Function; torch is imported late
    import torch

    class TrainedAttention(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, *parts: Tensor) -> Tensor:
            padding, across, same, opening, match = parts
            scale = 1.0 / math.sqrt(queries.shape[-1])
            logits = torch.matmul(queries, keys.transpose(2, 3)).float().mul_(scale).add_(padding)
            logits.addcmul_(across[:, None], opening[:, None, None]).addcmul_(same[:, None], match[:, None, None])
            weights = torch.softmax(logits, dim=-1).to(values.dtype)
            ctx.save_for_backward(queries, keys, values, weights, across, same)
            ctx.scale = scale
            return torch.matmul(weights, values)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
            queries, keys, values, weights, across, same = ctx.saved_tensors
            gradient = gradient.to(values.dtype)
            of_values = torch.matmul(weights.transpose(2, 3), gradient)
            of_weights = torch.matmul(gradient, values.transpose(2, 3))
            of_logits = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            batch, heads = queries.shape[:2]
            kinds = torch.stack([across, same], dim=1).to(of_logits.dtype).view(batch, 2, -1)
            summed = torch.matmul(of_logits.view(batch, heads, -1), kinds.transpose(1, 2)).float().sum(dim=0)
            of_logits = of_logits * ctx.scale
            of_queries = torch.matmul(of_logits, keys)
            of_keys = torch.matmul(of_logits.transpose(2, 3), queries)
            return of_queries, of_keys, of_values, None, None, None, summed[:, 0], summed[:, 1]

    return TrainedAttention
