"""When compiled kernels are used: only for much text, never waited for, and switched off by one variable.

The first large bulk work on a machine starts a process that compiles them at low priority, while numpy does the work;
later processes load what it left. ``RETRIEVAL_COMPILED=0`` in the environment keeps everything in numpy.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retrieval.encoders.compiled import objects, places
from retrieval.encoders.compiled.objects import Kernels
from retrieval.encoders.compiled.places import UnusableError

SWITCH = "RETRIEVAL_COMPILED"
"""Environment variable; ``0`` switches compiled kernels off."""

SMALL = 2**11
"""Characters of one call below which numpy does the work in any case: there it is as fast."""

_BULK = 2**16  # characters of one call below which it is hardly bulk work
_HARDLY = 16  # how much less the characters of such a call count
_LOAD = 2**17  # characters of bulk work that pay for loading, which takes about 50 ms
_COMPILE = 2**20  # characters of bulk work after which compiling is worth the electricity
_BUILD = "import sys; sys.path[:] = {path!r}; from retrieval.encoders.compiled.build import main; sys.exit(main())"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CompiledStatus:
    """Whether encoding uses compiled kernels in this process; the vectors are the same without them.

    Args:
        state: ``off`` by the environment variable, ``waiting`` for enough text, ``compiling`` in another process,
            ``ready``, or ``failed``.
        reason: Why it is so, one sentence.
        file: The compiled kernels, when ``ready``.
    """

    state: Literal["off", "waiting", "compiling", "ready", "failed"]
    reason: str
    file: Path | None = None


class Start:
    """The way from no kernels to loaded ones.

    Args:
        folders: Where compiled kernels may lie; ``None`` for those of `places.folders`.
    """

    def __init__(self, folders: Sequence[Path] | None = None) -> None:
        self._folders = folders
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._characters = 0
        self._next = _LOAD
        self._kernels: Kernels | None = None
        self._builder: threading.Thread | None = None
        self._status = CompiledStatus("waiting", f"fewer than {_LOAD:,} characters of bulk work so far")

    @property
    def status(self) -> CompiledStatus:
        """Where things stand."""
        if _is_off():
            return CompiledStatus("off", f"{SWITCH} is 0")
        return self._status

    def kernels(self, characters: int) -> Kernels | None:
        """The kernels when they are there, ``None`` when numpy is to do the work.

        Args:
            characters: How much text this call has to work on.
        """
        if self._status.state == "ready":
            return None if characters < SMALL or _is_off() else self._kernels
        self._begin_when_forked()
        if characters < SMALL or self._status.state != "waiting" or _is_off():
            return None
        self._characters += characters if characters >= _BULK else characters // _HARDLY
        if self._characters < self._next or not self._lock.acquire(blocking=False):
            return None
        try:
            if self._status.state == "waiting" and not self._load():
                self._compile_when_worth()
        except UnusableError as error:
            self._fail(error)
        finally:
            self._lock.release()
        return self._kernels

    def _compile_when_worth(self) -> None:
        if self._characters < _COMPILE:
            self._next = _COMPILE
            self._status = CompiledStatus("waiting", f"not compiled; fewer than {_COMPILE:,} characters of bulk work")
            return
        self._status = CompiledStatus("compiling", "a process of its own compiles the kernels")
        # A daemon: whoever has finished before the compiler leaves it to do its work for the next process.
        self._builder = threading.Thread(target=self._build, name="kernels", daemon=True)
        self._builder.start()

    def look(self) -> CompiledStatus:
        """Load the kernels where they have been compiled; nothing is compiled or written."""
        self._begin_when_forked()
        if self._status.state != "waiting" or _is_off():
            return self.status
        with self._lock:
            try:
                if self._status.state == "waiting" and not self._load():
                    return CompiledStatus("waiting", "not compiled on this machine yet; the first bulk work does it")
            except UnusableError as error:
                return CompiledStatus("failed", str(error))
        return self.status

    def prepare(self) -> CompiledStatus:
        """Compile the kernels where that has not been done yet, load them, and wait for both."""
        if _is_off():
            return self.status
        self._begin_when_forked()
        if self._builder is not None:
            self._builder.join()
        with self._lock:
            try:
                if self._status.state != "ready" and not self._load():
                    self._build()
            except UnusableError as error:
                self._fail(error)
        return self.status

    def _begin_when_forked(self) -> None:
        """A child that was forked from a waiting process waits for nobody: the thread that does has stayed behind."""
        if self._process != os.getpid() and self._status.state != "ready":
            self._begin()

    def _load(self) -> bool:
        name = objects.file_name()
        for folder in self._places():
            path = folder / name
            try:
                self._kernels = objects.read(path)
            except FileNotFoundError:
                continue
            except UnusableError as error:
                _log.warning("compiled kernels are not loaded: %s", error)
                continue
            self._status = CompiledStatus("ready", f"loaded from {path}", path)
            _log.info("compiled kernels loaded from %s", path)
            return True
        return False

    def _places(self) -> Sequence[Path]:
        return places.folders() if self._folders is None else self._folders

    def _build(self) -> None:
        """Compile in another process, wait for it and load what it made."""
        if not sys.executable:
            self._fail("the path of the Python interpreter is not known")
            return
        command = [sys.executable, "-c", _BUILD.format(path=sys.path), *map(str, self._places())]
        try:
            with tempfile.TemporaryFile() as errors:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,
                    check=False,
                )
                errors.seek(0)
                lines = errors.read().decode("utf-8", "replace").strip().splitlines()
        except OSError as error:
            self._fail(f"the compiling process does not start: {error}")
            return
        if done.returncode:
            self._fail(lines[-1] if lines else f"the compiling process ended with {done.returncode}")
            return
        try:
            if not self._load():
                self._fail("the compiling process left nothing to load")
        except UnusableError as error:
            self._fail(error)

    def _fail(self, reason: object) -> None:
        self._status = CompiledStatus("failed", str(reason))
        _log.warning("encoding goes on without compiled kernels: %s", reason)


def _is_off() -> bool:
    return os.environ.get(SWITCH) == "0"


_start = Start()


def kernels(characters: int) -> Kernels | None:
    """Compiled kernels for this process, ``None`` when numpy is to do the work; see `Start.kernels`."""
    return _start.kernels(characters)


def compiled_status() -> CompiledStatus:
    """Whether encoding uses compiled kernels in this process, and why not."""
    return _start.status


def find_compiled() -> CompiledStatus:
    """Whether encoding can use compiled kernels on this machine: loads them, and compiles nothing."""
    return _start.look()


def prepare_compiled() -> CompiledStatus:
    """Compile the kernels for this machine, where that has not been done yet, and load them; takes some seconds.

    Nothing needs this: bulk work starts the same in the background. It is for images and machines that are set up
    ahead of time.
    """
    return _start.prepare()
