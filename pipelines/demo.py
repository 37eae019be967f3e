"""The whole pipeline in one go, over the documentation that every Python carries with it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.ingest import ProgressCallback
from pipelines.python_docs import python_documents
from pipelines.two_stage import TwoStagePipeline
from retrieval.config import Config
from retrieval.datatypes import Hit, IngestReport, Results

QUESTIONS = (
    "convert text to a date",
    "pick a random element from a list",
    "automatically close a file when leaving a block",
    "check whether two floating point numbers are close to each other",
    "run an external command and get its output",
)
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class DemoAnswer:
    """One question with the order of the first stage and the order after reading.

    Args:
        question: The question.
        first_stage: The documents that the first stage puts on top.
        results: What a search returns, after the cross-encoder has read.
        first_stage_places: For each hit of ``results`` the place of its document in the order of the first stage.
    """

    question: str
    first_stage: tuple[Hit, ...]
    results: Results
    first_stage_places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What the demo did.

    Args:
        ingest: The ingest.
        documents: Documents in the index.
        passages: Passages in the index.
        answers: One for each of `QUESTIONS`.
    """

    ingest: IngestReport
    documents: int
    passages: int
    answers: tuple[DemoAnswer, ...]


def run_demo(
    config: Config | None = None, *, keep: Path | None = None, on_progress: ProgressCallback | None = None
) -> DemoReport:
    """Ingest the documentation of this Python and ask it `QUESTIONS`.

    Args:
        config: Settings; ``None`` for the defaults.
        keep: Folder of the index; ``None`` for a temporary one.
        on_progress: Called while ingesting.

    Raises:
        RetrievalError: As for `TwoStagePipeline.open`.
    """
    with _index_folder(keep) as folder, TwoStagePipeline.open(folder, config) as pipeline:
        report = pipeline.ingest(python_documents(), on_progress=on_progress)
        pipeline.search(QUESTIONS[0])  # loads the cross-encoder, so that the times below are those of searching
        return DemoReport(
            ingest=report,
            documents=pipeline.manifest.documents,
            passages=pipeline.manifest.passages,
            answers=tuple(_ask(pipeline, question) for question in QUESTIONS),
        )


def _ask(pipeline: TwoStagePipeline, question: str) -> DemoAnswer:
    results = pipeline.search(question, _SHOWN)
    first = pipeline.search(question, results.candidates or 1, rerank=False)
    places = {hit.document_id: hit.rank for hit in first}
    return DemoAnswer(
        question=question,
        first_stage=first[:_SHOWN],
        results=results,
        first_stage_places=tuple(places[hit.document_id] for hit in results),
    )


@contextmanager
def _index_folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="retrieval-demo-") as temporary:
        yield Path(temporary) / "index"
