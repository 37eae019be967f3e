"""What the tests of the adapters share: an index, and the mark of a test that stands behind a promise of the docs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pipelines import TwoStagePipeline
from retrieval.datatypes import Document
from tests.conftest import paper_corpus

COLUMNS = ("scores", "ranks", "metadata", "async", "streaming", "copied and written")
Test = TypeVar("Test", bound=Callable[..., Any])

PIPES = "copper pipe leak plumber"
"""BM25 finds pipe-1, pipe-2, pipe-3, pipe-4 in this order: they share four of its words, three, two, one."""


def keeps(adapter: str, *columns: str) -> Callable[[Test], Test]:
    """Mark a test as the one behind cells of the table in docs/integrations.md.

    Args:
        adapter: ``langchain.TwoStageRetriever``.
        columns: Of `COLUMNS`.
    """
    unknown = set(columns) - set(COLUMNS)
    if unknown or not columns:
        raise ValueError(f"columns are of {COLUMNS}, not {columns}")

    def mark(test: Test) -> Test:
        cells = getattr(test, "keeps", ())
        test.keeps = (*cells, *((adapter, column) for column in columns))  # type: ignore[attr-defined]
        return test

    return mark


def build_index(path: Path) -> Path:
    """An index of the paper corpus, and of a document with a title, a source and a list in its metadata."""
    with TwoStagePipeline.open(path) as pipeline:
        pipeline.ingest(paper_corpus())
        pipeline.ingest(
            [
                Document(
                    "moon",
                    "Tides follow the moon.",
                    title="Tides",
                    metadata={"tags": ["sea", "sky"], "topic": "moon"},
                    source="/notes/moon.md",
                )
            ]
        )
    return path


def of_year(year: int) -> dict[str, Any]:
    """A filter for the documents of a year; pipe-1 is of 2001."""
    return {"must": [{"key": "metadata.year", "match": {"value": year}}]}
