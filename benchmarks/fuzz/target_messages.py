"""Messages between two processes, and what clients send: broken off anywhere, or of any shape."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.filter_trees import filter_of
from benchmarks.fuzz.target import Check, Target, require_refusal
from pipelines.mcp_server.arguments import GetDocumentCall, IngestCall, SearchCall
from pipelines.preparation_messages import Channel, Columns, Cut, Encoded, Ended, Failed, Places, Read, Texts, portable
from pipelines.service.errors import ServiceError
from pipelines.service.multipart import MultipartFiles
from pipelines.service.spool import Upload, safe_name
from pipelines.service.strict_json import parse_json
from retrieval.datatypes import Document, SparseVector
from retrieval.errors import DocumentError


def _messages(choices: Choices) -> list[Any]:
    documents = choices.list_of(
        lambda: Document(choices.text(2), choices.text(4), choices.text(1), {"a": choices.json(1)}), 3
    )
    kinds = (
        Columns.of(documents),
        Read(Columns.of(documents), ["0" * 16], [("s", choices.text(2))], choices.chance(), 0.5),
        Cut(choices.real(), (1, 2), Texts.of(documents)),
        Places([[(0, 3, ("a", choices.text(1)))]]),
        Failed(DocumentError(choices.text(2)), reading=True),
        Ended(),
        np.zeros(choices.whole(0, 9), np.float32),
        SparseVector(np.arange(3, dtype=np.uint32), np.ones(3, np.float32)),
        Encoded,
    )
    return [choices.pick(kinds) for _ in range(choices.whole(1, 3))]


def _channel(folder: Path, stack: ExitStack) -> Check:
    """What is sent arrives; broken off within a message, the stream ends and nothing else happens."""

    def check(data: bytes) -> None:
        choices = Choices(data)
        messages = _messages(choices)
        pipe = io.BytesIO()
        sender = Channel(io.BytesIO(), pipe)
        ends = [0]
        for message in messages:
            sender.send(message)
            ends.append(pipe.tell())
        whole = pipe.getvalue()
        cut = choices.whole(0, 65535) % (len(whole) + 1)
        receiver = Channel(io.BytesIO(whole[:cut]), io.BytesIO())
        for number, message in enumerate(messages):
            try:
                received = receiver.receive()
            except EOFError:
                assert cut < ends[number + 1], "a message that was sent did not arrive"
                return
            assert cut >= ends[number + 1], "a message arrived that was broken off"
            assert type(received) is type(message)
        portable(ValueError(choices.text(2)))

    return check


def _arguments(folder: Path, stack: ExitStack) -> Check:
    """Arguments of a tool are what the model says, or refused by it."""

    def check(data: bytes) -> None:
        choices = Choices(data)
        model = choices.pick((SearchCall, GetDocumentCall, IngestCall))
        names = [*model.model_fields, "other"]
        given: Mapping[str, Any] = {choices.pick(names): choices.json() for _ in range(choices.whole(0, 5))}
        if choices.chance():
            given = {**given, "query": choices.clean_text(), "where": filter_of(choices)}
        with suppress(ValidationError):
            model.model_validate(given)

    return check


def _json(folder: Path, stack: ExitStack) -> Check:
    """A body is JSON without NaN and half pairs, or refused."""
    import json

    def check(data: bytes) -> None:
        try:
            value = parse_json(data)
        except json.JSONDecodeError:
            return
        text = json.dumps(value, ensure_ascii=False)
        text.encode("utf-8")
        assert "NaN" not in text or b"NaN" in data

    return check


def _uploads(folder: Path, stack: ExitStack) -> Check:
    """A multipart body gives files under their own folder, or a refusal; a name never leads out."""
    number = 0

    def check(data: bytes) -> None:
        nonlocal number
        choices = Choices(data)
        number += 1
        place = folder / str(number)
        place.mkdir()
        name = choices.text(4).encode("utf-8", "surrogatepass")
        safe = safe_name(name.decode("utf-8", "replace"))
        assert safe not in {"", ".", ".."}
        assert "/" not in safe
        assert "\0" not in safe
        assert len(safe.encode()) <= 255
        boundary = choices.pick((b"b", b"x" * 70, b"b'c"))
        size = choices.whole(1, 60)
        head = b'--%s\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n' % (boundary, name)
        body = head + choices.rest(40) + b"\r\n--%s--\r\n" % boundary if choices.chance(3) is False else choices.rest()
        at = choices.whole(0, 255) % (len(body) + 1)
        body = body[:at] + choices.rest(3) + body[at:]
        try:
            files = MultipartFiles(f"multipart/form-data; boundary={boundary.decode()}", Upload(place), 3)
            try:
                for start in range(0, len(body), size):
                    files.feed(body[start : start + size])
                files.finish()
            finally:
                files.close()
        except ServiceError as error:
            require_refusal(error.status_code)
        found = [path for path in place.rglob("*") if path.is_file()]
        assert all(path.resolve().is_relative_to(place.resolve()) for path in found)
        for path in found:
            path.unlink()
            path.parent.rmdir()
        for rest in place.iterdir():
            rest.rmdir()
        place.rmdir()

    return check


TARGETS = [
    Target("messages of the second process", "they arrive whole, or the stream ends", _channel, longest=160),
    Target("MCP arguments", "as described, or a ValidationError", _arguments, longest=200, weight=0.7),
    Target("JSON bodies", "finite, whole, bounded in depth, or refused", _json,
           lambda: [b'{"query": "pipe", "where": {"must": []}}', b"[" * 200, b'"\\ud800"', b"1e999", b"NaN"]),
    Target("uploads", "files in their folder, or a refusal below 500", _uploads, longest=300),
]  # fmt: skip
