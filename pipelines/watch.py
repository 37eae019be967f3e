"""Keeps an index in step with folders for as long as it runs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipelines.folder_changes import Applied, StoppedError, apply_changes, sync_folder, that_matter
from pipelines.lease import IndexLease
from retrieval.config import DocumentsConfig
from retrieval.errors import DocumentError, RetrievalError

EventKind = Literal["synced", "changed", "watching", "gone", "back", "failed", "stopped"]

_MANY_PATHS = 500
"""From so many changed paths on the whole folder is read: after a checkout, or where the system lost count."""
_FIRST_RETRY_S = 5.0
_LONGEST_RETRY_S = 300.0


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """Something that people may want to know.

    Args:
        kind: ``synced`` after a whole folder, ``changed`` after some paths, ``watching`` when waiting begins, ``gone``
            and ``back`` for a folder, ``failed`` when it will be tried again, ``stopped`` at the end.
        root: The folder; ``None`` where it is about all of them.
        applied: What changed in the index.
        paths: What had changed in the folder, relative to it.
        message: What went wrong.
    """

    kind: EventKind
    root: Path | None = None
    applied: Applied = Applied()
    paths: tuple[str, ...] = ()
    message: str = ""


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """How to watch.

    Args:
        debounce_ms: Milliseconds that must pass without a change before the last ones are read; at most ten times as
            long in all.
        poll_ms: Milliseconds between two looks at every file, for file systems that tell nothing (network drives);
            ``None`` lets the operating system tell.
        check_ms: Milliseconds between two looks whether the folders are still there.
    """

    debounce_ms: int = 500
    poll_ms: int | None = None
    check_ms: int = 250


@dataclass(slots=True)
class _Root:
    path: Path
    there: bool = True
    identity: tuple[int, int] | None = None
    pending: set[Path] = field(default_factory=set)
    all_of_it: bool = True
    retry_at: float = 0.0
    pause: float = field(default_factory=lambda: _FIRST_RETRY_S)

    def look(self) -> tuple[int, int] | None:
        """What the path is now; ``None`` when it is no folder that can be listed."""
        try:
            os.scandir(self.path).close()
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino


class FolderWatch:
    """Watches folders; `run` may be called once.

    Args:
        roots: Folders, none inside another.
        lease: Opens the index for each batch.
        documents: How files are read, and which names are ignored.
        on_event: Told what happens.
        stop: Ends it when it is set.
        options: How to watch.

    Raises:
        ValueError: A path is not a folder, or is inside another one.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        lease: IndexLease,
        documents: DocumentsConfig,
        on_event: Callable[[WatchEvent], None],
        stop: threading.Event,
        options: WatchOptions = WatchOptions(),
    ) -> None:
        resolved = list(dict.fromkeys(root.expanduser().resolve() for root in roots))
        for root in resolved:
            if not root.is_dir():
                raise ValueError(f"{root} is not a folder; name a folder, also for a single file in it")
            above = next((other for other in resolved if other != root and root.is_relative_to(other)), None)
            if above is not None:
                raise ValueError(f"{root} is inside {above}, which is watched already; leave it out")
        self._roots = [_Root(root) for root in resolved]
        self._lease = lease
        self._documents = documents
        self._on_event = on_event
        self._stop = stop
        self._options = options

    def sync(self) -> bool:
        """Read all folders once.

        Returns:
            Whether everything could be read.
        """
        for root in self._roots:
            root.identity = root.look()
        self._work()
        return not any(root.all_of_it or root.pending for root in self._roots)

    def run(self) -> None:
        """Read all folders, then what changes in them, until it is stopped.

        A failure is told and tried again. A folder that vanishes is waited for; its documents stay.
        """
        for root in self._roots:
            root.identity = root.look()
        while not self._stop.is_set():
            with closing(self._batches([root.path for root in self._roots if root.identity is not None])) as batches:
                for first, changed in batches:
                    self._take(changed)
                    self._work()
                    watched = any(root.identity is not None for root in self._roots)
                    if first and watched and not self._stop.is_set():
                        self._on_event(WatchEvent("watching"))
                    if not self._same_folders():
                        break
        self._on_event(WatchEvent("stopped"))

    def _batches(self, paths: Sequence[Path]) -> Generator[tuple[bool, set[Path]], None, None]:
        """Paths that changed, every now and then none, and whether it is the first time.

        The first time comes when the system watches already, so that what changes while folders are read is not missed.
        """
        from watchfiles import Change, watch

        options = self._options
        changes = watch(
            *paths,
            watch_filter=None,
            debounce=10 * options.debounce_ms,
            step=options.debounce_ms,
            stop_event=self._stop,
            rust_timeout=options.check_ms,
            yield_on_timeout=True,
            raise_interrupt=False,
            force_polling=options.poll_ms is not None,
            poll_delay_ms=options.poll_ms or 300,
            ignore_permission_denied=True,
        )
        first = True
        try:
            if paths:
                for batch in changes:
                    # A folder counts as modified when something in it came or went, which is told by itself.
                    yield first, {Path(at) for kind, at in batch if kind != Change.modified or not os.path.isdir(at)}
                    first = False
                return
        except OSError:  # a folder went before it could be watched
            pass
        yield first, set()
        self._stop.wait(options.check_ms / 1000)

    def _take(self, changed: set[Path]) -> None:
        for root in self._roots:
            inside = {path for path in changed if path != root.path and path.is_relative_to(root.path)}
            try:
                matter = that_matter(inside, root.path, self._documents)
            except DocumentError:  # told when it is read
                matter = inside
            if matter:
                root.pending |= matter
                root.retry_at = 0.0

    def _same_folders(self) -> bool:
        """Notice folders that went or came back; false when watching has to begin anew."""
        same = True
        for root in self._roots:
            now = root.look()
            if now == root.identity:
                continue
            same = False
            root.identity = now
            if now is None:
                root.there = False
                self._on_event(WatchEvent("gone", root.path))
                continue
            root.all_of_it = True
            if not root.there:
                root.there = True
                self._on_event(WatchEvent("back", root.path))
        return same

    def _work(self) -> None:
        now = time.monotonic()
        for root in self._roots:
            due = (root.all_of_it or root.pending) and root.identity is not None and now >= root.retry_at
            if due and not self._stop.is_set():
                self._read(root)

    def _read(self, root: _Root) -> None:
        paths, whole = set(root.pending), root.all_of_it or len(root.pending) >= _MANY_PATHS
        try:
            with self._lease.use(create=True) as pipeline:
                if whole:
                    applied = sync_folder(pipeline, root.path, self._stop.is_set)
                else:
                    applied = apply_changes(pipeline, root.path, paths, self._stop.is_set)
        except StoppedError:
            return
        except (RetrievalError, OSError) as error:
            if self._stop.is_set():
                return
            root.retry_at = time.monotonic() + root.pause
            root.pause = min(2 * root.pause, _LONGEST_RETRY_S)
            self._on_event(WatchEvent("failed", root.path, message=str(error)))
            return
        root.pending -= paths
        root.all_of_it, root.pause = False, _FIRST_RETRY_S
        names = tuple(sorted(path.relative_to(root.path).as_posix() for path in paths))
        if whole:
            self._on_event(WatchEvent("synced", root.path, applied))
        elif applied.wrote or applied.rejected:
            self._on_event(WatchEvent("changed", root.path, applied, names))
