"""Preparation with the help of another process: it reads a path, or gets the documents that are read here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from pipelines.preparation import Busy, Preparing, ReadBatch
from pipelines.preparation_messages import AHEAD, Cut, Ended, Texts
from pipelines.preparation_process import OtherProcess
from retrieval.datatypes import Document, Passage, Rejected
from retrieval.encoders import EncodedPassages


class PreparationBeside:
    """Lets another process read a path, cut and encode; see `pipelines.preparation.Preparation`.

    Args:
        process: The process, which was given the path.
        work: The parts that do the work here.
        average_length: Terms per passage that passages are going to be weighed with.
    """

    ahead = AHEAD

    def __init__(self, process: OtherProcess, work: Preparing, average_length: float) -> None:
        self._process = process
        self._answers = _Answers(process, work)
        self._average_length = average_length
        self._asked: deque[list[Document]] = deque()
        self.busy = work.busy

    def has_read(self) -> bool:
        """See `Preparation`."""
        return self._process.has_read()

    def read(self) -> ReadBatch | None:
        """See `Preparation`."""
        message = self._process.read()
        if isinstance(message, Ended):
            return None
        self.busy.read = message.busy
        return message.batch()

    def cut(self, batch: ReadBatch, rows: Sequence[int]) -> None:
        """See `Preparation`."""
        self._asked.append([batch.documents[row] for row in rows])
        self._process.ask(Cut(self._average_length, rows))

    def passages(self) -> list[list[Passage]]:
        """See `Preparation`."""
        return self._process.places().cut(self._asked.popleft())

    def encoded(self, groups: Sequence[Sequence[Passage]], average_length: float) -> Iterator[EncodedPassages]:
        """See `Preparation`."""
        return self._answers.encoded(groups, self._average_length, average_length)

    def close(self) -> None:
        """See `Preparation`."""
        self._process.close()


class PreparationShared:
    """Reads here; cuts and encodes here until another process is ready to do it; see `Preparation`.

    Args:
        work: The parts that do the work here.
        documents: Stream of documents.
        rejected: Where its reader puts what it cannot use.
        start: Called before every batch with the characters of all before it; starts the other process when it pays.
        average_length: Terms per passage that passages are weighed with, 0 as long as that is not known.
    """

    def __init__(
        self,
        work: Preparing,
        documents: Iterable[Document],
        rejected: list[Rejected],
        *,
        start: Callable[[int], OtherProcess | None],
        average_length: Callable[[], float],
    ) -> None:
        self._work = work
        self._batches = work.batches(documents, rejected)
        self._start = start
        self._average_length = average_length
        self._characters = 0
        self._process: OtherProcess | None = None
        self._answers: _Answers | None = None
        self._asked: deque[tuple[list[Document], float | None]] = deque()
        self._there: float | None = None
        self.busy = work.busy

    @property
    def ahead(self) -> int:
        """See `Preparation`."""
        return 1 if self._answers is None else AHEAD

    def has_read(self) -> bool:
        """See `Preparation`."""
        return True

    def read(self) -> ReadBatch | None:
        """See `Preparation`."""
        if self._process is None:
            self._process = self._start(self._characters)
        waiting = self._answers is None and self._process is not None and self._average_length() > 0
        if waiting and self._process is not None and self._process.is_ready(wait=False):
            self._answers = _Answers(self._process, self._work)
        batch = next(self._batches, None)
        if batch is not None:
            self._characters += sum(len(document.text) for document in batch.documents)
        return batch

    def cut(self, batch: ReadBatch, rows: Sequence[int]) -> None:
        """See `Preparation`."""
        documents = [batch.documents[row] for row in rows]
        average = None
        if self._answers is not None and self._process is not None:
            average = self._average_length()
            self._process.ask(Cut(average, texts=Texts.of(documents)))
        self._asked.append((documents, average))

    def passages(self) -> list[list[Passage]]:
        """See `Preparation`."""
        documents, self._there = self._asked.popleft()
        if self._there is None or self._process is None:
            return self._work.cut(documents)
        return self._process.places().cut(documents)

    def encoded(self, groups: Sequence[Sequence[Passage]], average_length: float) -> Iterator[EncodedPassages]:
        """See `Preparation`."""
        if self._there is None or self._answers is None:
            return (self._work.encode(group, average_length) for group in groups)
        return self._answers.encoded(groups, self._there, average_length)

    def close(self) -> None:
        """See `Preparation`."""
        if self._process is not None:
            self._process.close()


class _Answers:
    """Takes vectors from the other process, and notes how long it has worked."""

    def __init__(self, process: OtherProcess, work: Preparing) -> None:
        self._process = process
        self._work = work
        self._counted = 0.0

    def encoded(
        self, groups: Sequence[Sequence[Passage]], asked_length: float, average_length: float
    ) -> Iterator[EncodedPassages]:
        for group in groups:
            answer = self._process.encoded()
            busy: Busy = self._work.busy
            busy.encode += answer.busy - self._counted
            self._counted = answer.busy
            # Only the first batch of an index can have turned out to be the last, and its passages to be the average.
            yield answer.passages if asked_length == average_length else self._work.encode(group, average_length)
