"""Reads safetensors files without copying them into memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from retrieval.errors import ModelError

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
}


def map_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Memory-map all tensors of a safetensors file, read-only.

    Args:
        path: The file.

    Returns:
        Arrays by name, in the dtype and shape of the file.

    Raises:
        ModelError: The file is missing, truncated, not in the format, or has a tensor of an unusual dtype.
    """
    try:
        # The library checks that header and data fit together and fill the file.
        with safe_open(path, framework="np"):
            pass
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing") from error
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not a complete safetensors file: {error}") from error
    header.pop("__metadata__", None)
    return {name: _map(path, 8 + size, name, entry) for name, entry in header.items()}


def _map(path: Path, start: int, name: str, entry: dict[str, Any]) -> NDArray[Any]:
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise ModelError(f"{path}: tensor {name!r} has dtype {entry['dtype']}; known are {', '.join(_DTYPES)}")
    shape = tuple(entry["shape"])
    try:
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", offset=start + entry["data_offsets"][0], shape=shape)
    except (OSError, ValueError, OverflowError) as error:
        raise ModelError(f"{path}: tensor {name[:200]!r} of shape {shape[:8]} cannot be mapped: {error}") from error
