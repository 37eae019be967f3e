"""The protocol side: tools are listed and called, errors become answers that a model can act on."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from pydantic import BaseModel, ValidationError

from pipelines.mcp_server.served import Served
from pipelines.mcp_server.tools import Running, ToolKind, tools_of
from retrieval import __version__
from retrieval.errors import RetrievalError
from retrieval.telemetry import refuse_telemetry

_LOG = logging.getLogger(__name__)
_REPORT_EVERY_S = 0.2
_SHOWN_PROBLEMS = 5
_INSTRUCTIONS = (
    "Search the user's own documents before you answer a question about them, and cite the document_id of what you "
    "use. Ask in whole questions. Where a hit is cut or its surroundings matter, read on with get_document."
)

Context = ServerRequestContext[Any, Any]


class ToolServer:
    """Calls the tools on worker threads: one for everything that reads, one for what writes.

    Args:
        served: The indexes.
    """

    def __init__(self, served: Served) -> None:
        self._served = served
        self._tools = {tool.name: tool for tool in tools_of(served)}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="retrieval-mcp")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="retrieval-mcp-write")
        self._stops: set[threading.Event] = set()

    async def list_tools(self, context: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        """Describe the tools."""
        return ListToolsResult(tools=[_described(tool) for tool in self._tools.values()])

    async def call_tool(self, context: Context, params: CallToolRequestParams) -> CallToolResult:
        """Call a tool; whatever goes wrong is an answer, never the end of the connection."""
        tool = self._tools.get(params.name)
        if tool is None:
            hint = " (start the server with --allow-ingest FOLDER)" if params.name == "ingest" else ""
            return _failed(f"there is no tool {params.name[:100]!r}{hint}; there are {', '.join(self._tools)}")
        try:
            call = tool.call.model_validate(params.arguments or {})
            reply = await self._run(tool, call, context)
        except ValidationError as error:
            return _failed(_explained(error, tool))
        except (RetrievalError, ValueError, OSError) as error:
            return _failed(str(error))
        except Exception:
            _LOG.exception("the tool %s failed", tool.name)
            return _failed("something went wrong here; the log of the server says what")
        structured = reply.model_dump(mode="json")
        return CallToolResult(content=[TextContent(text=tool.text(reply))], structured_content=structured)

    def preload(self) -> None:
        """Import what a search needs while the client is still saying hello."""
        self._reader.submit(_import_parts)

    def close(self) -> None:
        """Let running calls end, stop a running ingest after its batch, and close the indexes."""
        self._served.stop()
        for stop in list(self._stops):
            stop.set()
        for pool in (self._reader, self._writer):
            pool.shutdown(cancel_futures=True)
        self._served.close()

    async def _run(self, tool: ToolKind[Any, Any], call: BaseModel, context: Context) -> BaseModel:
        loop = asyncio.get_running_loop()
        stop = threading.Event()
        running = Running(stop, _reporter(loop, context))
        self._stops.add(stop)
        try:
            pool = self._writer if tool.writes else self._reader
            reply: BaseModel = await loop.run_in_executor(pool, tool.run, self._served, call, running)
            return reply
        finally:
            # The client may have cancelled the call; the thread ends by itself, after its batch.
            stop.set()
            self._stops.discard(stop)


def create_server(served: Served) -> tuple[Server[Any], ToolServer]:
    """The server of some indexes, and what calls its tools; close the latter when the former has ended."""
    tools = ToolServer(served)
    server: Server[Any] = Server(
        "two-stage-retrieval",
        title="Two-stage retrieval",
        version=__version__,
        instructions=_INSTRUCTIONS,
        on_list_tools=tools.list_tools,
        on_call_tool=tools.call_tool,
    )
    return server, tools


def _described(tool: ToolKind[Any, Any]) -> Tool:
    return Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.call.model_json_schema(),
        output_schema=tool.reply.model_json_schema(mode="serialization"),
        annotations=ToolAnnotations(
            title=tool.title,
            read_only_hint=not tool.writes,
            destructive_hint=False,
            idempotent_hint=True,
            open_world_hint=False,
        ),
    )


def _failed(message: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=message)], is_error=True)


def _explained(error: ValidationError, tool: ToolKind[Any, Any]) -> str:
    """What is wrong with which argument, and for an unknown one which there are."""
    problems = error.errors(include_url=False, include_context=False)[:_SHOWN_PROBLEMS]
    parts = []
    for problem in problems:
        place = ".".join(str(part)[:100] for part in problem["loc"]) or "arguments"
        if problem["type"] == "extra_forbidden":
            parts.append(f"{place}: there is no such argument; there are {', '.join(tool.call.model_fields)}")
        elif problem["type"] == "missing":
            parts.append(f"{place}: is needed")
        else:
            message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
            parts.append(f"{place}: {message} (got {str(problem['input'])[:80]!r})")
    return f"{tool.name} was called with arguments that it cannot use: {'; '.join(parts)}"


def _reporter(loop: asyncio.AbstractEventLoop, context: Context) -> Callable[[float, str], None]:
    """Sends progress from a worker thread, a few times a second; a client that did not ask for it gets none."""
    last = 0.0

    def report(done: float, message: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _REPORT_EVERY_S and not loop.is_closed():
            last = now
            asyncio.run_coroutine_threadsafe(context.session.report_progress(done, None, message), loop)

    return report


def _import_parts() -> None:
    refuse_telemetry()
    import onnxruntime  # noqa: F401

    import retrieval.stores.edge  # noqa: F401
