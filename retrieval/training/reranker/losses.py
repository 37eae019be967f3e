"""What training a cross-encoder makes small: losses over the scores of one list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

LossName = Literal["listwise", "margin", "distil"]
LOSSES: tuple[str, ...] = get_args(LossName)


def list_loss(scores: Tensor, teacher: NDArray[np.float32], name: LossName, share: float) -> Tensor:
    """Loss of one list, a number.

    Args:
        scores: (n,) logits, the positive's first.
        teacher: (n,) scores of a teacher, nan where it gave none.
        name: ``listwise`` is the cross-entropy of the positive under softmax; ``margin`` the mean squared difference
            between the leads of the positive over each negative, the network's and the teacher's; ``distil`` the
            divergence of the network's softmax from the teacher's.
        share: Weight of the teacher in ``margin`` and ``distil``; the rest is ``listwise``, and so are lists, and texts
            of a list, that the teacher did not score.

    Source:
        ListNet, https://www.microsoft.com/en-us/research/publication/learning-to-rank-from-pairwise-approach-to-listwise-approach/
        Margin-MSE, https://arxiv.org/abs/2010.02666
    """
    import torch
    from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

    listwise = cross_entropy(scores[None], torch.zeros(1, dtype=torch.int64))
    known = np.flatnonzero(~np.isnan(teacher))
    if name == "listwise" or len(known) < 2 or known[0] != 0:
        return listwise
    rows = torch.from_numpy(known)
    ours, theirs = scores[rows], torch.from_numpy(teacher[known])
    if name == "margin":
        taught = ((ours[0] - ours[1:]) - (theirs[0] - theirs[1:])).square().mean()
    else:
        taught = kl_div(log_softmax(ours, dim=0), softmax(theirs, dim=0), reduction="sum")
    return share * taught + (1.0 - share) * listwise
