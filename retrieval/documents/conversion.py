"""The program that converts office files, run by `retrieval.documents.converter` in a process of its own.

It imports nothing of this project. A request is a line of JSON with ``extension`` and ``size``, and then the file; the
answer is a line with ``text`` and ``title``, or ``error``, or ``missing``, or ``full`` where it needed too much memory.
"""

from __future__ import annotations

import io
import json
import os
import select
import sys
import threading
import time
import warnings
from typing import Any

_IDLE_S = 60.0


def main() -> None:
    """Answer requests until nobody asks any more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a parser prints is no answer
    parent = int(sys.argv[1])
    threading.Thread(target=_end_with, args=[parent], daemon=True).start()
    warnings.simplefilter("ignore")
    from markitdown import MarkItDown

    converter = MarkItDown(enable_plugins=False)
    _limit_memory(int(sys.argv[2]) * 2**20)
    while select.select([0], [], [], _IDLE_S)[0] and (line := _line()):
        request = json.loads(line)
        answer = _answer(converter, _exactly(request["size"]), request["extension"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if "full" in answer:
            return


def _answer(converter: Any, data: bytes, extension: str) -> dict[str, Any]:
    from markitdown import MissingDependencyException, StreamInfo

    try:
        result = converter.convert_stream(io.BytesIO(data), stream_info=StreamInfo(extension=extension))
        return {"text": result.markdown or "", "title": result.title or ""}
    except MissingDependencyException:
        return {"missing": True}
    except MemoryError:
        return {"full": True}
    except Exception as error:  # half a dozen parsers, each with errors of its own
        if "MemoryError" in str(error) or "unable to allocate" in str(error).lower():
            return {"full": True}
        cause = str(error).strip().splitlines() or [type(error).__name__]
        return {"error": cause[-1][:300].encode("utf-8", "replace").decode("utf-8")}


def _line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return b""
        line += byte
    return line


def _exactly(size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = os.read(0, min(1 << 20, size - len(data)))
        if not part:
            sys.exit(0)
        data += part
    return bytes(data)


def _limit_memory(limit: int) -> None:
    """Let this process have so many bytes more than now, where the system knows such a limit."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            now = int(file.read().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (now + limit, now + limit))
    except (ImportError, OSError, ValueError, IndexError):
        return


def _end_with(parent: int) -> None:
    """End soon after the process that has started this one, however long a conversion takes."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main()
