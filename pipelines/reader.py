"""Searching an embedded index while other processes search it, and one of them writes to it.

A reader has a private copy of the last complete state (`retrieval.stores.published`). When a newer one is published the
next search begins with that, at most once a second; searches that are under way end with the state that they have begun
with.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from pipelines.opening import open_index_encoder, settings_of
from pipelines.serving import Serving, Switch
from pipelines.two_stage import TwoStagePipeline
from retrieval.encoders import Bm25Encoder
from retrieval.errors import RetrievalError, StoreError
from retrieval.manifest import manifest_from_json, require_same_bm25, require_same_encoder, same_encoder
from retrieval.stores import peek_index
from retrieval.stores.published_views import Stamp, View, stamp_of
from retrieval.stores.reading import open_view, take_view

if TYPE_CHECKING:
    from retrieval.config import Config
    from retrieval.protocols import Encoder, Reranker
    from retrieval.stores.read_only import ReadOnlyStore

_PAUSE_S = 1.0
_logger = logging.getLogger(__name__)


class IndexReader(TwoStagePipeline):
    """A pipeline that searches and changes nothing; `TwoStagePipeline.open` makes one.

    Args:
        config: Settings; ``None`` takes those that the index was built with, also when it is built anew.
        path: Folder of the index.
        open_reranker: As for `TwoStagePipeline`.

    Raises:
        StoreError: There is no index, or no complete state of it.
        StoreBusyError: Another process writes to it and has published nothing.
        RetrievalError: As for `TwoStagePipeline.open`.
    """

    def __init__(self, config: Config | None, path: Path, open_reranker: Callable[[], Reranker]) -> None:
        self._given = config
        root = path.resolve()
        view = take_view(config or settings_of(root), root)
        settings, encoder, store = _opened(config, view, None)
        try:
            super().__init__(
                settings, encoder=encoder, sparse=Bm25Encoder(settings.bm25), store=store, open_reranker=open_reranker
            )
        except BaseException:
            store.close()
            raise
        self._write_lock = _Refused(root)
        self._closing: list[threading.Thread] = []
        self._following = _Following(self._switch.serving, root, view.stamp, self._renew)
        self._switch = self._following

    def refresh(self) -> bool:
        """Begin to read the newest state, as every search does.

        Returns:
            Whether there was a newer one.

        Raises:
            RetrievalError: It cannot be read; the reader goes on with the one that it has.
        """
        return self._following.follow()

    def close(self) -> None:
        """Remove the copies that were read; closing twice is fine."""
        super().close()
        for thread in self._closing:
            thread.join()

    def _renew(self) -> Stamp | None:
        view = take_view(self._given or settings_of(self._following.root), self._following.root)
        settings, encoder, store = _opened(self._given, view, self.encoder)
        try:
            manifest = manifest_from_json(store.read_manifest() or {}, store.location)
            require_same_encoder(manifest, encoder.fingerprint, store.location)
            require_same_bm25(manifest, settings, store.location)
            if settings.bm25 != self.config.bm25:
                self.sparse = Bm25Encoder(settings.bm25)
            self.config = settings
            serving = self._serving(encoder, store, manifest)
        except BaseException:
            store.close()
            raise
        self._manifest = manifest
        before = self._following.put(serving)
        self._closing = [thread for thread in self._closing if thread.is_alive()]
        # Whoever is in the middle of a search may be the one who waits here.
        self._closing.append(threading.Thread(target=_close_when_unused, args=[before], name="retrieval-closing"))
        self._closing[-1].start()
        return view.stamp


class _Following(Switch):
    """Turns to a newer state before it is used.

    Args:
        serving: The state to begin with.
        root: Folder of the index.
        stamp: Its stamp.
        renew: Puts a newer one in its place and gives its stamp.
    """

    def __init__(self, serving: Serving, root: Path, stamp: Stamp | None, renew: Callable[[], Stamp | None]) -> None:
        super().__init__(serving)
        self.root = root
        self._stamp = stamp
        self._renew = renew
        self._renewing = threading.Lock()
        self._not_before = 0.0

    @contextmanager
    def use(self) -> Iterator[Serving]:
        """The newest state, or the one before where that is a moment old, or the next cannot be read."""
        if stamp_of(self.root) != self._stamp and time.monotonic() >= self._not_before:
            try:
                self.follow(wait=False)
            except RetrievalError as error:
                self._not_before = time.monotonic() + _PAUSE_S
                _logger.warning("searching the state before, the newest cannot be read: %s", error)
        with super().use() as serving:
            yield serving

    def follow(self, *, wait: bool = True) -> bool:
        """Turn to the newest state.

        Args:
            wait: Whether to wait for a thread that is at it.

        Returns:
            Whether this thread has turned to a newer one.
        """
        if not self._renewing.acquire(blocking=wait):
            return False
        try:
            if stamp_of(self.root) == self._stamp:
                return False
            self._stamp = self._renew()
            self._not_before = time.monotonic() + _PAUSE_S
            return True
        finally:
            self._renewing.release()

    def put(self, serving: Serving) -> Serving:
        """Let another state serve, and return the one before, which may be in use."""
        with self._lock:
            before, self.serving = self.serving, serving
        return before


class _Refused:
    """Takes the place of the lock for changes."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __enter__(self) -> NoReturn:
        raise StoreError(f"index {self._root} was opened read-only; open it without read_only to change it")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Never entered."""


def _opened(config: Config | None, view: View, last: Encoder | None) -> tuple[Config, Encoder, ReadOnlyStore]:
    """Settings, encoder and store of a view, which is removed where one of them cannot be had.

    Args:
        config: Settings; ``None`` takes those of the view.
        view: The view.
        last: The encoder of the state before; used again where it is the same.
    """
    try:
        settings = config or settings_of(view.folder)
        stored = peek_index(settings, view.folder)
        if stored is None:
            raise StoreError(f"no index in {view.root}")
        stored = replace(stored, location=str(view.root))
        encoder = last
        if encoder is None or not same_encoder(stored.manifest.encoder, encoder.fingerprint):
            encoder = open_index_encoder(settings, stored)
            require_same_encoder(stored.manifest, encoder.fingerprint, stored.location)
    except BaseException:
        view.release()
        raise
    return settings, encoder, open_view(settings, view, dim=encoder.dim)


def _close_when_unused(serving: Serving) -> None:
    serving.wait_until_unused()
    serving.store.close()
