"""A command on a terminal of its own, 80 columns wide."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b\][^\x07]*\x07|\x1b[=>]")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """Runs a command; what it writes is collected.

    Args:
        command: Program and arguments.
        environment: Variables on top of those of the tests.
        columns: Width.
    """

    def __init__(self, command: Sequence[str], *, columns: int = 80, **environment: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        variables = {**os.environ, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1", **environment}
        self._process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=variables,
            cwd=ROOT,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.raw = ""
        self._read_to = 0

    @classmethod
    def retrieval(cls, *arguments: object, columns: int = 80, **environment: str) -> Terminal:
        command = [sys.executable, "-W", "error", "-m", "pipelines", *map(str, arguments)]
        return cls(command, columns=columns, **environment)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._master >= 0:
            os.close(self._master)

    @property
    def text(self) -> str:
        """All that was written, without what only moves the cursor or colours."""
        return CONTROL.sub("", self.raw)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def until(self, expected: str, seconds: float = 30) -> str:
        """Wait for a text behind what was waited for last; returns what came until then."""
        deadline = time.monotonic() + seconds
        while True:
            text = self.text
            at = text.find(expected, self._read_to)
            if at >= 0:
                before = text[self._read_to : at]
                self._read_to = at + len(expected)
                return before
            if time.monotonic() > deadline or (not self._more(0.2) and self._process.poll() is not None):
                raise AssertionError(f"{expected!r} did not come; the last was: {text[self._read_to :][-1500:]!r}")

    def end(self, seconds: float = 60) -> int:
        """Wait for the end; returns the exit code."""
        deadline = time.monotonic() + seconds
        while self._more(0.1) or self._process.poll() is None:
            if time.monotonic() > deadline:
                self._process.send_signal(signal.SIGKILL)
                raise AssertionError(f"it did not end; the last was: {self.text[-1500:]!r}")
        os.close(self._master)
        self._master = -1
        return self._process.wait()

    def _more(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other end is closed
            return False
        self.raw += data.decode("utf-8", "replace")
        return bool(data)
