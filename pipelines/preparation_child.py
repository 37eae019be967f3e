"""The process that reads, cuts and encodes beside the one that writes; started by `pipelines.preparation_process`."""

from __future__ import annotations

import gc
import logging
import os
import queue
import signal
import threading
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pipelines.preparation import PASSAGES_PER_BATCH, Preparing, ReadBatch, in_writing_order
from pipelines.preparation_messages import (
    AHEAD,
    OUT_OF_MEMORY,
    Channel,
    Cut,
    Encoded,
    Ended,
    Failed,
    Places,
    Read,
    Ready,
    Recipe,
    portable,
)
from retrieval import __version__
from retrieval.chunking import Chunker
from retrieval.datatypes import Document, Rejected
from retrieval.documents import open_documents
from retrieval.encoders import Bm25Encoder, StaticEncoder
from retrieval.errors import RetrievalError

_MESSAGES_WAITING = 4


def main() -> None:
    """Work for the process at the other end of standard input and output until it closes them."""
    # The process that writes decides what becomes of an interrupt.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = Channel(os.fdopen(0, "rb", closefd=False), os.fdopen(os.dup(1), "wb"))
    # Whatever a reader prints must not come between the messages.
    os.dup2(2, 1)
    try:
        recipe = channel.receive()
    except EOFError:
        return
    outgoing: queue.Queue[object] = queue.Queue(_MESSAGES_WAITING)
    threading.Thread(target=_send, args=(channel, outgoing), daemon=True).start()
    requests: queue.Queue[Cut] = queue.Queue()
    threading.Thread(target=_work, args=(recipe, requests, outgoing), daemon=True).start()
    _receive(channel, requests)


def _work(recipe: Recipe, requests: queue.Queue[Cut], outgoing: queue.Queue[object]) -> None:
    try:
        work = _prepare(recipe)
    except Exception as error:
        outgoing.put(Ready(f"{type(error).__name__}: {error}"))
        return
    # What is there stays, and next to nothing of what comes is in cycles: a collection would find nothing.
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    logging.basicConfig(level=recipe.log_level, handlers=[_Forwarding(outgoing)], force=True)
    outgoing.put(Ready())
    _Worker(recipe, work, requests, outgoing).run()


def _receive(channel: Channel, requests: queue.Queue[Cut]) -> None:
    """Take requests until nobody makes any more, and end the process then, whatever it is doing."""
    try:
        while True:
            requests.put(channel.receive())
    except (EOFError, OSError):
        os._exit(0)


def _send(channel: Channel, outgoing: queue.Queue[object]) -> None:
    try:
        while True:
            _send_one(channel, outgoing.get())
    except OSError:
        os._exit(0)


def _send_one(channel: Channel, message: object) -> None:
    try:
        channel.send(message)
    except OSError:
        raise
    except Exception as error:  # whatever a reader has put into a document
        channel.send(_failed(error, reading=isinstance(message, Read)))


def _prepare(recipe: Recipe) -> Preparing:
    if recipe.version != __version__:
        raise ImportError(f"this is version {__version__} of two-stage-retrieval, not {recipe.version}")
    encoder = StaticEncoder.open(recipe.encoder_folder, dimensions=recipe.dimensions)
    if encoder.fingerprint != recipe.fingerprint:
        raise ValueError(f"{recipe.encoder_folder} holds {encoder.fingerprint}, not {recipe.fingerprint}")
    return Preparing(encoder, Bm25Encoder(recipe.bm25), Chunker.of_encoder(recipe.chunking, encoder))


class _Worker:
    """Answers requests, and reads ahead while there are none."""

    def __init__(
        self, recipe: Recipe, work: Preparing, requests: queue.Queue[Cut], outgoing: queue.Queue[object]
    ) -> None:
        self._recipe = recipe
        self._work = work
        self._requests = requests
        self._outgoing = outgoing
        self._read: deque[Sequence[Document]] = deque()

    def run(self) -> None:
        """Work for ever; the end of the requests ends the process."""
        try:
            self._run()
        except Exception as error:
            self._fail(error, reading=False)

    def _run(self) -> None:
        source = None if self._recipe.path is None else self._batches(self._recipe.path)
        while True:
            if source is not None and len(self._read) < AHEAD and self._requests.empty():
                source = self._read_one(source)
            else:
                self._answer(self._requests.get())

    def _batches(self, path: Path) -> Iterator[ReadBatch]:
        rejected: list[Rejected] = []
        documents = open_documents(path, self._recipe.documents, on_rejected=rejected.append)
        yield from self._work.batches(documents, rejected)

    def _read_one(self, source: Iterator[ReadBatch]) -> Iterator[ReadBatch] | None:
        try:
            batch = next(source, None)
        except Exception as error:
            # What was read before is still wanted.
            self._fail(error, reading=True)
            return None
        if batch is None:
            self._outgoing.put(Ended())
            return None
        self._read.append(batch.documents)
        self._outgoing.put(Read.of(batch, self._work.busy.read))
        return source

    def _answer(self, request: Cut) -> None:
        if request.texts is None:
            read = self._read.popleft()
            documents: Sequence[Document] = [read[row] for row in request.rows]
        else:
            documents = request.texts.documents()
        passages = self._work.cut(documents)
        self._outgoing.put(Places.of(passages))
        stream = (passage for _, passage in in_writing_order(passages))
        while group := list(islice(stream, PASSAGES_PER_BATCH)):
            encoded = self._work.encode(group, request.average_length)
            self._outgoing.put(Encoded(encoded, self._work.busy.encode))

    def _fail(self, error: Exception, *, reading: bool) -> None:
        self._outgoing.put(_failed(error, reading=reading))


def _failed(error: Exception, *, reading: bool) -> Failed:
    known = RetrievalError(OUT_OF_MEMORY) if isinstance(error, MemoryError) else portable(error)
    known.add_note("".join(traceback.format_exception(error)))
    return Failed(known, reading)


class _Forwarding(logging.Handler):
    """Hands log records to the other process, which knows what to do with them."""

    def __init__(self, outgoing: queue.Queue[object]) -> None:
        super().__init__()
        self._outgoing = outgoing

    def emit(self, record: logging.LogRecord) -> None:
        facts: dict[str, Any] = {**record.__dict__, "msg": record.getMessage(), "args": None, "exc_info": None}
        self._outgoing.put(logging.makeLogRecord(facts))


if __name__ == "__main__":
    main()
