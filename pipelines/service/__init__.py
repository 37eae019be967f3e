"""The HTTP service: one pipeline behind a small API, for those who do not want to embed it.

`create_app` builds the ASGI application, `retrieval serve` runs it. Everything here needs the extra ``serve``.
"""

try:
    import fastapi  # noqa: F401
    import httptools  # noqa: F401
    import orjson  # noqa: F401
    import prometheus_client  # noqa: F401
    import python_multipart  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError as error:
    from retrieval.errors import MissingExtraError

    raise MissingExtraError(error.name or "fastapi", "serve", "the HTTP service") from error

from pipelines.service.app import create_app
from pipelines.service.config import ServiceConfig, load_service_config

__all__ = ["ServiceConfig", "create_app", "load_service_config"]
