"""Parses office files and Parquet tables in processes of their own, with a limit on time and memory.

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
from collections.abc import Iterator, Sequence
from contextlib import suppress
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


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a table.

    Args:
        stream: An Arrow stream of them; empty where a row was left out.
        skipped: Bytes of the row that was left out, because it has more than allowed.
    """

    stream: bytes
    skipped: int


class _Parser:
    """A process of `conversion`, started when it is first needed and again when it has ended.

    Args:
        kind: What it parses.
        package: What it needs.
        formats: What it is needed for.
        verb: What it does with a file.
        megabytes: What it may take of memory.
    """

    def __init__(self, kind: str, package: str, formats: str, verb: str, megabytes: int) -> None:
        self._kind = kind
        self._package = package
        self._formats = formats
        self._verb = verb
        self._megabytes = megabytes
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.communicate()

    def _asked(self, request: dict[str, Any], data: bytes, seconds: float) -> tuple[dict[str, Any], bytes]:
        """The first answer; nothing is in it where the process had ended because nobody had asked for long."""
        process = self._running()
        assert process.stdin is not None
        with _Limit(self, process, seconds) as limit:
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.write(data)
                process.stdin.flush()
            return self._answer(process, limit)

    def _next(self, seconds: float) -> tuple[dict[str, Any], bytes]:
        """The answer after one that was not the last."""
        process = self._process
        assert process is not None
        with _Limit(self, process, seconds) as limit:
            return self._answer(process, limit)

    def _answer(self, process: subprocess.Popen[bytes], limit: _Limit) -> tuple[dict[str, Any], bytes]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if line.endswith(b"\n"):
            answer: dict[str, Any] = json.loads(line)
            size = answer.get("arrow", 0)
            data = process.stdout.read(size)
            if len(data) == size:
                if "full" in answer:
                    self.close()
                return answer, data
        self.close()
        if limit.reached:
            return {"late": True}, b""
        if process.returncode == 0:
            return {}, b""
        # The system ends the largest process where memory is short.
        return ({"full": True} if process.returncode == -signal.SIGKILL else {"error": "its parser died"}), b""

    def _failure(self, answer: dict[str, Any], seconds: float) -> UnreadableError:
        if "full" in answer:
            return UnreadableError(
                f"needs more memory to {self._verb} than documents.max_convert_mb ({self._megabytes:,})"
            )
        if "late" in answer:
            return UnreadableError(f"takes longer to {self._verb} than documents.max_convert_s ({seconds:g})")
        return UnreadableError(answer.get("error", "no answer"))

    def _running(self) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():
            self._process, self._owner = None, os.getpid()
        if self._process is None or self._process.poll() is not None:
            self.close()
            refuse_telemetry()  # markitdown guesses types of files with ONNX Runtime
            if importlib.util.find_spec(self._package) is None:
                raise MissingExtraError(self._package, "documents", f"reading {self._formats} files")
            command = [sys.executable, "-P", str(_PROGRAM), str(os.getpid()), str(self._megabytes), self._kind]
            pipe = subprocess.PIPE
            try:
                self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
            except OSError as error:
                raise UnreadableError(f"cannot be opened: {sys.executable} cannot be started: {error}") from error
        return self._process


class _Limit:
    """Ends a process that does not answer in time, or whose answer nobody waits for any more."""

    def __init__(self, parser: _Parser, process: subprocess.Popen[bytes], seconds: float) -> None:
        self.reached = False
        self._parser = parser
        self._process = process
        self._timer = threading.Timer(seconds, self._reach)
        self._timer.daemon = True

    def _reach(self) -> None:
        self.reached = True
        self._process.kill()

    def __enter__(self) -> _Limit:
        self._timer.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._timer.cancel()
        if error is not None:
            self._parser.close()  # what it answers now would be taken for the answer to the next request


class Converter(_Parser):
    """Converts office files, one after the other; safe from several threads.

    Args:
        megabytes: What a conversion may take of memory.
    """

    def __init__(self, megabytes: int) -> None:
        super().__init__("office", "markitdown", ".pdf .docx .pptx .xlsx .epub", "convert", megabytes)
        self._lock = threading.Lock()

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
        request = {"extension": extension, "size": len(data)}
        with self._lock:
            answer, _ = self._asked(request, data, seconds)
            if not answer:
                answer, _ = self._asked(request, data, seconds)
        if "missing" in answer:
            raise MissingExtraError("markitdown", "documents", f"reading {extension} files")
        if "error" in answer:
            raise UnreadableError(f"cannot be converted from {extension}: {answer['error']}")
        if "text" not in answer:
            raise self._failure(answer, seconds)
        return Converted(answer["text"], answer["title"])


class TableParser(_Parser):
    """Reads Parquet tables, one at a time.

    Args:
        megabytes: What that may take of memory.
    """

    def __init__(self, megabytes: int) -> None:
        super().__init__("parquet", "pyarrow", ".parquet", "read", megabytes)

    def rows(
        self, path: Path, columns: Sequence[str], groups: tuple[int, int] | None, most: int, seconds: float
    ) -> Iterator[Rows]:
        """Yield the rows of a table.

        Args:
            path: The table.
            columns: Which to read.
            groups: First row group and one past the last; ``None`` for all.
            most: Bytes that one row may have.
            seconds: What the next rows may take.

        Raises:
            MissingExtraError: pyarrow is not installed.
            UnreadableError: It is no sound table, or cannot be read within the limits.
        """
        request = {"path": str(path), "columns": list(columns), "groups": groups, "most": most}
        answer, data = self._asked(request, b"", seconds)
        if not answer:
            answer, data = self._asked(request, b"", seconds)
        complete = False
        try:
            while "arrow" in answer or "skipped" in answer:
                yield Rows(data, answer.get("skipped", 0))
                answer, data = self._next(seconds)
            complete = True
        finally:
            if not complete:
                self.close()
        if "end" not in answer:
            raise self._failure(answer, seconds)


_converters: dict[int, Converter] = {}
_tables: dict[int, list[TableParser]] = {}
_lock = threading.Lock()


def converter(megabytes: int) -> Converter:
    """The converter with a limit of memory; one for each limit."""
    with _lock:
        return _converters.setdefault(megabytes, Converter(megabytes))


def table_rows(
    path: Path, columns: Sequence[str], groups: tuple[int, int] | None, most: int, megabytes: int, seconds: float
) -> Iterator[Rows]:
    """`TableParser.rows` of a process that no other thread uses; it is kept for the next table."""
    with _lock:
        waiting = _tables.setdefault(megabytes, [])
        parser = waiting.pop() if waiting else TableParser(megabytes)
    try:
        yield from parser.rows(path, columns, groups, most, seconds)
    finally:
        with _lock:
            waiting.append(parser)


@atexit.register
def _close_all() -> None:
    for each in [*_converters.values(), *(parser for waiting in _tables.values() for parser in waiting)]:
        each.close()
