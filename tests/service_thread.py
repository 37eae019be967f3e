"""The service on a free port of this machine, in a thread of the test."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from pipelines import TwoStagePipeline
from pipelines.service import ServiceConfig, create_app
from pipelines.service.shortcut import ShortcutProtocol


@contextmanager
def running(pipeline: TwoStagePipeline, config: ServiceConfig | None = None, **server: Any) -> Iterator[str]:
    """Serve a pipeline until the end of the block, over the protocol of `retrieval serve`; the service closes it.

    Args:
        pipeline: Open pipeline.
        config: Settings; ``None`` for the defaults, without the log of requests.
        server: Settings of uvicorn.

    Yields:
        The address, without a slash at its end.
    """
    app = create_app(pipeline, config or ServiceConfig(access_log=False))

    class Protocol(ShortcutProtocol):
        shortcut = app.state.shortcut

    with socket.create_server(("127.0.0.1", 0)) as listening:
        settings = uvicorn.Config(
            app, **{"http": Protocol, "access_log": False, "log_level": "warning", "server_header": False, **server}
        )
        one = uvicorn.Server(settings)
        thread = threading.Thread(target=one.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            until = time.monotonic() + 60
            while not one.started:
                if not thread.is_alive() or time.monotonic() > until:
                    raise RuntimeError("the server did not start")
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            one.should_exit = True
            thread.join()
