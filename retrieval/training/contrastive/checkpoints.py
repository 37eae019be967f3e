"""Checkpoints of the trainer of sentence-transformers: which are complete, and what a full disk leaves behind."""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

_NAME = re.compile(r"checkpoint-(\d+)")
_STATE = "trainer_state.json"  # the trainer writes it last
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_TEXTS = ("No space left", "File too large", "PytorchStreamWriter", "Disk quota")


def complete_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints that were written to their end, the newest first."""
    found = [path for path in folder.glob("checkpoint-*") if _NAME.fullmatch(path.name) and _is_complete(path)]
    return sorted(found, key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """Number of steps done at a checkpoint."""
    return int(checkpoint.name.rpartition("-")[2])


def remove_incomplete(folder: Path) -> None:
    """Remove what a killed process left half written."""
    complete = set(complete_checkpoints(folder))
    for path in folder.glob("checkpoint-*"):
        if path not in complete:
            shutil.rmtree(path, ignore_errors=True)


def _is_complete(path: Path) -> bool:
    try:
        state = json.loads((path / _STATE).read_text(encoding="utf-8"))
        weights = list(path.rglob("model.safetensors"))
        for file in weights:
            with safe_open(file, framework="np"):  # checks that header and data fill the file
                pass
    except (OSError, ValueError, RecursionError, SafetensorError):
        return False
    return bool(weights) and (path / "optimizer.pt").is_file() and state.get("global_step") == step_of(path)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the libraries raise when a disk is full into one error that names the last complete checkpoint.

    What was half written is removed.

    Raises:
        OSError: Nothing more could be written.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        full = isinstance(error, OSError) and error.errno in _FULL
        if not full and not any(text in str(error) for text in _FULL_TEXTS):
            raise
        raise disk_full(folder) from error


def require_space(folder: Path, needed: int) -> None:
    """Make sure that a checkpoint fits.

    Args:
        folder: Where it will be written.
        needed: Its bytes.

    Raises:
        OSError: Less is free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise disk_full(folder, f": a checkpoint takes {needed / 2**20:,.0f} MiB and {free / 2**20:,.0f} are free")


def disk_full(folder: Path, detail: str = "") -> OSError:
    """The error of a full disk; removes what was half written."""
    remove_incomplete(folder)
    last = next(iter(complete_checkpoints(folder)), None)
    kept = f"step {step_of(last)} is kept" if last is not None else "nothing was kept yet"
    return OSError(
        errno.ENOSPC, f"no space is left{detail}; {kept}: free some and go on with --resume", str(folder.absolute())
    )


def require_same_run(file: Path, description: Mapping[str, Any], *, resume: bool) -> None:
    """Write what a run is made of, or compare with what it was when it is resumed.

    Args:
        file: The description on disk.
        description: JSON values.
        resume: Compare, when the file is there.

    Raises:
        ValueError: Something differs; the message names it.
    """
    if resume and file.is_file():
        try:
            before = dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{file} is damaged ({str(error)[:200]}); use another output folder") from error
        now = json.loads(json.dumps(description))
        differ = [f"{key} was {before.get(key)}, is {value}" for key, value in now.items() if before.get(key) != value]
        if differ:
            raise ValueError(
                f"cannot resume with other data or settings: {'; '.join(differ)}; "
                "use the same, or another output folder"
            )
        return
    file.write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
