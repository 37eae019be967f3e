"""What one search does: the arguments of a call over the values of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self, TypedDict

from retrieval.config import Config
from retrieval.datatypes import Filter, FirstStage, GroupBy

MinScore = float | Literal["auto"]
"""A probability, or the threshold that is stored with the index."""


class SearchArguments(TypedDict, total=False):
    """Keyword arguments of `TwoStagePipeline.search`, which documents them; ``None`` takes the configured value."""

    candidates: int | None
    depth: int | None
    budget_ms: float | None
    rerank: bool | None
    first_stage: FirstStage | None
    where: Filter | None
    group_by: GroupBy | None
    min_score: MinScore | None
    exact: bool | None


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What one search does, every value decided but a threshold that the index knows (``auto``)."""

    top_k: int
    candidates: int
    depth: int
    budget_ms: float | None
    rerank: bool
    first_stage: FirstStage
    where: Filter | None
    group_by: GroupBy
    min_score: MinScore | None
    exact: bool

    @classmethod
    def from_config(cls, config: Config, top_k: int | None, arguments: SearchArguments) -> Self:
        """Fill what the call left open from the configuration.

        Raises:
            ValueError: A number is out of range or a name is unknown.
        """

        def chosen(name: str, default: Any) -> Any:
            value = arguments.get(name)
            return default if value is None else value

        options = cls(
            top_k=config.search.top_k if top_k is None else top_k,
            candidates=chosen("candidates", config.first_stage.candidates),
            depth=chosen("depth", config.rerank.depth),
            budget_ms=chosen("budget_ms", config.rerank.budget_ms),
            rerank=chosen("rerank", config.rerank.enabled),
            first_stage=chosen("first_stage", config.first_stage.arms),
            where=arguments.get("where"),
            group_by=chosen("group_by", config.search.group_by),
            min_score=chosen("min_score", config.search.min_score),
            exact=chosen("exact", config.first_stage.exact),
        )
        options._check()
        if arguments.get("min_score") and not options.reads:
            raise ValueError(
                f"min_score {options.min_score!r} compares with the probability of the cross-encoder, which this "
                "search does not ask; leave min_score out, or let it rerank"
            )
        return options

    @property
    def reads(self) -> bool:
        """Whether the cross-encoder is asked at all."""
        return self.rerank and self.depth > 0

    def _check(self) -> None:
        for name, value, least in (
            ("top_k", self.top_k, 1),
            ("candidates", self.candidates, 1),
            ("depth", self.depth, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} is a whole number from {least}, not {value!r}")
        if self.budget_ms is not None and not self.budget_ms > 0:
            raise ValueError(f"budget_ms is above 0, not {self.budget_ms!r}")
        if self.first_stage not in {"hybrid", "dense", "bm25"}:
            raise ValueError(f"first_stage is 'hybrid', 'dense' or 'bm25', not {self.first_stage!r}")
        if self.group_by not in {"document", "passage"}:
            raise ValueError(f"group_by is 'document' or 'passage', not {self.group_by!r}")
        bound = self.min_score
        is_number = isinstance(bound, int | float) and not isinstance(bound, bool) and 0 <= bound <= 1
        if bound is not None and bound != "auto" and not is_number:
            raise ValueError(f"min_score is a probability from 0 to 1 or 'auto', not {bound!r}")
