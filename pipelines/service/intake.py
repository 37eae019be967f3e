"""An upload into the index: its files become documents with names of their own, and one ingest takes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from pipelines.service.config import LimitsConfig
from pipelines.service.errors import ServiceError
from pipelines.service.spool import Upload
from pipelines.service.strict_json import parse_json
from pipelines.service.uploads import DocumentIn, Kind
from pipelines.two_stage import TwoStagePipeline
from retrieval.config import DocumentsConfig
from retrieval.datatypes import Document, IngestProgress, IngestReport, Rejected
from retrieval.documents import open_documents
from retrieval.errors import DocumentError

_KEPT_REJECTIONS = 1_000


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose documents an upload holds.

    Args:
        tenant: The tenant; ``None`` for nobody's.
        field: Payload path of the metadata field that says so.
    """

    tenant: str | None
    field: str

    def source(self, kind: str, name: str) -> str:
        """The source of a document that was uploaded: no path, and never the one of another tenant.

        Args:
            kind: ``id`` or ``file``.
            name: Id, or file name and record.
        """
        return f"upload://{quote(self.tenant or '', safe='')}/{kind}/{name}"

    def mark(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """Metadata that say whose document it is, whatever they said before."""
        if self.tenant is None:
            return metadata
        first, *deeper = self.field.split(".")[1:]
        return _with(metadata, [first, *deeper], self.tenant)


def _with(values: dict[str, Any], path: list[str], value: str) -> dict[str, Any]:
    first, *deeper = path
    if not deeper:
        return {**values, first: value}
    inner = values.get(first)
    return {**values, first: _with(inner if isinstance(inner, dict) else {}, deeper, value)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an upload.

    Args:
        report: What was ingested and what was rejected.
        interrupted: Whether it was stopped and has to be done again; what is in the index already is skipped then.
        refused: Why the rest was not read; ``None`` when everything was.
    """

    report: IngestReport
    interrupted: bool
    refused: ServiceError | None


class Intake:
    """The documents of one upload, to be ingested once.

    Args:
        upload: Where the files are.
        kind: What they are.
        owner: Whose documents.
        limits: How many documents and characters are read.
        stop: Asked before every document whether to stop.
    """

    def __init__(
        self, upload: Upload, kind: Kind, owner: Owner, limits: LimitsConfig, stop: Callable[[], bool]
    ) -> None:
        self._upload = upload
        self._kind = kind
        self._owner = owner
        self._limits = limits
        self._stop = stop
        self._rejected: list[Rejected] = []
        self._rejected_count = 0
        self._interrupted = False
        self._refused: ServiceError | None = None

    def run(self, pipeline: TwoStagePipeline, on_progress: Callable[[IngestProgress], None]) -> Outcome:
        """Ingest; when this returns, what the report counts is in the index for good.

        Args:
            pipeline: The pipeline.
            on_progress: Called after every batch, from this thread.

        Raises:
            StoreError: The store refused; what was written stays.
        """

        def show(progress: IngestProgress) -> None:
            on_progress(replace(progress, rejected=progress.rejected + self._rejected_count))

        report = pipeline.ingest(self._documents(pipeline.config.documents), on_progress=show)
        rejected = (*self._rejected, *report.rejected)[:_KEPT_REJECTIONS]
        whole = replace(report, rejected=rejected, rejected_count=report.rejected_count + self._rejected_count)
        return Outcome(whole, self._interrupted, self._refused)

    def _documents(self, config: DocumentsConfig) -> Iterator[Document]:
        read = self._from_lines(config) if self._kind == "documents" else self._from_files(config)
        characters = 0
        for number, document in enumerate(read, 1):
            if self._stop():
                self._interrupted = True
                return
            characters += len(document.text)
            if number > self._limits.documents or characters > self._limits.characters:
                bound = f"{self._limits.documents:,} documents or {self._limits.characters:,} characters"
                self._refused = ServiceError(
                    413, "too_many_documents", f"only the first documents were ingested: more than {bound}"
                )
                return
            yield document

    def _from_lines(self, config: DocumentsConfig) -> Iterator[Document]:
        from retrieval.documents.lines import read_lines

        (path,) = self._upload.files()
        with path.open("rb") as file:
            for line in read_lines(file, config.max_line_bytes):
                if line.data is None:
                    self._reject(f"line {line.number}", f"has more than {config.max_line_bytes:,} bytes")
                elif not line.data.isspace() and (document := self._from_line(line.number, line.data)) is not None:
                    yield document

    def _from_line(self, number: int, data: bytes) -> Document | None:
        try:
            given = DocumentIn.model_validate(parse_json(data))
        except json.JSONDecodeError as error:
            self._reject(f"line {number}", f"is not JSON: {error.msg}")
        except ValidationError as error:
            problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
            place = ".".join(str(part)[:100] for part in problem["loc"]) or "the line"
            self._reject(f"line {number}", f"{place}: {problem['msg'].removeprefix('Value error, ')}")
        else:
            return Document(
                id=given.id,
                text=given.text,
                title=given.title,
                metadata=self._owner.mark(given.metadata),
                source=self._owner.source("id", given.id),
            )
        return None

    def _from_files(self, config: DocumentsConfig) -> Iterator[Document]:
        for path in self._upload.files():
            try:
                for document in open_documents(path, config, on_rejected=partial(self._hide, path)):
                    yield replace(
                        document,
                        metadata=self._owner.mark(dict(document.metadata)),
                        source=self._owner.source("file", _within(document.source, path)),
                    )
            except DocumentError as error:
                self._hide(path, Rejected(str(path), str(error)))

    def _hide(self, path: Path, rejected: Rejected) -> None:
        """Reject without telling where on this machine the file is."""
        self._reject(_within(rejected.source, path), rejected.reason.replace(f"{path.parent}/", ""))

    def _reject(self, source: str, reason: str) -> None:
        self._rejected_count += 1
        if len(self._rejected) < _KEPT_REJECTIONS:
            self._rejected.append(Rejected(source, reason))


def _within(source: str, path: Path) -> str:
    """A source below the folder of an uploaded file, without that folder."""
    return source.removeprefix(str(path.parent)).lstrip("/\\")
