"""The trainer of sentence-transformers, set up for rows of token ids.

What comes from the library: the loop, the losses, the optimizer, mixed precision, checkpoints. What is ours: batches
of rows that were tokenized once, and that nothing is printed or written outside of the folder.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from tokenizers import Tokenizer

from retrieval.datatypes import FloatArray
from retrieval.training.contrastive.checkpoints import step_of
from retrieval.training.contrastive.mixing import MixedBatches, candidate_columns
from retrieval.training.contrastive.token_rows import TokenRows
from retrieval.training.contrastive.trainer_watch import SCORE, Watch, is_score, quiet
from retrieval.training.contrastive.training import ContrastiveSettings, TrainProgress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from torch import Tensor

_REPORTS = 100  # losses reported in a run


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What `train_rows` needs.

    Args:
        vectors: float32 (vocabulary, dim), where to start.
        rows: The data.
        batches: Their order.
        settings: Resolved: nothing is ``auto`` or ``None`` but ``checkpoint_every``.
        folder: For checkpoints.
        checkpoint: Where to go on.
        evaluate: Measures vectors.
        tokenizer: Kept beside the vectors in checkpoints, so that they open as models.
        on_progress: Told how far it is.
        should_stop: Asked after every step.
    """

    vectors: FloatArray
    rows: TokenRows
    batches: MixedBatches
    settings: ContrastiveSettings
    folder: Path
    checkpoint: Path | None
    evaluate: Callable[[FloatArray], float] | None
    tokenizer: Tokenizer
    on_progress: Callable[[TrainProgress], None]
    should_stop: Callable[[], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """See `retrieval.training.contrastive.training.ContrastiveResult`; ``vectors`` are ``None`` when it was stopped."""

    vectors: FloatArray | None
    step: int
    steps: int
    best_step: int
    scores: tuple[tuple[int, float], ...]
    losses: tuple[tuple[int, float], ...]
    seconds: float


def train_rows(run: Run) -> Outcome:
    """Train to the end, or until stopped."""
    with quiet():
        model = _model(run)
        trainer = _trainer(model, run)
        if run.checkpoint is not None:
            # The trainer tells a sampler its epoch, but not when it skips the first batches of one.
            run.batches.set_epoch(step_of(run.checkpoint) // len(run.batches))
        started = time.perf_counter()
        trainer.train(resume_from_checkpoint=None if run.checkpoint is None else str(run.checkpoint))
        state = trainer.state
        log = [(int(entry["step"]), entry) for entry in state.log_history]
        finished = state.global_step >= state.max_steps
        best = state.best_global_step if run.evaluate is not None and state.best_global_step else None
        if finished and best is not None and best != state.global_step:
            _load(model, run.folder / f"checkpoint-{best}")
    return Outcome(
        seconds=time.perf_counter() - started,
        vectors=_vectors(model) if finished else None,
        step=state.global_step,
        steps=state.max_steps,
        best_step=best or state.global_step,
        scores=tuple((step, float(entry[SCORE])) for step, entry in log if is_score(entry)),
        losses=tuple((step, float(entry["loss"])) for step, entry in log if "loss" in entry),
    )


def _model(run: Run) -> SentenceTransformer:
    """A table with one more row, all zero, which fills up shorter texts and is never trained."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    padding = np.zeros((1, run.vectors.shape[1]), np.float32)
    weights = torch.from_numpy(np.concatenate([run.vectors, padding]))
    module = StaticEmbedding(Tokenizer.from_str(run.tokenizer.to_str()), embedding_weights=weights)
    module.embedding.padding_idx = len(run.vectors)
    return SentenceTransformer(modules=[module], device=run.settings.device)


def _vectors(model: SentenceTransformer) -> FloatArray:
    weights: Tensor = model[0].embedding.weight  # type: ignore[union-attr, assignment]
    return np.array(weights.detach().float().cpu().numpy()[:-1], np.float32)


def _load(model: SentenceTransformer, checkpoint: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model.load_state_dict(SentenceTransformer(str(checkpoint), device="cpu").state_dict())


class _Collator:
    """Rows to the inputs of the model: one padded matrix of token ids for each column."""

    valid_label_columns: tuple[str, ...] = ()

    def __init__(self, rows: TokenRows, padding: int) -> None:
        self._rows = rows
        self._padding = padding

    def __call__(self, features: list[dict[str, int]]) -> dict[str, Tensor | None]:
        import torch

        numbers = candidate_columns(self._rows.texts[[feature["row"] for feature in features]])
        queries = self._rows.padded(numbers[:, 0], self._padding)
        # All candidates at one width: the library would fill up with token 0.
        candidates = self._rows.padded(numbers[:, 1:].T.reshape(-1), self._padding)
        columns = [queries, *np.split(candidates, numbers.shape[1] - 1)]
        batch: dict[str, Tensor | None] = {}
        for place, ids in enumerate(columns):
            batch[f"text{place}_input_ids"] = torch.from_numpy(ids)
            batch[f"text{place}_offsets"] = None  # the matrix needs none
        return batch


def _trainer(model: SentenceTransformer, run: Run) -> SentenceTransformerTrainer:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer
    from transformers import PrinterCallback, ProgressCallback

    class Trainer(SentenceTransformerTrainer):
        def get_batch_sampler(self, *args: Any, **kwargs: Any) -> Any:
            return run.batches

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            # The trainer casts only inside of the model, where a static one has nothing to multiply.
            with self.accelerator.autocast():
                return super().compute_loss(*args, **kwargs)

        def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
            pass  # it encodes examples and counts words of texts, for a page that is not kept

    trainer = Trainer(
        model=model,
        args=_arguments(run),
        train_dataset=Dataset.from_dict({"row": np.arange(len(run.rows.texts))}),
        loss=_loss(model, run.settings),
        evaluator=None if run.evaluate is None else _evaluator(run.evaluate),
        data_collator=cast(Any, _Collator(run.rows, len(run.vectors))),
        callbacks=[_callback(run)],
    )
    for printing in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printing)
    return trainer


def _arguments(run: Run) -> Any:
    from sentence_transformers import SentenceTransformerTrainingArguments

    settings = run.settings
    steps = math.ceil(settings.epochs * len(run.batches))
    every = min(steps, settings.checkpoint_every or math.ceil(steps / 10))
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(run.folder),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=round(settings.warmup * steps),
        lr_scheduler_type="linear",
        max_grad_norm=0.0,
        logging_steps=max(1, steps // _REPORTS),
        save_strategy="steps",
        save_steps=every,
        save_total_limit=settings.keep_checkpoints,
        eval_strategy="no" if run.evaluate is None else "steps",
        eval_steps=every,
        metric_for_best_model=None if run.evaluate is None else SCORE,
        greater_is_better=True,
        report_to="none",
        push_to_hub=False,
        disable_tqdm=True,
        use_cpu=settings.device == "cpu",
        bf16=settings.precision == "bf16",
        fp16=settings.precision == "fp16",
        dataloader_pin_memory=settings.device == "cuda",
        seed=settings.seed,
    )
    if arguments.n_gpu > 1:
        # Several GPUs in one process would split rows of token ids; one is enough for a table.
        arguments._n_gpu = 1
    return arguments


def _loss(model: SentenceTransformer, settings: ContrastiveSettings) -> Any:
    """The library's cached form of this loss, for large batches in little memory, refuses static models.

    They need none: what takes memory is the matrix of cosines, not the model.
    """
    from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss

    both = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
    options: dict[str, Any] = {"scale": 1.0 / settings.temperature, **(both if settings.symmetric else {})}
    return MatryoshkaLoss(model, MultipleNegativesRankingLoss(model, **options), list(settings.matryoshka or ()))


def _evaluator(evaluate: Callable[[FloatArray], float]) -> Any:
    from sentence_transformers.base.evaluation import BaseEvaluator

    class Evaluator(BaseEvaluator):
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]

        def __call__(
            self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
        ) -> dict[str, float]:
            return {"score": evaluate(_vectors(model))}

    return Evaluator()


def _callback(run: Run) -> Any:
    from transformers import TrainerCallback

    # Methods of Watch go before those of the other, which do nothing.
    callback = type("Callback", (Watch, TrainerCallback), {})
    return callback(
        on_progress=run.on_progress,
        should_stop=run.should_stop,
        folder=run.folder,
        checkpoint_bytes=3 * run.vectors.nbytes + 2**22,  # weights and the two moments of Adam
        saved=None if run.checkpoint is None else step_of(run.checkpoint),
        evaluates=run.evaluate is not None,
    )
