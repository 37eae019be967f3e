"""The recipes: the two-stage pipeline and what is built on it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.two_stage import TwoStagePipeline

__all__ = ["TwoStagePipeline"]


def __getattr__(name: str) -> Any:
    # Imported when it is asked for, so that `retrieval --help` does not load numpy and the engines.
    if name in __all__:
        from pipelines import two_stage

        return getattr(two_stage, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
