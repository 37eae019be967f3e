"""Where the training of a cross-encoder stands, and the file in which it is kept."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.errors import ModelError
from retrieval.training.reranker.network import Parameters

if TYPE_CHECKING:
    from torch.optim import Optimizer


@dataclass(slots=True)
class TrainingState:
    """What changes while a cross-encoder is trained.

    Args:
        current: The parameters.
        average: Their moving average.
        optimizer: With its moments.
        step: Steps done.
        lists: Lists read.
        seconds: Time spent.
        best: The best average so far by ``best_dev``, ``None`` when nothing was measured.
        best_dev: Its figure.
    """

    current: Parameters
    average: Parameters
    optimizer: Optimizer
    step: int = 0
    lists: int = 0
    seconds: float = 0.0
    best: Parameters | None = None
    best_dev: float = float("-inf")

    def keep_best(self, dev: float | None) -> None:
        """Keep the average if ``dev`` is the best figure so far."""
        if dev is not None and dev > self.best_dev:
            self.best, self.best_dev = {name: tensor.clone() for name, tensor in self.average.items()}, dev


def write_state(path: Path, state: TrainingState, identity: str) -> None:
    """Write a checkpoint; the file is always a whole one, the new or the old.

    Args:
        path: File.
        state: What is written.
        identity: Text that tells trainings apart; only one with the same text goes on from the file.

    Raises:
        ModelError: The file cannot be written.
    """
    import torch

    part = path.with_name(path.name + ".part")
    content = {
        "identity": _digest(identity),
        "current": {name: tensor.detach() for name, tensor in state.current.items()},
        "average": state.average,
        "optimizer": state.optimizer.state_dict(),
        "progress": [state.step, state.lists, state.seconds, state.best_dev],
        "best": state.best,
    }
    try:
        torch.save(content, part)
        part.replace(path)
    except (OSError, RuntimeError) as error:  # torch says RuntimeError when a disk is full
        part.unlink(missing_ok=True)
        raise ModelError(f"the checkpoint {path} cannot be written: {error}; is the disk full?") from error


def read_state(path: Path, state: TrainingState, identity: str) -> None:
    """Set a state to what `write_state` wrote.

    Raises:
        ModelError: The file is broken, or its identity is another one.
    """
    import torch

    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if content["identity"] != _digest(identity):
            raise ModelError(
                f"{path} belongs to a training with other lists, settings or sizes: repeat its settings to go on, or "
                f"delete it to start anew"
            )
        with torch.no_grad():
            for name, tensor in state.current.items():
                tensor.copy_(content["current"][name])
        state.optimizer.load_state_dict(content["optimizer"])
        state.average, state.best = content["average"], content["best"]
        state.step, state.lists, state.seconds, state.best_dev = content["progress"]
    except (OSError, EOFError, RuntimeError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise ModelError(f"{path} is not a checkpoint of this training: {error}; delete it to start anew") from error


def _digest(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()
