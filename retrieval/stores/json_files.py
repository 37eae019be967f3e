"""Small JSON files that are either the old or the new version, whatever happens in between."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from retrieval.checked_json import encode_json, parse_mapping, with_checksum
from retrieval.errors import IndexMismatchError, StoreCorruptError, StoreError, StoreInputError
from retrieval.manifest import SCHEMA_VERSION

REMEDY = "run 'retrieval repair', or re-make the index with 'retrieval ingest --rebuild'"


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a mapping, ``None`` when there is no such file.

    Raises:
        StoreError: This user may not read the file.
        StoreCorruptError: The file is unreadable, not JSON, not a mapping, or not what was written.
    """
    try:
        return parse_mapping(path.read_bytes())
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise StoreError(f"{path} may not be read by this user; have its owner grant that") from error
    except (OSError, ValueError, RecursionError) as error:
        raise StoreCorruptError(f"{path} is damaged ({error}); {REMEDY}") from error


def write_json(path: Path, value: Mapping[str, Any], *, checksum: bool = True, durable: bool = True) -> None:
    """Replace a file by a mapping so that a reader or a power loss sees the old or the new one, never a part.

    Args:
        path: The file.
        value: The mapping.
        checksum: Whether to add the digest that `read_json` compares; false for files that others read.
        durable: Whether to wait for the disk; false for copies that are not missed after a power loss.

    Raises:
        StoreInputError: The mapping is not JSON.
        StoreError: The file cannot be written; the old one is still there.
    """
    encode_manifest(value)
    data = encode_manifest(with_checksum(value) if checksum else value).encode("utf-8")
    temporary = path.with_name(f"{path.name}.new")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def encode_manifest(value: Mapping[str, Any]) -> str:
    """A mapping as JSON text.

    Raises:
        StoreInputError: It holds something that is not JSON.
    """
    try:
        return encode_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreInputError(f"a manifest holds JSON values only: {error}") from error


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
