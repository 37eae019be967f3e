"""The four tools: what each takes, what it answers, and what it does."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from pipelines.mcp_server import limits
from pipelines.mcp_server.arguments import GetDocumentCall, IngestCall, ListCollectionsCall, SearchCall
from pipelines.mcp_server.bounds import bounded, hit_reply
from pipelines.mcp_server.readable import collections_text, document_text, ingest_text, search_text
from pipelines.mcp_server.replies import (
    CollectionsReply,
    DocumentReply,
    IngestReply,
    Refusal,
    SearchReply,
)
from pipelines.mcp_server.served import Served
from pipelines.search_options import SearchArguments
from pipelines.stored_document import read_document, text_slice
from retrieval.datatypes import Document, IngestProgress, Rejected
from retrieval.errors import DocumentError

CallT = TypeVar("CallT", bound=BaseModel)
ReplyT = TypeVar("ReplyT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Running:
    """What a running call may be told and may tell.

    Args:
        stop: Set when the client does not want the answer any more, or the server ends.
        report: Called with how much has been done, and that in words.
    """

    stop: threading.Event
    report: Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class ToolKind(Generic[CallT, ReplyT]):
    """One tool.

    Args:
        name: Its name.
        title: For people.
        description: For the model that decides whether to call it.
        call: Model of its arguments.
        reply: Model of its answer.
        run: Does it, on a worker thread.
        text: The answer as text.
        writes: Whether it changes an index.
    """

    name: str
    title: str
    description: str
    call: type[CallT]
    reply: type[ReplyT]
    run: Callable[[Served, CallT, Running], ReplyT]
    text: Callable[[ReplyT], str]
    writes: bool = False


def search(served: Served, call: SearchCall, running: Running) -> SearchReply:
    """Both stages over one collection.

    Raises:
        ValueError: The collection is unknown, or an argument is out of range.
        StoreError: The index cannot be used.
    """
    if call.where is not None and len(json.dumps(call.where)) > limits.FILTER_CHARACTERS:
        raise ValueError(f"where has more than {limits.FILTER_CHARACTERS:,} characters; use a shorter filter")
    index = served.named(call.collection)
    arguments: SearchArguments = {
        "candidates": call.candidates,
        "depth": call.depth,
        "budget_ms": call.budget_ms,
        "rerank": call.rerank,
        "first_stage": call.first_stage,
        "where": call.where,
        "group_by": call.group_by,
        "min_score": call.min_score,
    }
    with index.lease.use() as pipeline:
        results = pipeline.search(call.query, call.top_k, **arguments)
    share = max(limits.SHORTEST_HIT, limits.RESULT_CHARACTERS // max(1, len(results)))
    return SearchReply(
        collection=index.name,
        query=call.query,
        hits=[hit_reply(hit, share) for hit in results],
        candidates=results.candidates,
        reranked=results.reranked,
        stopped=results.stopped,
        settled=results.settled,
        total_ms=round(results.timings.total, 1),
        warnings=list(results.warnings),
    )


def get_document(served: Served, call: GetDocumentCall, running: Running) -> DocumentReply:
    """A stretch of a document.

    Raises:
        ValueError: There is no such document or collection.
        StoreError: The index cannot be used.
    """
    index = served.named(call.collection)
    with index.lease.use() as pipeline:
        found = read_document(pipeline, call.id, source=call.source)
    if found is None:
        also = "" if call.source is None else f" and the source {call.source!r}"
        raise ValueError(f"there is no document with the id {call.id!r}{also}; search gives ids as document_id")
    part = text_slice(found.passages, call.offset, call.length)
    return DocumentReply(
        collection=index.name,
        id=found.id,
        title=found.title[: limits.TITLE_CHARACTERS],
        source=found.source,
        metadata=bounded(found.metadata),
        text=part.text,
        offset=part.start,
        end=part.end,
        length=part.length,
        next_offset=part.end if part.end < part.length else None,
        other_sources=list(found.other_sources),
    )


def ingest(served: Served, call: IngestCall, running: Running) -> IngestReply:
    """Files of the allowed folders into a collection; what came before a stop stays.

    Raises:
        DocumentError: A path is outside of the allowed folders, or there is nothing.
        ValueError: The collection is unknown.
        StoreError: The index cannot be written.
    """
    index = served.named(call.collection)
    places = [served.roots.place(name) for name in call.paths]
    refused: list[Rejected] = []

    def documents(config: Any) -> Iterator[Document]:
        for place in places:
            for document in served.roots.documents(place, config, refused.append):
                if running.stop.is_set():
                    return
                yield document

    def show(progress: IngestProgress) -> None:
        running.report(progress.documents, f"{progress.documents:,} documents, {progress.passages:,} passages")

    with index.lease.use(create=True) as pipeline:
        report = pipeline.ingest(documents(pipeline.config.documents), on_progress=show)
    if running.stop.is_set():
        raise DocumentError("the ingest was stopped; what was read stays, and the same call goes on from there")
    rejected = [*refused, *report.rejected]
    return IngestReply(
        collection=index.name,
        added=report.added,
        changed=report.changed,
        unchanged=report.unchanged,
        passages=report.passages,
        rejected=len(refused) + report.rejected_count,
        rejections=[Refusal(source=one.source, reason=one.reason) for one in rejected[: limits.REJECTIONS]],
        seconds=round(report.seconds, 2),
    )


def list_collections(served: Served, call: ListCollectionsCall, running: Running) -> CollectionsReply:
    """What is served."""
    return CollectionsReply(
        collections=[index.describe() for index in served.indexes],
        ingest_roots=[str(folder) for folder in served.roots.folders],
    )


SEARCH: ToolKind[Any, Any] = ToolKind(
    "search",
    "Search documents",
    "Find the passages that answer a question in the user's indexed documents. Words and meaning both count, and a "
    "cross-encoder reads the best candidates, so ask with a whole question. Each hit has its document_id and the "
    "characters where it stands; get_document reads around it.",
    SearchCall,
    SearchReply,
    search,
    search_text,
)
GET_DOCUMENT: ToolKind[Any, Any] = ToolKind(
    "get_document",
    "Read a document",
    "Read a document of the index, or a stretch of it, by the document_id that search gives. To read around a hit, "
    "start a little before its start.",
    GetDocumentCall,
    DocumentReply,
    get_document,
    document_text,
)
INGEST: ToolKind[Any, Any] = ToolKind(
    "ingest",
    "Add files to the index",
    "Read files or folders of the allowed folders into the index: what is new goes in, what changed is replaced, the "
    "rest is skipped. Nothing is deleted.",
    IngestCall,
    IngestReply,
    ingest,
    ingest_text,
    writes=True,
)
LIST_COLLECTIONS: ToolKind[Any, Any] = ToolKind(
    "list_collections",
    "List collections",
    "Show which collections can be searched, how many documents they hold, and when they were updated.",
    ListCollectionsCall,
    CollectionsReply,
    list_collections,
    collections_text,
)


def tools_of(served: Served) -> tuple[ToolKind[Any, Any], ...]:
    """The tools that a server has; ``ingest`` only where some folder is allowed."""
    return (SEARCH, GET_DOCUMENT, LIST_COLLECTIONS, *((INGEST,) if served.roots else ()))
