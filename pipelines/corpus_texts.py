"""The texts that training reads: of files, folders, or an index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.progress import StepCallback
from retrieval.config import Config
from retrieval.datatypes import Rejected
from retrieval.documents import open_documents
from retrieval.errors import DocumentError

if TYPE_CHECKING:
    from pipelines.two_stage import TwoStagePipeline


class CorpusTexts:
    """The texts of files and folders, or of anything else that gives them, read anew each time.

    Args:
        name: For messages.
        read: Gives the texts; told what could not be used.
    """

    def __init__(self, name: str, read: Callable[[Callable[[Rejected], None]], Iterator[str]]) -> None:
        self.name = name
        self.texts = self.rejected = 0
        self._read = read

    @classmethod
    def of_paths(cls, paths: tuple[Path, ...], config: Config) -> CorpusTexts:
        """Documents as `retrieval ingest` reads them, each title and text.

        Raises:
            DocumentError: A path does not exist.
        """
        for path in paths:
            if not path.exists():
                raise DocumentError(f"there is no file or folder {path}")

        def read(reject: Callable[[Rejected], None]) -> Iterator[str]:
            for path in paths:
                for document in open_documents(path, config.documents, on_rejected=reject):
                    yield f"{document.title}\n{document.text}" if document.title else document.text

        return cls(", ".join(map(str, paths)), read)

    def __call__(self) -> Iterator[str]:
        """The texts from the beginning."""
        return self._read(lambda _: None)

    def require(self, least: int, on_progress: StepCallback) -> None:
        """Read all once, count, and refuse a corpus that is too small.

        Raises:
            DocumentError: There are fewer texts than ``least``.
        """
        rejected: list[None] = []
        for number, _ in enumerate(self._read(lambda _: rejected.append(None)), 1):
            self.texts = number
            if number % 1000 == 0:
                on_progress("reading the corpus", number, 0)
        self.rejected = len(rejected)
        if self.texts < least:
            raise DocumentError(
                f"{self.name} holds {self.texts} texts, too few to learn from; at least {least} are needed, "
                "or leave the corpus out to distil the teacher alone"
            )


def index_corpus(pipeline: TwoStagePipeline) -> CorpusTexts:
    """The passages of an open index, each title and text."""

    def read(reject: Callable[[Rejected], None]) -> Iterator[str]:
        for point in pipeline.store.scan(payload=["text", "title"]):
            title, text = str(point.payload["title"]), str(point.payload["text"])
            yield f"{title}\n{text}" if title else text

    return CorpusTexts(pipeline.store.location, read)
