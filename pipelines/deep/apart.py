"""The contents of an index, read in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.apart import ApartError, run_apart, say, take_order
from pipelines.index_checks import REPAIR, Check, Finding
from pipelines.progress import StepCallback
from retrieval.config import Config, parse_config

_START = "from pipelines.deep.apart import read_for_parent; read_for_parent()"


def examine_apart(config: Config, folder: Path, on_progress: StepCallback) -> Iterator[Check]:
    """`pipelines.doctor.examine_stored` in a process of its own, whose end is a check that failed.

    Args:
        config: The configuration that the index would be opened with.
        folder: Folder of the embedded index.
        on_progress: Called while the index is read.
    """
    try:
        for said in run_apart(_START, {"config": config.model_dump(mode="json"), "folder": str(folder.absolute())}):
            if "progress" in said:
                on_progress(*said["progress"])
            else:
                yield _check(said)
    except ApartError as error:
        yield Check("contents", False, str(error), REPAIR)


def read_for_parent() -> None:
    """What the process does."""
    order = take_order()
    from pipelines.doctor import examine_stored

    def show(stage: str, done: int, total: int) -> None:
        say({"progress": [stage, done, total]})

    config = parse_config(order["config"], origin="the process that asks")
    for check in examine_stored(config, Path(order["folder"]), show):
        say(asdict(check))


def _check(said: dict[str, Any]) -> Check:
    findings = tuple(Finding(**finding) for finding in said.pop("findings"))
    return Check(**said, findings=findings)
