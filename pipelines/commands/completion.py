"""What a shell offers when TAB is pressed; nothing is imported before."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

_SETTINGS_FILES = (".yaml", ".yml")


def index_folders(incomplete: str) -> list[str]:
    """Folders that are an index, and those on the way to one."""
    return _entries(incomplete, lambda path: path.is_dir())


def configuration_files(incomplete: str) -> list[str]:
    """YAML files, and folders."""
    return _entries(incomplete, lambda path: path.is_dir() or path.suffix in _SETTINGS_FILES)


def settings(incomplete: str) -> list[str]:
    """``section.key=value`` for ``--set``: every choice where there are few, else the default, to be edited."""
    from retrieval.config import Config

    return [pair for pair in _pairs(Config, "") if pair.startswith(incomplete)]


def _entries(incomplete: str, wanted: Callable[[Path], bool]) -> list[str]:
    head, _, start = incomplete.rpartition("/")
    folder = Path(head + "/" if incomplete.startswith("/") else head or ".").expanduser()
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    found = [
        (name, folder / name)
        for name in names
        if name.startswith(start) and (start or not name.startswith(".")) and wanted(folder / name)
    ]
    shown = []
    for name, path in found:
        place = f"{head}/{name}" if "/" in incomplete else name
        is_index = path.is_dir() and (path / "manifest.json").is_file()
        shown.append(place + "/" if path.is_dir() and not is_index else place)
    return shown


def _pairs(model: Any, prefix: str) -> Iterator[str]:
    from pydantic import BaseModel

    for name, field in model.model_fields.items():
        kinds = [kind for kind in _flat(field.annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if kinds:
            seen = dict.fromkeys(pair for kind in kinds for pair in _pairs(kind, f"{prefix}{name}."))
            yield from seen
            continue
        values = list(_choices(f"{prefix}{name}", field.annotation))
        default = field.get_default(call_default_factory=True)
        yield from (f"{prefix}{name}={value}" for value in values or [_shown(default)])


def _choices(name: str, annotation: Any) -> Iterable[str]:
    """The values of a setting where they can be counted, none where they cannot."""
    if name in {"encoder.model", "rerank.model"}:
        from retrieval.models import bundled_models

        return [model for model in bundled_models() if ("reranker" in model) == (name == "rerank.model")]
    kinds = [kind for kind in _flat(annotation) if kind is not type(None)]
    choices = ["true", "false"] if bool in kinds else []
    for kind in kinds:
        if get_origin(kind) is Literal:
            choices += [_shown(value) for value in get_args(kind)]
        elif kind is not bool:
            return []
    return choices


def _flat(annotation: Any) -> Iterator[Any]:
    """The members of a union, and what stands in an ``Annotated``."""
    if hasattr(annotation, "__metadata__"):
        yield from _flat(annotation.__origin__)
    elif get_origin(annotation) is Literal or not get_args(annotation) or get_origin(annotation) in {tuple, list, dict}:
        yield annotation
    else:
        for member in get_args(annotation):
            yield from _flat(member)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
