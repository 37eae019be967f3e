"""Which encoder an index is opened with."""

from __future__ import annotations

from pathlib import Path

from retrieval.config import Config, parse_config
from retrieval.datatypes import IndexManifest
from retrieval.encoders import StaticEncoder
from retrieval.errors import ModelError
from retrieval.manifest import peek_manifest, same_encoder
from retrieval.models import open_encoder
from retrieval.stores import StoredIndex


def settings_of(path: str | Path) -> Config:
    """The configuration to open an embedded index with when none is given.

    Args:
        path: Folder of the index; need not exist.

    Returns:
        The encoder, BM25 and chunking settings that the index was built with, defaults for the rest.

    Raises:
        StoreCorruptError: The manifest cannot be read.
    """
    manifest = peek_manifest(path)
    return Config() if manifest is None else parse_config(manifest.config, origin=f"the manifest of {path}")


def open_index_encoder(config: Config, stored: StoredIndex | None) -> StaticEncoder:
    """The encoder that the configuration names, or the one that was adapted from it to the documents of the index.

    Args:
        config: The configuration that the index is opened with.
        stored: What is there; ``None`` for a new index.

    Raises:
        ModelError: The model is not found or malformed, or the adapted encoder is missing.
        ValueError: The model has fewer dimensions than asked for.
    """
    if stored is None or stored.manifest.adapted_from is None:
        return open_encoder(config.encoder)
    if names_base_of(config, stored.manifest):
        return open_adapted(stored.location, stored.encoder_folder)
    encoder = open_encoder(config.encoder)
    if same_encoder(encoder.fingerprint, stored.manifest.adapted_from):
        return open_adapted(stored.location, stored.encoder_folder)
    return encoder


def names_base_of(config: Config, manifest: IndexManifest) -> bool:
    """Whether the configuration names the encoder that an index was made with, in the same words."""
    return manifest.config.get("encoder") == config.encoder.model_dump(mode="json")


def open_adapted(location: str, folder: Path | None) -> StaticEncoder:
    """The adapted encoder of an index.

    Args:
        location: The index, for messages.
        folder: Its folder; ``None`` where the configuration names no place.

    Raises:
        ModelError: It is not there or malformed.
    """
    if folder is None:
        raise ModelError(
            f"{location} has an encoder that was adapted to its documents; set store.models to the folder with it"
        )
    if not folder.is_dir():
        raise ModelError(
            f"{location} has an encoder that was adapted to its documents, and it is not in {folder}; copy that folder "
            "from a backup or from the machine that adapted the index"
        )
    return StaticEncoder.open(folder)
