"""Converts office files in a process of its own, with a limit on time and memory.

A file of a few kilobytes can unpack to more than the machine has, or keep a parser busy for hours. That process ends
then, and not this one.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.documents.content import UnreadableError
from retrieval.errors import MissingExtraError
from retrieval.telemetry import refuse_telemetry

_PROGRAM = Path(__file__).with_name("conversion.py")


@dataclass(frozen=True, slots=True)
class Converted:
    """A file as markdown.

    Args:
        text: The markdown.
        title: Its title; empty where it names none.
    """

    text: str
    title: str


class Converter:
    """One process, started when it is first needed and again when it has ended; safe from several threads.

    Args:
        megabytes: What a conversion may take of memory.
    """

    def __init__(self, megabytes: int) -> None:
        self._megabytes = megabytes
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._owner = os.getpid()

    def convert(self, data: bytes, extension: str, seconds: float) -> Converted:
        """Convert one file.

        Args:
            data: The file.
            extension: Lower case with the dot.
            seconds: What it may take.

        Raises:
            MissingExtraError: The package for this format is not installed.
            UnreadableError: It cannot be converted, or not within the limits.
        """
        with self._lock:
            # Without an answer it has just ended because nobody had asked for long.
            answer = self._asked(data, extension, seconds) or self._asked(data, extension, seconds)
        if "missing" in answer:
            raise MissingExtraError("markitdown", "documents", f"reading {extension} files")
        if "full" in answer:
            raise UnreadableError(f"needs more memory to convert than documents.max_convert_mb ({self._megabytes:,})")
        if "late" in answer:
            raise UnreadableError(f"takes longer to convert than documents.max_convert_s ({seconds:g})")
        if "text" not in answer:
            raise UnreadableError(f"cannot be converted from {extension}: {answer.get('error', 'no answer')}")
        return Converted(answer["text"], answer["title"])

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.communicate()

    def _asked(self, data: bytes, extension: str, seconds: float) -> dict[str, Any]:
        late = threading.Event()
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        line = b""
        try:
            process.stdin.write(json.dumps({"extension": extension, "size": len(data)}).encode() + b"\n")
            process.stdin.write(data)
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            pass
        except BaseException:
            self.close()  # what it answers now would be taken for the answer to the next file
            raise
        finally:
            timer.cancel()
        if line.endswith(b"\n"):
            answer: dict[str, Any] = json.loads(line)
            if "full" in answer:
                self.close()
            return answer
        self.close()
        if late.is_set():
            return {"late": True}
        if process.returncode == 0:
            return {}
        # The system ends the largest process where memory is short.
        return {"full": True} if process.returncode == -signal.SIGKILL else {"error": "its parser died"}

    def _running(self) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():
            self._process, self._owner = None, os.getpid()
        if self._process is None or self._process.poll() is not None:
            self.close()
            refuse_telemetry()  # markitdown guesses types of files with ONNX Runtime
            if importlib.util.find_spec("markitdown") is None:
                raise MissingExtraError("markitdown", "documents", "reading .pdf .docx .pptx .xlsx .epub files")
            command = [sys.executable, "-P", str(_PROGRAM), str(os.getpid()), str(self._megabytes)]
            pipe = subprocess.PIPE
            try:
                self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
            except OSError as error:
                raise UnreadableError(f"cannot be converted: {sys.executable} cannot be started: {error}") from error
        return self._process


_converters: dict[int, Converter] = {}


def converter(megabytes: int) -> Converter:
    """The converter with a limit of memory; one for each limit."""
    if not _converters:
        atexit.register(_close_all)
    return _converters.setdefault(megabytes, Converter(megabytes))


def _close_all() -> None:
    for each in _converters.values():
        each.close()
