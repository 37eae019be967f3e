"""The program that parses office files and Parquet tables, run by `retrieval.documents.converter` as its own process.

It imports nothing of this project. Its arguments are the process that has started it, megabytes, and what it parses. A
request is a line of JSON. So is every answer: ``error``, ``missing``, ``full`` where it needed too much memory, or what
was asked for.

* ``office``: a request has ``extension`` and ``size``, and the file follows; the answer has ``text`` and ``title``.
* ``parquet``: a request has ``path``, ``columns``, ``groups`` (null for all) and ``most``, the bytes that one row may
  have. Answers follow until one with ``end``: ``arrow`` is the size of the Arrow stream behind it, ``skipped`` that of
  a row which is left out.
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
from collections.abc import Callable, Iterator
from typing import Any

_IDLE_S = 60.0
_ROWS = 256
_BYTES = 16 * 2**20

Answers = Iterator[tuple[dict[str, Any], bytes]]


def main() -> None:
    """Answer requests until nobody asks any more."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a parser prints is no answer
    parent, megabytes, kind = sys.argv[1:]
    threading.Thread(target=_end_with, args=[int(parent)], daemon=True).start()
    warnings.simplefilter("ignore")
    answers_to = {"office": _office, "parquet": _parquet}[kind]()
    _limit_memory(int(megabytes) * 2**20)
    while select.select([0], [], [], _IDLE_S)[0] and (line := _line()):
        for answer, data in _guarded(answers_to(json.loads(line))):
            out.write(json.dumps(answer).encode() + b"\n")
            out.write(data)
            out.flush()
            if "full" in answer:
                return


def _guarded(answers: Answers) -> Answers:
    try:
        yield from answers
    except MemoryError:
        yield {"full": True}, b""
    except Exception as error:  # half a dozen parsers, each with errors of its own
        if "MemoryError" in str(error) or "unable to allocate" in str(error).lower():
            yield {"full": True}, b""
            return
        cause = str(error).strip().splitlines() or [type(error).__name__]
        yield {"error": cause[-1][:300].encode("utf-8", "replace").decode("utf-8")}, b""


def _office() -> Callable[[dict[str, Any]], Answers]:
    from markitdown import MarkItDown, MissingDependencyException, StreamInfo

    converter = MarkItDown(enable_plugins=False)

    def converted(request: dict[str, Any]) -> Answers:
        file = io.BytesIO(_exactly(request["size"]))
        try:
            result = converter.convert_stream(file, stream_info=StreamInfo(extension=request["extension"]))
        except MissingDependencyException:
            yield {"missing": True}, b""
        else:
            yield {"text": result.markdown or "", "title": result.title or ""}, b""

    return converted


def _parquet() -> Callable[[dict[str, Any]], Answers]:
    # The other allocators of Arrow begin by taking a gigabyte, which the limit would count.
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
    import pyarrow as pa
    import pyarrow.parquet as pq

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)

    def table(request: dict[str, Any]) -> Answers:
        # With a buffer a part of a row group is in memory, without one the whole of it.
        with open(request["path"], "rb") as opened, pq.ParquetFile(opened, buffer_size=1 << 20) as file:
            groups = None if request["groups"] is None else range(*request["groups"])
            for batch in file.iter_batches(_ROWS, row_groups=groups, columns=request["columns"], use_threads=False):
                # A cell that many rows point to counts for each of them.
                schema = pa.schema([field.with_type(_spelled_out(field.type)) for field in batch.schema])
                yield from rows(batch.cast(schema), request["most"])
        yield {"end": True}, b""

    def rows(batch: Any, most: int) -> Answers:
        """Arrow streams of as many rows as have at most `_BYTES`, and of single ones above that."""
        size = batch.nbytes + 8 * sum(map(_cells, batch.columns))
        if batch.num_rows > 1 and size > min(_BYTES, most):
            half = batch.num_rows // 2
            yield from rows(batch.slice(0, half), most)
            yield from rows(batch.slice(half), most)
        elif size > most:
            yield {"skipped": size}, b""
        else:
            packed = io.BytesIO()
            with pa.ipc.new_stream(packed, batch.schema) as stream:
                stream.write_batch(batch)
            yield {"arrow": packed.tell()}, packed.getvalue()

    return table


def _cells(column: Any) -> int:
    """Values, also those of lists: a bit here is a pointer where it is read."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_map(kind):  # Arrow flattens lists alone
        column = column.cast(pa.list_(pa.struct([kind.key_field, kind.item_field])))
    if pa.types.is_struct(kind):
        return len(column) + sum(map(_cells, column.flatten()))
    return len(column) + (_cells(column.flatten()) if pa.types.is_nested(kind) else 0)


def _spelled_out(kind: Any) -> Any:
    """The type without dictionaries."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_map(kind):
        key, item = (part.with_type(_spelled_out(part.type)) for part in (kind.key_field, kind.item_field))
        return pa.map_(key, item, kind.keys_sorted)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        item = kind.value_field.with_type(_spelled_out(kind.value_type))
        if pa.types.is_large_list(kind):
            return pa.large_list(item)
        return pa.list_(item, kind.list_size if pa.types.is_fixed_size_list(kind) else -1)
    if pa.types.is_struct(kind):
        return pa.struct([part.with_type(_spelled_out(part.type)) for part in kind])
    return kind


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
