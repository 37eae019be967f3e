"""Log lines as JSON objects: what happened and how long it took, never the text of a query or of a document."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

LOG = logging.getLogger("retrieval.service")
_DETAIL_CHARACTERS = 500


class JsonFormatter(logging.Formatter):
    """One JSON object a line; an exception is told by its type and the places it came through, not by its message."""

    def format(self, record: logging.LogRecord) -> str:
        lines = getattr(record, "lines", None)
        if lines is not None:  # of `AccessLog`
            return "\n".join(lines)
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage()[:_DETAIL_CHARACTERS],
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line |= fields
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["trace"] = places(record.exc_info[1])
        return json.dumps(line, ensure_ascii=True, default=str)


def places(error: BaseException | None) -> list[str]:
    """The frames that an exception came through, without source lines and values."""
    if error is None:
        return []
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]


def log(event: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Write one line.

    Args:
        event: What happened, in a few fixed words.
        level: As in `logging`.
        fields: Values to stand beside it; no text of queries or documents.
    """
    if LOG.isEnabledFor(level):
        LOG.log(level, event, extra={"fields": fields})


def configure_logging(stream: TextIO = sys.stderr, *, level: int = logging.INFO) -> None:
    """Send everything that this process logs to a stream as JSON lines; for the process that serves."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    LOG.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.WARNING)
    # It quotes what it cannot parse.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
