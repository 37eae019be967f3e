"""Hits and metadata, cut to what there is room for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipelines.mcp_server import limits
from pipelines.mcp_server.replies import HitReply
from retrieval.datatypes import Hit


def hit_reply(hit: Hit, share: int) -> HitReply:
    """A hit as the answer has it.

    Args:
        hit: The hit.
        share: How many characters of text there are for it.
    """
    start, end = _window(hit, share)
    arms = hit.arms
    return HitReply(
        rank=hit.rank,
        document_id=hit.document_id,
        title=hit.title[: limits.TITLE_CHARACTERS],
        headings=[heading[: limits.TITLE_CHARACTERS] for heading in hit.headings],
        source=hit.source,
        text=hit.text[start:end],
        start=hit.start + start,
        end=hit.start + end,
        cut=end - start < len(hit.text),
        score=round(hit.score, 4),
        probability=None if hit.probability is None else round(hit.probability, 4),
        first_stage_rank=hit.first_stage_rank,
        first_stage_score=round(hit.first_stage_score, 4),
        rerank_score=None if hit.rerank_score is None else round(hit.rerank_score, 3),
        dense_rank=arms["dense"].rank if "dense" in arms else None,
        bm25_rank=arms["bm25"].rank if "bm25" in arms else None,
        metadata=bounded(hit.metadata),
    )


def _window(hit: Hit, share: int) -> tuple[int, int]:
    """The characters of a passage to show: all, or so many around what the cross-encoder read."""
    if len(hit.text) <= share:
        return 0, len(hit.text)
    read_start, read_end = hit.read or (0, 0)
    start = min(max(0, (read_start + read_end - share) // 2), len(hit.text) - share)
    return start, start + share


def bounded(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """As much metadata as there is room for; what is left out is named."""
    kept: dict[str, Any] = {}
    left_out = []
    room = limits.METADATA_CHARACTERS
    for name, value in metadata.items():
        size = len(json.dumps(value)) + len(name)
        if size <= room:
            room -= size
            kept[name] = value
        else:
            left_out.append(name[:100])
    if left_out:
        kept["(left out, too long)"] = left_out[:20]
    return kept
