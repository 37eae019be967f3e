"""One choice of everything that is tuned, what differs between two of them, and the choices that are tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, Self

from retrieval.config import DEFAULT_DENSE_WEIGHT, Config, EncoderConfig, QuantizationConfig
from retrieval.datatypes import FirstStage, Quantization

DEPTHS = (5, 10, 20, 40)
BLENDS = (0.2, 0.4, 0.6, 0.8)
DENSE_WEIGHTS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
QUANTIZATIONS = (Quantization(), Quantization("turbo", 2), Quantization("binary", 1))

_FEWEST_DIMENSIONS = 16
_HALVINGS = 3

Value = str | float | int | bool | None


@dataclass(frozen=True, slots=True)
class Variant:
    """Which vectors are searched.

    Args:
        dimensions: The first ones of the model, how many.
        quantization: How they are compressed.
        exact: Compare whole vectors whatever compression and graph there are.
    """

    dimensions: int
    quantization: Quantization
    exact: bool = False

    def __str__(self) -> str:
        return f"{self.dimensions} dims, {self.quantization}"


@dataclass(frozen=True, slots=True)
class Fusion:
    """Which arms fetch, and how their lists become one."""

    arms: FirstStage
    fusion: Literal["minmax", "rrf"]
    dense_weight: float

    def __str__(self) -> str:
        if self.arms != "hybrid":
            return {"bm25": "BM25", "dense": "static"}[self.arms]
        return f"{'' if self.fusion == 'minmax' else 'rrf '}{self.dense_weight:.2f}"


@dataclass(frozen=True, slots=True)
class Setting:
    """One choice.

    Args:
        variant: The vectors.
        fusion: The first stage.
        depth: Candidates that the cross-encoder reads; 0 where it is off.
        first_stage_weight: Share of the first stage in the final score (the blend).
        budget_ms: Milliseconds for reading; ``None`` for no limit.
    """

    variant: Variant
    fusion: Fusion
    depth: int
    first_stage_weight: float
    budget_ms: float | None = None

    @classmethod
    def present(cls, config: Config, dimensions: int, quantization: Quantization, index_weight: float | None) -> Self:
        """What a configuration says now.

        Args:
            config: The configuration.
            dimensions: Of the vectors of the index.
            quantization: Of the index.
            index_weight: Weight of the dense arm that was chosen for the index; ``None`` for the default.
        """
        first, second = config.first_stage, config.rerank
        weights = (first.dense_weight, index_weight, DEFAULT_DENSE_WEIGHT)
        return cls(
            Variant(dimensions, quantization, exact=first.exact),
            Fusion(first.arms, first.fusion, next(weight for weight in weights if weight is not None)),
            min(second.depth, first.candidates) if second.enabled else 0,
            second.first_stage_weight,
            second.budget_ms,
        )

    def plain(self, present: Setting) -> Setting:
        """The same with the present values of everything that has no effect in it."""
        changed = self
        if self.fusion.arms != "hybrid":
            changed = replace(changed, fusion=replace(present.fusion, arms=self.fusion.arms))
        if self.fusion.arms == "bm25":
            changed = replace(changed, variant=present.variant)
        if not self.depth:
            changed = replace(changed, first_stage_weight=present.first_stage_weight, budget_ms=present.budget_ms)
        return changed


@dataclass(frozen=True, slots=True)
class Change:
    """One key of the configuration that a choice sets anew."""

    key: str
    before: Value
    after: Value


def changes(present: Setting, chosen: Setting) -> tuple[Change, ...]:
    """What has to change in the configuration, in its order."""
    pairs: list[tuple[str, Value, Value]] = [
        ("encoder.dimensions", present.variant.dimensions, chosen.variant.dimensions),
        ("quantization", str(present.variant.quantization), str(chosen.variant.quantization)),
        ("first_stage.arms", present.fusion.arms, chosen.fusion.arms),
        ("first_stage.fusion", present.fusion.fusion, chosen.fusion.fusion),
        ("first_stage.dense_weight", present.fusion.dense_weight, chosen.fusion.dense_weight),
        ("rerank.enabled", present.depth > 0, chosen.depth > 0),
        ("rerank.first_stage_weight", present.first_stage_weight, chosen.first_stage_weight),
        ("rerank.budget_ms", present.budget_ms, chosen.budget_ms),
    ]
    if chosen.depth:
        pairs.insert(6, ("rerank.depth", present.depth, chosen.depth))
    return tuple(Change(key, before, after) for key, before, after in pairs if before != after)


def config_with(config: Config, present: Setting, chosen: Setting) -> Config:
    """A configuration that gives a choice.

    Args:
        config: What gives ``present``.
        present: The present choice, whose values are not written where the new ones are the same.
        chosen: The new choice.
    """
    encoder, quantization, first, second = config.encoder, config.quantization, config.first_stage, config.rerank
    changed = {change.key for change in changes(present, chosen)}
    if "encoder.dimensions" in changed:
        encoder = EncoderConfig(model=encoder.model, dimensions=chosen.variant.dimensions)
    if "quantization" in changed:
        quantization = QuantizationConfig.model_validate(asdict(chosen.variant.quantization))
    weights = {"dense_weight": chosen.fusion.dense_weight} if "first_stage.dense_weight" in changed else {}
    first = first.model_copy(update={"arms": chosen.fusion.arms, "fusion": chosen.fusion.fusion, **weights})
    reading = {"first_stage_weight": chosen.first_stage_weight, "budget_ms": chosen.budget_ms}
    if "rerank.depth" in changed:
        reading["depth"] = chosen.depth
    second = second.model_copy(update={"enabled": chosen.depth > 0, **reading})
    return config.model_copy(
        update={"encoder": encoder, "quantization": quantization, "first_stage": first, "rerank": second}
    )


@dataclass(frozen=True, slots=True)
class Grid:
    """The values that are tried of each part; the present ones are among them."""

    variants: tuple[Variant, ...]
    fusions: tuple[Fusion, ...]
    depths: tuple[int, ...]
    blends: tuple[float, ...]

    @classmethod
    def around(
        cls,
        present: Setting,
        candidates: int,
        *,
        quantizations: Sequence[Quantization] = QUANTIZATIONS,
        truncate: bool = True,
    ) -> Self:
        """Everything that is tried from a present choice.

        Args:
            present: Its values are tried in any case.
            candidates: What the first stage fetches; nothing reads deeper.
            quantizations: Kinds of compression that the store has.
            truncate: Whether fewer dimensions can be had.
        """
        whole = present.variant.dimensions
        dims = [whole >> halving for halving in range(_HALVINGS + 1)] if truncate else [whole]
        variants = [
            Variant(dim, kind, present.variant.exact)
            for dim in dims
            if dim >= min(_FEWEST_DIMENSIONS, whole)
            for kind in quantizations
        ]
        fusions = [Fusion("hybrid", "minmax", weight) for weight in DENSE_WEIGHTS]
        fusions += [Fusion("hybrid", "rrf", 0.5)]
        fusions += [replace(present.fusion, arms="bm25"), replace(present.fusion, arms="dense")]
        return cls(
            tuple(dict.fromkeys([present.variant, *variants])),
            tuple(dict.fromkeys([present.fusion, *fusions])),
            tuple(sorted({0, present.depth, *(min(depth, candidates) for depth in DEPTHS)})),
            tuple(sorted({present.first_stage_weight, *BLENDS})),
        )
