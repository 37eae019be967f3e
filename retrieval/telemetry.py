"""What runs here reports to nobody."""

from __future__ import annotations

import os


def refuse_telemetry() -> None:
    """Keep ONNX Runtime from reporting to its maker; called before anything imports it.

    From 1.29 on its wheels for Linux give the machine an id under ``~/.cache/Microsoft`` when they are imported, and
    send it with properties of the models that are loaded, unless this variable is set. One that the caller has set
    stays as it is.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
