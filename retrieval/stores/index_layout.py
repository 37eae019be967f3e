"""Names in the folder of an embedded index.

::

    manifest.json        what the index holds; its ``generation`` says which of the folders below is live
    .lock                who has the index open
    generations/3/       one generation: all vectors in it come from one encoder
        engine/          the files of the engine
        store.json       `retrieval.stores.generation_settings.Settings`
        seal.json        what all files of the engine were when it was last closed (`retrieval.stores.seal`)
        encoder/         the encoder, where it was adapted to these documents
        growing.json     while it is made: its manifest so far
        origin.json      what it is a copy of, where it is one
        manifest.json    after it was replaced: its manifest at that moment
        damaged.json     it was repaired and is kept, because something of it is missing in the live one
        manifest.copy.json   while it is live: the manifest of the index once more, for `retrieval repair`
"""

from __future__ import annotations

from pathlib import Path

GENERATIONS = "generations"
MANIFEST_COPY = "manifest.copy.json"
DAMAGED = "damaged.json"
ENGINE = "engine"
ENCODER = "encoder"
SETTINGS = "store.json"
GROWING = "growing.json"
ORIGIN = "origin.json"


def encoder_folder(root: Path, generation: int) -> Path:
    """Folder of the adapted encoder of a generation, if it has one."""
    return root / GENERATIONS / str(generation) / ENCODER
