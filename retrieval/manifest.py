"""The manifest of an index: what it was built with, and how it goes to JSON and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from retrieval.checked_json import parse_mapping
from retrieval.config import Config
from retrieval.datatypes import EncoderFingerprint, IndexManifest
from retrieval.errors import IndexMismatchError, StoreCorruptError, StoreError

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
"""Name of the manifest in the folder of an embedded index."""


def new_manifest(
    config: Config, fingerprint: EncoderFingerprint, chunking: Mapping[str, Any], *, generation: int = 1
) -> IndexManifest:
    """The manifest of an empty index."""
    now = timestamp()
    return IndexManifest(
        schema_version=SCHEMA_VERSION,
        generation=generation,
        previous=None,
        encoder=fingerprint,
        adapted_from=None,
        dense_weight=None,
        bm25=config.bm25.model_dump(),
        average_length=0.0,
        chunking=dict(chunking),
        config=config.model_dump(mode="json", include={"encoder", "bm25", "chunking"}),
        documents=0,
        passages=0,
        terms=0,
        ids_digest="0" * 32,
        runs=0,
        state="ready",
        created=now,
        updated=now,
    )


def manifest_from_json(data: Mapping[str, Any], location: str) -> IndexManifest:
    """Read a manifest.

    Args:
        data: The mapping that a store returned.
        location: Name of the index, for messages.

    Raises:
        StoreCorruptError: A key is missing.
        IndexMismatchError: The manifest was written by a later version.
    """
    version = data.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise IndexMismatchError(
            f"{location} has schema version {version}, this installation reads up to {SCHEMA_VERSION}; "
            "upgrade two-stage-retrieval"
        )
    needed = {field.name for field in fields(IndexManifest) if field.default is MISSING}
    missing = sorted(needed - data.keys())
    if missing:
        raise StoreCorruptError(
            f"the manifest of {location} lacks {', '.join(missing)}; make the index again with "
            "'retrieval ingest --rebuild'"
        )
    known = {field.name: data[field.name] for field in fields(IndexManifest) if field.name in data}
    try:
        known["encoder"] = EncoderFingerprint(**known["encoder"])
        if known["adapted_from"] is not None:
            known["adapted_from"] = EncoderFingerprint(**known["adapted_from"])
    except TypeError as error:
        raise StoreCorruptError(f"the manifest of {location} has no usable encoder fingerprint: {error}") from error
    return IndexManifest(**known)


def manifest_to_json(manifest: IndexManifest) -> dict[str, Any]:
    """The mapping that a store keeps; ``updated`` is set to now."""
    return asdict(replace(manifest, updated=timestamp()))


def contents_digest(manifest: IndexManifest) -> str:
    """What two copies of an index have in common, and an index before and after a change has not: 32 hex digits."""
    fleeting = {"generation", "previous", "state", "updated"}
    kept = {name: value for name, value in asdict(manifest).items() if name not in fleeting}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:32]


def peek_manifest(folder: str | Path) -> IndexManifest | None:
    """Read the manifest of an embedded index without opening the index.

    Returns:
        The manifest, ``None`` where there is none.

    Raises:
        StoreError: This user may not read the file.
        StoreCorruptError: The file is not a manifest.
        IndexMismatchError: It was written by a later version.
    """
    path = Path(folder) / MANIFEST_FILE
    try:
        data = parse_mapping(path.read_bytes())
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise StoreError(f"{path} may not be read by this user; have its owner grant that") from error
    except (OSError, ValueError, RecursionError) as error:
        raise StoreCorruptError(f"{path} cannot be read: {error}; run 'retrieval repair'") from error
    return manifest_from_json(data, str(folder))


def same_encoder(one: EncoderFingerprint, other: EncoderFingerprint) -> bool:
    """Whether two encoders give the same vectors: a model may be renamed or moved, its weights and rules decide."""
    return replace(one, name="") == replace(other, name="")


def require_same_encoder(manifest: IndexManifest, fingerprint: EncoderFingerprint, location: str) -> None:
    """Refuse an encoder whose vectors do not belong to those of the index.

    Raises:
        IndexMismatchError: The fingerprints differ; both are named.
    """
    if not same_encoder(manifest.encoder, fingerprint):
        raise IndexMismatchError(
            f"{location} was built with encoder {manifest.encoder}, the configuration asks for {fingerprint}; "
            "re-encode with 'retrieval ingest --rebuild' or open it with its own encoder"
        )


def require_same_bm25(manifest: IndexManifest, config: Config, location: str) -> None:
    """Refuse BM25 settings that do not belong to the stored weights.

    Raises:
        IndexMismatchError: The settings differ; both are named.
    """
    asked = config.bm25.model_dump()
    if dict(manifest.bm25) != asked:
        raise IndexMismatchError(
            f"{location} was built with BM25 settings {dict(manifest.bm25)}, the configuration asks for {asked}; "
            "re-encode with 'retrieval ingest --rebuild' or use the settings of the index"
        )


def timestamp() -> str:
    """Now, ISO 8601 in UTC with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
