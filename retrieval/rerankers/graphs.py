"""Where the graph of a cross-encoder lies in its folder, and what can be told from the file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from retrieval.errors import ModelError
from retrieval.model_files import checked_file

ONNX_FILES = (
    "model.onnx",
    "onnx/model.onnx",
    "onnx/model_quantized.onnx",
    "onnx/model_qint8_avx512_vnni.onnx",
)
"""Where a graph is looked for in a folder; the first that exists is used, float32 before int8."""


def find_graph(folder: Path) -> Path | None:
    """The graph of a folder, ``None`` when it holds none of `ONNX_FILES`."""
    return next((path for path in (folder / name for name in ONNX_FILES) if path.is_file()), None)


def model_digest(folder: Path) -> str:
    """First 12 hex digits of the SHA-256 of the graph in a folder.

    Raises:
        ModelError: The folder holds no graph, or it cannot be read.
    """
    graph = find_graph(folder)
    if graph is None:
        raise ModelError(f"no graph of a cross-encoder in {folder}")
    try:
        with checked_file(graph, folder).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:12]
    except OSError as error:
        raise ModelError(f"cannot read {graph}: {error.strerror}") from error
