"""The static model as a folder that model2vec and sentence-transformers open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.export.card import model_card
from pipelines.export.passages import ExportedPassages, export_passages
from pipelines.model_folder import refuse_occupied, replacing
from pipelines.opening import open_index_encoder
from retrieval.encoders import StaticEncoder
from retrieval.errors import ModelError
from retrieval.models import bundled_models, find_model, open_encoder
from retrieval.stores import peek_index
from retrieval.token_tables import Precision, open_static_model, write_portable

if TYPE_CHECKING:
    from pipelines.two_stage import TwoStagePipeline
    from retrieval.config import Config


@dataclass(frozen=True, slots=True)
class ModelToExport:
    """A static model and where it comes from.

    Args:
        encoder: The opened model, with the dimensions to export.
        origin: What it is, in words, for the card.
        card: Markdown of the model that it was made from, empty where there is none.
        licence: Name of the licence as model cards write it, ``None`` where it is not known.
    """

    encoder: StaticEncoder
    origin: str
    card: str = ""
    licence: str | None = None


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written.

    Args:
        folder: Where.
        model: Name and digest of the model.
        origin: What it is, in words.
        precision: ``int8`` or ``float32``.
        tokens: Rows of the table.
        dim: Dimensions of a vector.
        bytes: Size of all files.
        exact: Whether every number of the table is the same as before.
        lowest_cosine: Between a token's vector before and after, the worst of all tokens.
        limits: Sentences on texts of which another library makes another vector.
        files: Names of the files.
        passages: What was written of the index; ``None`` where nothing was.
    """

    folder: Path
    model: str
    origin: str
    precision: Precision
    tokens: int
    dim: int
    bytes: int
    exact: bool
    lowest_cosine: float
    limits: tuple[str, ...]
    files: tuple[str, ...]
    passages: ExportedPassages | None


def model_to_export(config: Config, folder: Path | None, name: str | None = None) -> ModelToExport:
    """The model with a given name, or that of an index: the one that was adapted to its documents, where there is one.

    An index is only looked at, not opened: another process may use it.

    Args:
        config: Settings; names the encoder where no index does.
        folder: Folder of the embedded index; need not exist. ``None`` for a server.
        name: A bundled name, folder or hub name; ``None`` for the model of the index.

    Raises:
        ModelError: The model is not found or malformed.
        ValueError: It has fewer dimensions than asked for.
    """
    if name is not None:
        encoder = open_encoder(config.encoder.model_copy(update={"model": name}))
        return _described(encoder, name, f"the model {name}")
    stored = peek_index(config, folder)
    encoder = open_index_encoder(config, stored)
    base = config.encoder.model
    if stored is None:
        return _described(encoder, base, f"the model {base}")
    if stored.manifest.adapted_from is None:
        return _described(encoder, base, f"the model {base}, as an index uses it")
    return _described(encoder, base, f"the model {base}, adapted to the documents of an index")


def export_model(
    model: ModelToExport,
    out: Path,
    *,
    precision: Precision = "int8",
    overwrite: bool = False,
    index: TwoStagePipeline | None = None,
    max_passages: int = 20_000,
) -> ExportReport:
    """Write the model, and the passages of an index where one is given; all of it or nothing.

    Args:
        model: What to write.
        out: A folder that does not exist or is empty.
        precision: ``int8``, or ``float32`` at four times the size.
        overwrite: A model in the folder may be replaced.
        index: The open index whose passages go along; its vectors are those of ``model``.
        max_passages: An index with more passages is refused.

    Raises:
        ValueError: The folder is taken, the index is too large, or has vectors of another model.
        ModelError: What was written does not open again.
        OSError: The files cannot be written.
    """
    refuse_occupied(out, overwrite=overwrite)
    encoder = model.encoder
    fingerprint = encoder.fingerprint
    if index is not None and index.encoder.fingerprint != fingerprint:
        raise ValueError(
            f"{index.store.location} has vectors of {index.encoder.fingerprint}, not of {fingerprint}: "
            "export the model of the index together with it"
        )
    with replacing(out) as folder:
        written = write_portable(encoder.model, folder, dim=encoder.dim, precision=precision)
        passages = None if index is None else export_passages(index, folder, limit=max_passages)
        (folder / "README.md").write_text(
            model_card(model.origin, model.card, model.licence, fingerprint, written, precision), encoding="utf-8"
        )
        if open_static_model(folder).table.tokens != written.tokens:
            raise ModelError(f"{out}: the exported table does not open again with its {written.tokens} tokens")
        files = sorted(path for path in folder.iterdir() if path.is_file())
        size, names = sum(path.stat().st_size for path in files), tuple(path.name for path in files)
    return ExportReport(
        folder=out,
        model=f"{fingerprint.name}@{fingerprint.digest}",
        origin=model.origin,
        precision=precision,
        tokens=written.tokens,
        dim=written.dim,
        bytes=size,
        exact=written.exact,
        lowest_cosine=written.lowest_cosine,
        limits=written.limits,
        files=names,
        passages=passages,
    )


def _described(encoder: StaticEncoder, base: str, origin: str) -> ModelToExport:
    card = find_model(base) / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    licence = "apache-2.0" if base in bundled_models() else _front_matter(text.splitlines(), "license")
    return ModelToExport(encoder, origin, text, licence)


def _front_matter(lines: Sequence[str], key: str) -> str | None:
    """A plain value of the YAML block that hub cards begin with."""
    if not lines or lines[0].strip() != "---":
        return None
    for line in lines[1:]:
        if line.strip() == "---":
            return None
        name, colon, value = line.partition(":")
        if colon and name == key and value.strip():
            return value.strip().strip("'\"")
    return None
