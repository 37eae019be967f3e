"""All targets, found when they are asked for."""

from __future__ import annotations

import importlib
from importlib.util import find_spec

from benchmarks.fuzz.target import Target

MODULES = ("documents", "texts", "filters", "ordering", "files", "models", "messages", "service")
_PARTS = (
    "documents stores chunking headings config yaml_text manifest ordering rerankers token_tables evaluation negation "
    "polarity opposites"
)
INSTRUMENTED = (*(f"retrieval.{part}" for part in _PARTS.split()), "pipelines")
"""What atheris watches. The kernels that numba compiles are not among them: it cannot compile what is watched."""


def targets(module: str | None = None) -> dict[Target, str]:
    """Those whose packages are installed, with their modules, in the order of these.

    Args:
        module: Only those of one module, of which alone the imports are paid for.
    """
    found: dict[Target, str] = {}
    for name in MODULES if module is None else [module]:
        found |= dict.fromkeys(importlib.import_module(f"benchmarks.fuzz.target_{name}").TARGETS, name)
    return {target: name for target, name in found.items() if not target.extra or find_spec(target.extra) is not None}
