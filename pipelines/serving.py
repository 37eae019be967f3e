"""One generation of an index in use, and how it ends: not before the last search in it has ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from pipelines.search import Search
from retrieval.protocols import Encoder, Store

Made = TypeVar("Made")


class Serving:
    """An encoder, the store with its vectors, and the search over both.

    Args:
        encoder: Encoder of the generation.
        store: Open store of the generation.
        search: Search over both.
    """

    def __init__(self, encoder: Encoder, store: Store, search: Search) -> None:
        self.encoder = encoder
        self.store = store
        self.search = search
        self._users = 0
        self._changed = threading.Condition()

    def enter(self) -> None:
        """Begin to use it."""
        with self._changed:
            self._users += 1

    def leave(self) -> None:
        """End what `enter` began."""
        with self._changed:
            self._users -= 1
            self._changed.notify_all()

    def wait_until_unused(self) -> None:
        """Wait for those who have entered; nobody new may come."""
        with self._changed:
            self._changed.wait_for(lambda: self._users == 0)


class Switch:
    """Points at the generation that serves; searches that are under way keep the one that they have begun with.

    Args:
        serving: The first one.
    """

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self._lock = threading.Lock()

    @contextmanager
    def use(self) -> Iterator[Serving]:
        """The generation that serves, kept open meanwhile."""
        with self._lock:
            serving = self.serving
            serving.enter()
        try:
            yield serving
        finally:
            serving.leave()

    def to(self, serving: Serving) -> Serving:
        """Let another one serve.

        Returns:
            The one that served before, when no search uses it any more; its store is still open.
        """
        with self._lock:
            before, self.serving = self.serving, serving
        before.wait_until_unused()
        return before


def once(make: Callable[[], Made]) -> Callable[[], Made]:
    """A function that makes something at its first call and returns the same from then on, from any thread."""
    lock = threading.Lock()
    made: list[Made] = []

    def get() -> Made:
        with lock:
            if not made:
                made.append(make())
            return made[0]

    return get
