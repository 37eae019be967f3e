"""When an embedded index is put in order by itself, after an ingest has ended and everything can be searched.

Putting in order writes all points into one segment that opens fast, drops the dead, and builds the graph where the
index is large enough for one. What was built is used again, so it costs some 40 us for each passage of the index and
the graph of the new ones. Between two times the index grows by a tenth, and what came since is searched one by one.
"""

from __future__ import annotations

from retrieval.config import Config
from retrieval.datatypes import Quantization
from retrieval.stores.generation_settings import Settings

AUTOMATIC = Quantization("turbo", 2, rescore=True, oversampling=4.0)
"""What ``quantization.kind: auto`` compresses to; a graph over 100,000 then finds 97 of the 100 nearest vectors."""

_LEAST_WRITTEN = 10_000
_SHARE_WRITTEN = 0.1


def wants_graph(config: Config, passages: int) -> bool:
    """Whether an index of this size is searched through a graph."""
    return config.hnsw.m > 0 and passages >= max(config.hnsw.threshold, 1)


def wants_codes(config: Config, settings: Settings, passages: int) -> bool:
    """Whether vectors are to be compressed now that nobody has said how."""
    chooses = settings.automatic and config.quantization.kind == "auto" and not settings.switching
    return chooses and settings.quantization.kind == "none" and passages >= config.quantization.auto_from


def is_due(config: Config, settings: Settings, passages: int) -> bool:
    """Whether the index is to be put in order.

    Args:
        config: Takes ``hnsw``.
        settings: What the store remembers of the last time.
        passages: How many the index holds.
    """
    if wants_graph(config, passages) and not settings.graph:
        return True
    return settings.written >= max(_LEAST_WRITTEN, passages * _SHARE_WRITTEN)
