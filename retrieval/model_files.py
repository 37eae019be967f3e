"""Files of a model folder, opened as what they are: input from others.

A folder is what the caller named; what its files point to may lie elsewhere. So a file is opened only where it lies in
the folder, or in the cache of the hub that the folder is a snapshot of, and only up to a size.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from retrieval.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

T = TypeVar("T")
MAX_CONFIG_BYTES = 2**22
MAX_TOKENIZER_BYTES = 2**27
MAX_GRAPH_BYTES = 2**31
MAX_LENGTH = 2**31 - 1
"""Of a number of tokens or characters."""
_UNKNOWN = "\U00013080 " + "q" * 300
"""A hieroglyph, and a word longer than tokenizers look up."""


def checked_file(path: Path, folder: Path, most: int | None = None) -> Path:
    """The same path, when it may be opened.

    Args:
        path: A file in the folder.
        folder: The folder of the model.
        most: Most bytes; ``None`` for files that are mapped, not read.

    Raises:
        ModelError: It is missing, no file, larger, or a link to somewhere else.
    """
    try:
        real, root = path.resolve(strict=True), folder.resolve()
        size = real.stat().st_size if real.is_file() else None
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"{path} is missing or cannot be read: {error}") from error
    if size is None:
        raise ModelError(f"{path} is no file")
    if not real.is_relative_to(root) and not _is_blob(real, root):
        raise ModelError(f"{path} is a link out of the folder of the model, to {real}; put a copy in its place")
    if most is not None and size > most:
        raise ModelError(f"{path} has {size:,} bytes; such a file has at most {most:,}")
    return path


def _is_blob(real: Path, root: Path) -> bool:
    """Whether a folder is a snapshot in the cache of the hub, and a file a blob of the same model."""
    # <cache>/models--owner--model/{blobs/<hash>,snapshots/<revision>/...}
    return any(
        place.parent.name == "snapshots"
        and place.parent.parent.name.startswith("models--")
        and real.parent == place.parent.parent / "blobs"
        for place in (root, *root.parents)
    )


def read_model_json(path: Path, folder: Path, kind: type = dict) -> Any:
    """Content of a JSON file of a model.

    Args:
        path: The file.
        folder: The folder of the model.
        kind: ``dict`` or ``list``.

    Raises:
        ModelError: It is missing, too large, not JSON, or of another kind.
    """
    checked_file(path, folder, MAX_CONFIG_BYTES)
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not readable JSON: {str(error)[:500]}") from error
    if not isinstance(content, kind):
        raise ModelError(f"{path} holds a {type(content).__name__}, not a {kind.__name__}")
    return content


def read_tokenizer(path: Path, folder: Path) -> Tokenizer:
    """The tokenizer in a ``tokenizer.json``.

    Args:
        path: The file.
        folder: The folder of the model.

    Raises:
        ModelError: It is missing, too large, not a tokenizer, or fails at words that it does not know.
    """
    from tokenizers import Tokenizer

    checked_file(path, folder, MAX_TOKENIZER_BYTES)
    tokenizer = guarded(path, lambda: Tokenizer.from_file(str(path)))
    # Some cannot say that a word is unknown to them, which would show at the first text that has one.
    guarded(path, lambda: tokenizer.encode(_UNKNOWN, add_special_tokens=False))
    return tokenizer


def guarded(path: Path, call: Callable[[], T]) -> T:
    """What a call of the tokenizer library gives.

    Raises:
        ModelError: It failed; the library raises bare Exceptions, and panics of Rust, which are none.
    """
    try:
        return call()
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise ModelError(f"{path} is not a tokenizer: {str(error)[:500]}") from error
        raise
