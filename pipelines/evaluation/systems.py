"""What is compared: the four systems of one configuration, those of others, and runs from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipelines.search_options import SearchArguments
from retrieval.config import Config

MEASURES = ("nDCG@10", "R@100", "RR@10")
SYSTEMS: Mapping[str, SearchArguments] = {
    "BM25": {"first_stage": "bm25", "rerank": False},
    "static": {"first_stage": "dense", "rerank": False},
    "hybrid": {"first_stage": "hybrid", "rerank": False},
    "two-stage": {"first_stage": "hybrid", "rerank": True},
}
"""The rows that every configuration gives, and the arguments of `TwoStagePipeline.search` that make them."""
BASELINE = "BM25"
TRACED = "two-stage"
"""The row whose losses are followed."""

_INDEX_SECTIONS = {"encoder", "bm25", "chunking", "documents", "store", "hnsw", "quantization"}


@dataclass(frozen=True, slots=True)
class System:
    """One row.

    Args:
        name: Of the row.
        arguments: Of `TwoStagePipeline.search`; everything else comes from the configuration.
    """

    name: str
    arguments: SearchArguments


@dataclass(frozen=True, slots=True)
class Group:
    """Systems that are measured with one pipeline.

    Args:
        config: Settings of the pipeline.
        systems: The rows that it gives.
    """

    config: Config
    systems: tuple[System, ...]

    @property
    def index_settings(self) -> str:
        """What an index is made from: groups that agree in it can use the same one."""
        return self.config.model_dump_json(include=_INDEX_SECTIONS)


def groups_of(config: Config, others: Mapping[str, Config]) -> list[Group]:
    """The built-in systems of one configuration, and one system for each other configuration as it stands."""
    own = Group(config, tuple(System(name, arguments) for name, arguments in SYSTEMS.items()))
    return [own, *(Group(other, (System(name, {}),)) for name, other in others.items())]


def file_name(system: str) -> str:
    """A name of a system as the stem of a file."""
    return re.sub(r"[^\w.+-]+", "_", system).strip("_.")


def require_distinct(names: Sequence[str]) -> None:
    """Refuse rows that could not be told apart, in the tables or as files.

    Raises:
        ValueError: A name appears twice, or holds no letter or digit.
    """
    stems = [file_name(name).casefold() for name in names]
    for name, stem in zip(names, stems, strict=True):
        if not stem:
            raise ValueError(f"the name {name!r} of a system has no letter or digit; write NAME=FILE")
        if stems.count(stem) > 1:
            raise ValueError(f"two systems are called {name!r}, or nearly so; give one of them another name: NAME=FILE")


def require_baseline(baseline: str, names: Iterable[str]) -> None:
    """Refuse a baseline that is none of the rows.

    Raises:
        ValueError: It is not.
    """
    there = list(names)
    if baseline not in there:
        raise ValueError(f"baseline {baseline!r} is none of the systems: {', '.join(there)}")
