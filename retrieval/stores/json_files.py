"""Small JSON files that are either the old or the new version, whatever happens in between."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from retrieval.errors import IndexMismatchError, StoreCorruptError, StoreError, StoreInputError
from retrieval.manifest import SCHEMA_VERSION

REMEDY = "re-make the index with 'retrieval ingest --rebuild'"


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a mapping, ``None`` when there is no such file.

    Raises:
        StoreCorruptError: The file is unreadable, not JSON, or not a mapping.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise StoreCorruptError(f"{path} is damaged ({error}); {REMEDY}") from error
    if not isinstance(value, dict):
        raise StoreCorruptError(f"{path} is damaged (it holds a {type(value).__name__}, not a mapping); {REMEDY}")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a file by a mapping so that a reader or a power loss sees the old or the new one, never a part.

    Raises:
        StoreInputError: The mapping is not JSON.
        StoreError: The file cannot be written; the old one is still there.
    """
    data = encode_manifest(value).encode("utf-8")
    temporary = path.with_name(f"{path.name}.new")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def encode_manifest(value: Mapping[str, Any]) -> str:
    """A mapping as JSON text.

    Raises:
        StoreInputError: It holds something that is not JSON.
    """
    try:
        text = json.dumps(dict(value), ensure_ascii=False, allow_nan=False, indent=1, sort_keys=True)
        text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreInputError(f"a manifest holds JSON values only: {error}") from error
    return text


def check_schema(manifest: Mapping[str, Any], location: str) -> None:
    """Refuse an index that a later version of this project has written.

    Raises:
        IndexMismatchError: Its schema is newer than ours.
        StoreCorruptError: Its schema is not a number.
    """
    version = manifest.get("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or isinstance(version, bool):
        raise StoreCorruptError(f"the manifest of {location} has schema_version {version!r}; {REMEDY}")
    if version > SCHEMA_VERSION:
        raise IndexMismatchError(
            f"index {location} has schema version {version}, this installation reads up to {SCHEMA_VERSION}; "
            "upgrade two-stage-retrieval"
        )


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power loss, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def ids_digest(ids: Iterable[str]) -> str:
    """Order-free digest of UUIDs: the XOR of their 128 bits as 32 hex digits."""
    digest = 0
    for point_id in ids:
        digest ^= UUID(point_id).int
    return f"{digest:032x}"
