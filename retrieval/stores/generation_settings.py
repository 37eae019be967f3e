"""What the store of a generation has to remember besides the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.datatypes import Quantization
from retrieval.errors import StoreCorruptError
from retrieval.stores.index_layout import GENERATIONS, SETTINGS
from retrieval.stores.json_files import REMEDY, read_json
from retrieval.stores.points import checked_quantization


@dataclass(frozen=True, slots=True)
class Settings:
    """What a store has to remember besides the engine.

    Args:
        quantization: How dense vectors are compressed and rescored.
        has_deletes: Whether points were deleted or replaced since the last optimization.
        switching: Whether a change of ``quantization``, which is none meanwhile, was begun and has not ended.
        automatic: Whether ``quantization`` is left to the store; nobody has said what it should be.
        graph: Whether the last optimization built the graph.
        written: Points that were written since.
    """

    quantization: Quantization
    has_deletes: bool = False
    switching: bool = False
    automatic: bool = False
    graph: bool = False
    written: int = 0


def settings_of(root: Path, generation: int) -> Settings | None:
    """The settings of a generation, read without opening it; ``None`` where it has none yet.

    Raises:
        StoreCorruptError: The file cannot be read.
    """
    path = root / GENERATIONS / str(generation) / SETTINGS
    saved = read_json(path)
    return None if saved is None else parse_settings(saved, path)


def parse_settings(saved: Mapping[str, Any], path: Path) -> Settings:
    """Settings as they were saved.

    Args:
        saved: The values.
        path: The file, for messages.

    Raises:
        StoreCorruptError: They are damaged.
    """
    try:
        quantization = Quantization(**saved["quantization"])
        checked_quantization(quantization)
        return Settings(
            quantization,
            bool(saved["has_deletes"]),
            bool(saved.get("switching", False)),
            bool(saved.get("automatic", False)),
            bool(saved.get("graph", False)),
            int(saved.get("written", 0)),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise StoreCorruptError(f"{path} is damaged ({error!r:.500}); {REMEDY}") from error
