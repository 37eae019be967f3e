"""The recipes: the two-stage pipeline and what is built on it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.lazy import LazyPipeline
    from pipelines.two_stage import TwoStagePipeline

__all__ = ["LazyPipeline", "TwoStagePipeline"]


def __getattr__(name: str) -> Any:
    # Imported when it is asked for, so that `retrieval --help` does not load numpy and the engines.
    if name == "LazyPipeline":
        from pipelines import lazy

        return lazy.LazyPipeline
    if name == "TwoStagePipeline":
        from pipelines import two_stage

        return two_stage.TwoStagePipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
