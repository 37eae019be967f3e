"""Settings of `retrieval train`: what is trained on which data, and how it is measured; see configs/train-*.yaml."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from retrieval.training.contrastive.mixing import Sampling
from retrieval.training.contrastive.new_tokenizer import TokenizerKind
from retrieval.training.contrastive.train_data import RowSettings
from retrieval.training.contrastive.training import ContrastiveSettings, Device, Precision

Positive = Annotated[int, Field(ge=1)]
_DEFAULTS = ContrastiveSettings()


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StartConfig(_Settings):
    """What the vectors are before training."""

    model: str | None = Field(
        default="starter-static",
        description="a static model: bundled name, folder (of this project, Model2Vec or sentence-transformers), "
        "hub name; null: random vectors, which need tokenizer.size",
    )
    random: bool = Field(default=False, description="take only the tokenizer of the model")
    dimensions: Annotated[int, Field(ge=8, le=4096)] = Field(default=256, description="of random vectors")


class TokenizerConfig(_Settings):
    """A new tokenizer; vectors of its tokens come from the model in ``start``, unless they are random."""

    size: Annotated[int, Field(ge=300, le=1_000_000)] | None = Field(default=None, description="null: none is trained")
    kind: TokenizerKind = "wordpiece"
    corpus: tuple[str, ...] = Field(default=(), description="files or folders to train it on beside the data")


class DataConfig(_Settings):
    """One or more files of pairs or triplets; for the columns see `RowSettings` in `retrieval.training`."""

    path: Annotated[str, Field(min_length=1, description="file, folder, or pattern such as pairs/*.jsonl.gz")]
    weight: Annotated[float, Field(gt=0.0, le=100.0)] = Field(
        default=1.0, description="times per epoch (proportional), or turns (round_robin)"
    )
    query: str | None = Field(default=None, description="column of the query; null: found by its name")
    positive: str | None = Field(default=None, description="column of the passage; null: found by its name")
    negatives: tuple[str, ...] | None = Field(default=None, description="columns of negatives; null: found by name")
    score: str | None = Field(default=None, description="column of how well the two fit; null: found by its name")
    min_score: float | None = Field(
        default=None, description="pairs with a lower one are left out; null: scores are refused"
    )
    limit: Positive | None = Field(default=None, description="usable pairs that are read; null: all")

    def rows(self) -> RowSettings:
        """How its files are read."""
        return RowSettings(self.query, self.positive, self.negatives, self.score, self.min_score, self.limit)


class TrainingConfig(_Settings):
    """See `retrieval.training.contrastive.training.ContrastiveSettings`."""

    epochs: Positive = _DEFAULTS.epochs
    batch_size: Annotated[int, Field(ge=2)] = _DEFAULTS.batch_size
    learning_rate: Annotated[float, Field(gt=0.0, le=10.0)] | None = Field(
        default=None, description=f"null: {_DEFAULTS.learning_rate}, and four times that for random vectors"
    )
    warmup: Annotated[float, Field(ge=0.0, le=1.0)] = _DEFAULTS.warmup
    temperature: Annotated[float, Field(gt=0.0, le=1.0)] = _DEFAULTS.temperature
    symmetric: bool = _DEFAULTS.symmetric
    hard_negatives: Annotated[int, Field(ge=0, le=50)] = _DEFAULTS.hard_negatives
    matryoshka: tuple[Positive, ...] | None = _DEFAULTS.matryoshka
    max_tokens: Annotated[int, Field(ge=8)] = _DEFAULTS.max_tokens
    sampling: Sampling = _DEFAULTS.sampling
    device: Device = _DEFAULTS.device
    precision: Precision = _DEFAULTS.precision
    checkpoint_every: Positive | None = _DEFAULTS.checkpoint_every
    keep_checkpoints: Annotated[int, Field(ge=2)] = _DEFAULTS.keep_checkpoints
    seed: Annotated[int, Field(ge=0)] = _DEFAULTS.seed


class EvaluationConfig(_Settings):
    """What the best checkpoint is chosen by: nDCG@10 on a judged collection, or on pairs that are held out."""

    collection: str | None = Field(default=None, description="BEIR folder; null: hold out pairs")
    split: str = Field(default="dev", description="never the one that is reported in the end")
    held_out: Annotated[float, Field(ge=0.0, le=0.5)] = Field(default=0.02, description="share of the queries; 0: none")


class OutputConfig(_Settings):
    """What is written beside the model."""

    name: str | None = Field(default=None, description="in config.json; null: the name of the folder")
    sentence_transformers: bool = Field(default=False, description="the same vectors for that library, in a subfolder")
    keep_checkpoints: bool = Field(default=False, description="leave them when all is done")


class TrainConfig(_Settings):
    """Everything a training is made from."""

    start: StartConfig = StartConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    data: tuple[DataConfig, ...] = ()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    output: OutputConfig = OutputConfig()

    @model_validator(mode="after")
    def _has_a_tokenizer(self) -> TrainConfig:
        if self.start.model is None and self.tokenizer.size is None:
            raise ValueError("without start.model there is no tokenizer: set tokenizer.size to train one")
        return self

    @property
    def is_random(self) -> bool:
        """Whether training starts from random vectors."""
        return self.start.model is None or self.start.random

    def settings(self) -> ContrastiveSettings:
        """The record that the training takes."""
        values = self.training.model_dump()
        if values["learning_rate"] is None:
            values["learning_rate"] = _DEFAULTS.learning_rate * (4 if self.is_random else 1)
        return ContrastiveSettings(**values)
