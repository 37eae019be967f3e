"""Which encoder makes the vectors of an index that is made again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.opening import names_base_of
from retrieval.config import Config
from retrieval.datatypes import IndexManifest
from retrieval.encoders import StaticEncoder
from retrieval.errors import ModelError
from retrieval.manifest import same_encoder
from retrieval.models import open_encoder
from retrieval.protocols import Encoder
from retrieval.stores.index_layout import ENCODER

_NO_MANIFEST = "no manifest was left: settings are those of the configuration, BM25 weighs with the mean length now"


@dataclass(frozen=True, slots=True)
class Encoders:
    """Which encoder makes the new vectors, and which has made the old ones.

    Args:
        new: Makes the new vectors.
        old: Has made those that are stored; ``None`` where it is gone.
        folder: Folder of an adapted encoder that is kept.
        notes: Sentences for a person.
    """

    new: StaticEncoder
    old: Encoder | None
    folder: Path | None
    notes: tuple[str, ...] = ()


def find_encoders(manifest: IndexManifest | None, generation: Path, config: Config) -> Encoders:
    """The encoder of a generation, where it is still there and whole; else the one that the configuration names.

    Args:
        manifest: Manifest of the index; ``None`` where there is none any more.
        generation: Folder of the damaged generation.
        config: Settings of the index.

    Raises:
        ModelError: The encoder that the configuration names cannot be opened.
    """
    folder = generation / ENCODER
    notes: tuple[str, ...] = ()
    if folder.is_dir() and (manifest is None or manifest.adapted_from is not None):
        try:
            adapted = StaticEncoder.open(folder)
        except ModelError as error:
            notes = (f"the adapted encoder is damaged ({error})",)
        else:
            if manifest is None or same_encoder(adapted.fingerprint, manifest.encoder):
                return Encoders(adapted, adapted, folder, (_NO_MANIFEST,) if manifest is None else ())
            notes = ("the adapted encoder is not the one that has made the vectors",)
    elif manifest is not None and manifest.adapted_from is not None:
        notes = ("the adapted encoder is gone",)
    base = open_encoder(config.encoder)
    if manifest is None:
        return Encoders(base, base, None, (_NO_MANIFEST,))
    if notes:
        notes = (f"{notes[0]}; vectors are those of {base.fingerprint.name} now, run 'retrieval adapt' again",)
        return Encoders(base, None, None, notes)
    if not same_encoder(base.fingerprint, manifest.encoder):
        if names_base_of(config, manifest):
            notes = (f"{config.encoder.model} was {manifest.encoder} and is {base.fingerprint} now",)
        return Encoders(base, None, None, notes)
    return Encoders(base, base, None)
