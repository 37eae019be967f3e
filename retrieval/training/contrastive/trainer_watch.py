"""What goes on beside the steps of the trainer: reports, stopping, room on the disk, and silence of the libraries."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from retrieval.training.contrastive.checkpoints import require_space
from retrieval.training.contrastive.training import TrainProgress

SCORE = "eval_score"
"""Name of the measure in the log of the trainer."""


def is_score(entry: dict[str, Any]) -> bool:
    """Whether an entry of the log holds a measure that is a number."""
    return SCORE in entry and not math.isnan(entry[SCORE])


class Watch:
    """Reports, stops when asked, and keeps a checkpoint from being started that does not fit.

    Its methods are those that the trainer calls on a callback.

    Args:
        on_progress: Told how far it is.
        should_stop: Asked after every step.
        folder: Of the checkpoints.
        checkpoint_bytes: What a checkpoint takes.
        saved: Step of the last checkpoint, ``None`` before the first.
        evaluates: Whether the trainer evaluates.
    """

    def __init__(
        self,
        *,
        on_progress: Callable[[TrainProgress], None],
        should_stop: Callable[[], bool],
        folder: Path,
        checkpoint_bytes: int,
        saved: int | None,
        evaluates: bool,
    ) -> None:
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._folder = folder
        self._checkpoint_bytes = checkpoint_bytes
        self._saved = saved
        self._evaluates = evaluates
        self._loss: float | None = None
        self._score: float | None = None

    def _report(self, state: Any, stage: Literal["training", "checking"] = "training") -> None:
        progress = TrainProgress(stage, state.global_step, state.max_steps, self._loss, self._score, self._saved)
        self._on_progress(progress)

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self._report(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> Any:
        if self._should_stop():
            control.should_training_stop = control.should_save = True
        elif state.global_step >= state.max_steps and self._evaluates:
            control.should_evaluate = True
        if control.should_save:
            require_space(self._folder, self._checkpoint_bytes)
        self._report(state, "checking" if control.should_evaluate else "training")
        return control

    def on_log(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self._loss = others["logs"].get("loss", self._loss)

    def on_evaluate(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if is_score(others["metrics"]):
            self._score = others["metrics"][SCORE]
        self._report(state)

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self._saved = state.global_step
        self._report(state)


@contextmanager
def quiet() -> Iterator[None]:
    """The libraries say nothing but errors for a while."""
    import datasets
    from transformers.utils import logging as transformers_logging

    verbosity, bars = transformers_logging.get_verbosity(), datasets.are_progress_bars_disabled()
    transformers_logging.set_verbosity(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if not bars:
            datasets.enable_progress_bars()
