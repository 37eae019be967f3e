"""The MCP server: an index as tools for assistants, over stdio or streamable HTTP.

`retrieval mcp` runs it. Everything here needs the extra ``mcp``.
"""

from __future__ import annotations

try:
    import mcp.server.lowlevel  # noqa: F401
except ImportError as error:
    from retrieval.errors import MissingExtraError

    raise MissingExtraError("mcp", "mcp", "the MCP server") from error

from pipelines.mcp_server.served import Served, ServedIndex
from pipelines.mcp_server.server import create_server

__all__ = ["Served", "ServedIndex", "create_server"]
