"""An index that is open only while somebody uses it.

An embedded index belongs to one process at a time. What runs for long and works now and then (an MCP server, a watched
folder) lets it go in between, so that a search or an ingest from a terminal finds it free, and waits its turn itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.presence import require_index
from pipelines.read_beside import open_published
from pipelines.two_stage import TwoStagePipeline
from retrieval.config import Config
from retrieval.encoders import Bm25Encoder
from retrieval.errors import IndexMismatchError, StoreBusyError
from retrieval.stores import open_store

Resolve = Callable[[], tuple[Config, Path | None]]
"""Gives the configuration and the folder of the index; asked at every opening, since both may have changed."""

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


class IndexLease:
    """Opens an index when it is needed and closes it when it has not been for a while; safe from several threads.

    What is costly to open, the encoder and the cross-encoder, is kept when the index is closed.

    Args:
        resolve: Gives the configuration and the folder.
        idle: Seconds after the last use until the index is closed; 0 closes it at once. An index on a server is kept
            open: others can use it all the same.
        wait: Seconds to wait for an index that another process holds.
        on_wait: Told once for each wait who holds it.
        stop: Ends a wait early when it is set.
        read_only: As for `TwoStagePipeline.open`; ``None`` where another process holds the index and has published a
            state of it.
        tell: Told then which state it is.
    """

    def __init__(
        self,
        resolve: Resolve,
        *,
        idle: float,
        wait: float,
        on_wait: Callable[[StoreBusyError], None] | None = None,
        stop: threading.Event | None = None,
        read_only: bool | None = False,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._resolve = resolve
        self._idle = idle
        self._wait = wait
        self._on_wait = on_wait
        self._stop = stop or threading.Event()
        self._read_only = read_only
        self._tell = tell
        self._lock = threading.Lock()
        self._users = 0
        self._left = 0.0
        self._pipeline: TwoStagePipeline | None = None
        self._last: TwoStagePipeline | None = None
        self._timer: threading.Timer | None = None

    @property
    def is_open(self) -> bool:
        """Whether the index is open now."""
        return self._pipeline is not None

    @contextmanager
    def use(self, *, create: bool = False) -> Iterator[TwoStagePipeline]:
        """The open pipeline, for the length of the block.

        Args:
            create: Make the index where there is none.

        Raises:
            StoreBusyError: Another process held the index for as long as this may wait.
            StoreError: There is no index, or it cannot be opened.
            RetrievalError: The settings cannot be used.
        """
        with self._lock:
            if self._pipeline is None:
                self._pipeline = self._opened(create)
            pipeline = self._pipeline
            self._users += 1
        try:
            yield pipeline
        finally:
            with self._lock:
                self._users -= 1
                self._left = time.monotonic()
                self._let_go()

    def close(self) -> None:
        """Close the index when it is open; it is opened again when it is used again."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._close()

    def _opened(self, create: bool) -> TwoStagePipeline:
        deadline = time.monotonic() + self._wait
        pause = _FIRST_PAUSE_S
        told = False
        while True:
            try:
                return self._open(create)
            except StoreBusyError as error:
                left = deadline - time.monotonic()
                if left <= 0 or self._stop.is_set():
                    raise
                if not told and self._on_wait is not None:
                    self._on_wait(error)
                told = True
                self._stop.wait(min(pause, left))
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _open(self, create: bool) -> TwoStagePipeline:
        config, folder = self._resolve()
        if not create:
            require_index(config, folder)
        if self._read_only:
            return TwoStagePipeline.open(folder or Path(), config, read_only=True)
        try:
            return self._alone(config, folder)
        except StoreBusyError as error:
            if self._read_only is None:
                return open_published(folder or Path(), config, None, error, self._tell)
            raise

    def _alone(self, config: Config, folder: Path | None) -> TwoStagePipeline:
        last = self._last
        if last is not None and last.config == config:
            try:
                return _reopened(last, folder)
            except IndexMismatchError:  # adapted or made anew meanwhile
                pass
        return TwoStagePipeline.open(folder or Path(), config)

    def _let_go(self) -> None:
        """Close when nobody has used it for long enough, or come back when that may be so; the lock is held."""
        if self._users or self._pipeline is None or self._pipeline.config.store.kind != "edge":
            return
        left = self._left + self._idle - time.monotonic()
        if left <= 0:
            self._close()
        elif self._timer is None:
            self._timer = threading.Timer(left, self._on_timer)
            self._timer.daemon = True
            self._timer.start()

    def _on_timer(self) -> None:
        with self._lock:
            self._timer = None
            self._let_go()

    def _close(self) -> None:
        if self._pipeline is not None:
            self._last, self._pipeline = self._pipeline, None
            self._last.close()


def _reopened(last: TwoStagePipeline, folder: Path | None) -> TwoStagePipeline:
    """A pipeline with the models of one that was closed.

    Raises:
        IndexMismatchError: The index has another encoder now.
    """
    config, encoder = last.config, last.encoder
    store = open_store(config, dim=encoder.dim, path=folder or Path())
    try:
        return TwoStagePipeline(
            config, encoder=encoder, sparse=Bm25Encoder(config.bm25), store=store, open_reranker=last.reranker
        )
    except BaseException:
        store.close()
        raise
