"""A folder for a new model: never over other files, and there completely or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retrieval.errors import ModelError

_MODEL_FILES = {"config.json", "modules.json"}


def refuse_occupied(out: Path, *, overwrite: bool) -> None:
    """Refuse a place for a model that is a file, or a folder with something in it.

    Args:
        out: Where the model shall go.
        overwrite: A model that is there may be replaced; other files may not.

    Raises:
        ValueError: The place is taken.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"{out} is a file; name a folder for the model")
    names = {path.name for path in out.iterdir()}
    if names and not overwrite:
        raise ValueError(f"{out} is not empty; name another folder, or replace the model there with --overwrite")
    if names and not names & _MODEL_FILES:
        raise ValueError(
            f"{out} is not empty and holds no model ({min(names)}); it is not replaced, name another folder"
        )


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """A new folder that takes the place of ``out`` at the end, and is gone when anything goes wrong."""
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.absolute().parent))
    try:
        folder = place / "new"
        folder.mkdir()
        yield folder
        if out.exists():
            out.rename(place / "old")
        try:
            folder.rename(out)
        except OSError as error:
            if (place / "old").exists():
                (place / "old").rename(out)
            raise ModelError(f"the model cannot be moved to {out}: {error.strerror}") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
