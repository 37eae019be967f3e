"""The process that reads, cuts and encodes while this one writes.

The embedded engine holds the interpreter for as long as it writes, so that threads would gain nothing. The process is
started afresh, never forked: a fork of a process with an open index hangs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pipelines
from pipelines.preparation_messages import REMEDY, Channel, Cut, Encoded, Ended, Failed, Places, Read, Ready, Recipe
from retrieval.errors import RetrievalError

_START = "from pipelines.preparation_child import main; main()"
_PIPE_BYTES = 2**20
_logger = logging.getLogger(__name__)


class OtherProcess:
    """A process that prepares; it ends with this one, however that ends.

    Args:
        recipe: What it needs for its work.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, recipe: Recipe) -> None:
        package = Path(pipelines.__file__).parent.parent
        paths = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START],
            # Looking for plugins would read the metadata of all packages that are installed.
            env={"PYDANTIC_DISABLE_PLUGINS": "__all__", **os.environ, "PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # An interrupt from the terminal is for this process, which ends the other one.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        incoming, outgoing = self._process.stdout, self._process.stdin
        assert incoming is not None
        assert outgoing is not None
        _enlarge(incoming.fileno())
        self._channel = Channel(incoming, outgoing)
        self._refusal: str | None = None
        # Neither grows without bounds: the process answers what it was asked and reads so far ahead.
        self._read: queue.Queue[Any] = queue.Queue()
        self._answers: queue.Queue[Any] = queue.Queue()
        self._receiver = threading.Thread(target=self._receive, name="retrieval-prepared", daemon=True)
        self._receiver.start()
        with contextlib.suppress(OSError):  # that it has died is found out when it should answer
            self._channel.send(recipe)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def is_ready(self, *, wait: bool) -> bool:
        """Whether it can work; false also when it never will, which is logged.

        Args:
            wait: Whether to wait until that is known.
        """
        if self._refusal is None and (wait or not self._read.empty()):
            try:
                self._refusal = self._expect(self._read, Ready).refusal
            except RetrievalError as error:
                self._refusal = str(error)
            if self._refusal:
                _logger.warning("reading and encoding stay in one process: %s", self._refusal)
        return self._refusal == ""

    def has_read(self) -> bool:
        """Whether `read` would not wait."""
        return not self._read.empty()

    def read(self) -> Read | Ended:
        """What it has read next.

        Raises:
            Exception: Reading failed, with this error.
            RetrievalError: The process died.
        """
        message: Read | Ended = self._expect(self._read, Read, Ended)
        return message

    def ask(self, request: Cut) -> None:
        """Ask for passages and vectors of documents.

        Raises:
            RetrievalError: The process died.
        """
        try:
            self._channel.send(request)
        except OSError as error:
            raise self._death() from error

    def places(self) -> Places:
        """Where the documents are cut that were asked for.

        Raises:
            Exception: The work failed, with this error.
            RetrievalError: The process died.
        """
        message: Places = self._expect(self._answers, Places)
        return message

    def encoded(self) -> Encoded:
        """The vectors of the next group of passages; raises as `places`."""
        message: Encoded = self._expect(self._answers, Encoded)
        return message

    def close(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        self._receiver.join()
        self._channel.close()

    def _receive(self) -> None:
        try:
            while True:
                message = self._channel.receive()
                if isinstance(message, logging.LogRecord):
                    logging.getLogger(message.name).handle(message)
                elif isinstance(message, Places | Encoded) or (isinstance(message, Failed) and not message.reading):
                    self._answers.put(message)
                else:
                    self._read.put(message)
        except (EOFError, OSError, ValueError):
            self._end(None)
        except Exception as error:
            reason = f"what the process that reads and encodes has sent cannot be used: {type(error).__name__}: {error}"
            self._end(Failed(RetrievalError(reason), reading=False))

    def _end(self, last: Failed | None) -> None:
        for messages in (self._read, self._answers):
            messages.put(last)

    def _expect(self, messages: queue.Queue[Any], *kinds: type[Any]) -> Any:
        message = messages.get()
        if message is None or isinstance(message, Failed):
            # Whoever asks again gets the same answer.
            messages.put(message)
            raise self._death() if message is None else message.error
        assert isinstance(message, kinds), f"{type(message).__name__} came out of turn"
        return message

    def _death(self) -> RetrievalError:
        code = self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        return RetrievalError(f"the process that reads and encodes {how}; {REMEDY}")


def _enlarge(pipe: int) -> None:
    """Let a pipe hold a whole message, so that the other process goes on while this one writes."""
    try:
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except (ImportError, AttributeError, OSError):
        _logger.debug("pipes keep their size on this system")
