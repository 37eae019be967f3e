"""In-batch contrastive loss over several leading dimensions, with its gradient written out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.datatypes import FloatArray
from retrieval.training.adaptation.sums import unit


def contrast(
    anchors: FloatArray,
    positives: FloatArray,
    same: NDArray[np.bool_],
    dimensions: Sequence[int],
    temperature: float,
    targets: FloatArray | None = None,
) -> tuple[float, FloatArray, FloatArray]:
    """Symmetric InfoNCE: row ``i`` of the anchors belongs to row ``i`` of the positives.

    Args:
        anchors: Sums of token vectors (pairs, dim).
        positives: The same for the passages.
        same: (pairs, pairs), true where a passage is no negative of an anchor; false on the diagonal.
        dimensions: The loss is the mean over these numbers of leading dimensions.
        temperature: Cosines are divided by it; at least 0.02, for the range of float32.
        targets: How much each positive belongs to each anchor (pairs, pairs), adding up to 1 in every row and, for
            the way back, taken at the same places; ``None`` for the diagonal.

    Returns:
        The loss (for ``targets``, without the part that no training can change) and its gradients with respect to
        both inputs.

    Source:
        https://arxiv.org/abs/1807.03748; Matryoshka, https://arxiv.org/abs/2205.13147
    """
    total = 0.0
    slopes = np.zeros_like(anchors), np.zeros_like(positives)
    own = np.eye(len(anchors), dtype=np.float32) if targets is None else np.where(same, 0, targets).astype(np.float32)
    backward = own.sum(axis=0)
    for dim in dimensions:
        (left, left_norms), (right, right_norms) = unit(anchors[:, :dim]), unit(positives[:, :dim])
        cosines = left @ right.T
        # Cosines are bounded, so that one exponential serves rows and columns without overflow.
        weights = np.exp((cosines - 1) / np.float32(temperature))
        weights[same] = 0.0
        rows, columns = weights.sum(axis=1), weights.sum(axis=0)
        wanted = float((own * (1 - cosines)).sum()) / temperature
        losses = (own.sum(axis=1) @ np.log(rows) + backward @ np.log(columns)) / 2 + wanted
        total += float(losses) / (len(own) * len(dimensions))
        weights *= 0.5 * (own.sum(axis=1) / rows)[:, None] + 0.5 * (backward / columns)[None, :]
        weights -= own
        weights *= np.float32(1.0 / (temperature * len(own) * len(dimensions)))
        for slope, gradient, vectors, norms in (
            (slopes[0], weights @ right, left, left_norms),
            (slopes[1], weights.T @ left, right, right_norms),
        ):
            gradient -= np.einsum("ij,ij->i", gradient, vectors)[:, None] * vectors
            slope[:, :dim] += np.divide(gradient, norms, out=np.zeros_like(gradient), where=norms > 0)
    return total, *slopes
