"""The pipeline in use, and how another one takes its place while requests go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipelines.two_stage import TwoStagePipeline


class _Held:
    def __init__(self, pipeline: TwoStagePipeline, close: Callable[[], None]) -> None:
        self.pipeline = pipeline
        self.close = close
        self.users = 0
        self.retired = False


class PipelineHolder:
    """Lends the pipeline in use; one that was replaced is closed when the last request has given it back.

    Args:
        pipeline: The first one; the holder closes it.
    """

    def __init__(self, pipeline: TwoStagePipeline) -> None:
        self._held = _Held(pipeline, pipeline.close)
        self._changed = threading.Condition()

    @property
    def current(self) -> TwoStagePipeline:
        """The pipeline in use, for what is over at once and needs no open store: nothing keeps it open."""
        return self._held.pipeline

    @contextmanager
    def use(self) -> Iterator[TwoStagePipeline]:
        """The pipeline in use, kept open meanwhile; for the event loop and any thread."""
        with self._changed:
            held = self._held
            held.users += 1
        try:
            yield held.pipeline
        finally:
            self._give_back(held)

    def replace(self, pipeline: TwoStagePipeline, *, close_before: Callable[[], None] | None = None) -> None:
        """Let another pipeline serve; who has begun with the one before ends with it.

        Args:
            pipeline: The next one; the holder closes it.
            close_before: Called in place of the ``close`` of the one before when nobody uses it any more.
        """
        with self._changed:
            before, self._held = self._held, _Held(pipeline, pipeline.close)
            before.retired = True
            if close_before is not None:
                before.close = close_before
            idle = not before.users
        if idle:
            before.close()

    def close(self) -> None:
        """Close the pipeline when nobody uses it any more."""
        with self._changed:
            held = self._held
            self._changed.wait_for(lambda: not held.users)
        held.close()

    def _give_back(self, held: _Held) -> None:
        with self._changed:
            held.users -= 1
            ended = held.retired and not held.users
            self._changed.notify_all()
        if ended:
            held.close()
