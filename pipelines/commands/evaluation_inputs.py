"""What `retrieval evaluate` is given: files with names, lists of measures, and its own command line to repeat it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

if TYPE_CHECKING:
    from retrieval.config import Config

_Value = TypeVar("_Value")

_NOT_REPEATED = {"quiet", "debug"}
_BLANK_OR_COMMA = re.compile(r"[\s,]+(?![^(]*\))")  # outside parentheses: nDCG(dcg='exp-log2')@10


def split_measures(text: str) -> tuple[str, ...]:
    """Names of measures between blanks and commas, each once."""
    return tuple(dict.fromkeys(name for name in _BLANK_OR_COMMA.split(text) if name))


def read_systems(entries: Sequence[str]) -> Mapping[str, Config]:
    """Settings of each ``NAME=FILE``; the name of the file stands in for one that is left out.

    Raises:
        ConfigError: A file cannot be used.
        ValueError: A name is given twice.
    """
    from retrieval.config import load_config

    return _by_name([(name or path.stem, load_config(path)) for name, path in map(_named, entries)])


def read_runs(entries: Sequence[str]) -> Mapping[str, Mapping[str, tuple[tuple[str, float], ...]]]:
    """Results of each ``NAME=FILE``; its tag or the name of the file stand in for a name that is left out.

    Raises:
        DocumentError: A file is no run.
        ValueError: A name is given twice.
    """
    from retrieval.evaluation import read_run

    runs = []
    for name, path in map(_named, entries):
        run = read_run(path)
        runs.append((name or run.tag or path.name.split(".")[0], run.results))
    return _by_name(runs)


def command_line(context: typer.Context) -> str:
    """The command line with everything that is not as by default.

    Of absolute paths only the names are told: a report is made to be shown, and what lies where is nobody's business.
    """
    words = ["retrieval", context.command.name or ""]
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if value is False and parameter.default is True:
            words.append(parameter.secondary_opts[0])
        if value is None or value in (False, (), []) or value == parameter.default or parameter.name in _NOT_REPEATED:
            continue
        values = value if isinstance(value, list | tuple) else [value]
        if parameter.param_type_name == "argument":
            words[2:2] = [_shown(one) for one in values]
        elif value is True:
            words.append(parameter.opts[0])
        else:
            for one in values:
                words += [parameter.opts[0], _shown(one)]
    return shlex.join(words)


def _shown(value: object) -> str:
    """A value as it was given, absolute paths by their names: also those of ``NAME=FILE``."""
    name, equals, file = str(value).rpartition("=")
    return name + equals + (Path(file).name if Path(file).is_absolute() else file)


def require_place(path: Path | None, option: str) -> None:
    """Refuse a file that could not be written, before anything is measured.

    Raises:
        ValueError: Its folder does not exist, or it is a folder itself.
    """
    if path is None:
        return
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder; name a file")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"cannot write {option} {path}: make the folder {path.parent} first")


def _named(entry: str) -> tuple[str, Path]:
    name, equals, file = entry.partition("=")
    if not equals or "/" in name or Path(entry).exists():
        return "", Path(entry)
    return name.strip(), Path(file)


def _by_name(entries: Sequence[tuple[str, _Value]]) -> Mapping[str, _Value]:
    names = [name for name, _ in entries]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two systems are called {name!r}; give one of them another name: NAME=FILE")
    return dict(entries)
