"""Writes the pages of the reference that come from code: the command line and the configuration."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.core import TyperGroup

from pipelines.cli import app
from pipelines.commands.invocation import Invocation
from pipelines.service.config import ServiceConfig
from pipelines.train_config import TrainConfig
from retrieval.config import Config

_CONFIGS = Path(__file__).parents[1] / "configs"
_COMMENTED = ("default.yaml", "server.yaml", "service.yaml", "train-english.yaml")


def write_reference_pages(folder: Path) -> None:
    """Write ``cli.md`` and ``configuration.md``; a page that would not change is left alone."""
    for name, text in {"cli.md": command_line_page(), "configuration.md": configuration_page()}.items():
        page = folder / name
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


def command_line_page() -> str:
    """Every command with its arguments and options, as Markdown."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    shared = set(Invocation.__slots__)
    first = next(iter(group.commands.values()))
    lines = [
        "# Command line",
        "",
        "Generated from the commands themselves; `retrieval COMMAND --help` prints the same.",
        "",
        "## Options of every command",
        "",
        *_table([parameter for parameter in first.params if parameter.name in shared], typer.Context(first)),
        "",
        "Exit codes: 0 done, 1 failed, 2 bad usage, 130 interrupted.",
        "",
    ]
    for name, command in _commands(group, "retrieval"):
        own = [parameter for parameter in command.params if parameter.name not in {*shared, "help"}]
        context = typer.Context(command, info_name=name)
        lines += [f"## {name}", "", inspect.cleandoc(command.help or ""), ""]
        lines += [*_table(own, context), ""] if own else []
    return "\n".join(lines)


def configuration_page() -> str:
    """Every key of the configuration with its type, its default and what it does, as Markdown."""
    comments = _comments()
    lines = [
        "# Configuration",
        "",
        "Generated from the models that check a configuration and the comments of the files in `configs/`. A file",
        "needs only the keys that differ; `--set section.key=value` overrides one on the command line; an unknown key",
        "is an error that names those that exist. The sections under `train` stand at the top of a file for",
        "`retrieval train`.",
        "",
    ]
    for model, prefix in ((Config, ""), (ServiceConfig, "service"), (TrainConfig, "train")):
        lines += _section(model, prefix, comments)
    return "\n".join(lines)


def _commands(group: TyperGroup, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _table(parameters: list[Any], context: typer.Context) -> list[str]:
    rows = ["| | |", "|---|---|"]
    for parameter in parameters:
        shown, meaning = parameter.get_help_record(context)
        rows.append(f"| `{shown.replace('|', chr(92) + '|')}` | {_cell(meaning)} |")
    return rows


def _section(model: type[BaseModel], path: str, comments: dict[str, str]) -> list[str]:
    """The keys of one model, then the sections under it."""
    nested: list[tuple[str, type[BaseModel]]] = []
    rows = []
    for name, field in model.model_fields.items():
        where = f"{path}.{name}" if path else name
        models = _models(field)
        if models:
            nested += [(where if len(models) == 1 else f"{where} ({_kind(one)})", one) for one in models]
            if not _many(field):
                continue
        rows.append(
            f"| `{name}` | {_cell(_type(field))} | {_default(field)} | {_cell(_meaning(where, field, comments))} |"
        )
    lines = []
    if path:
        lines += [f"## {path}", "", _summary(model), ""]
    if rows:
        lines += ["| key | values | default | |", "|---|---|---|---|", *rows, ""]
    for where, one in nested:
        lines += _section(one, where, comments)
    return lines


def _models(field: FieldInfo) -> list[type[BaseModel]]:
    found: list[type[BaseModel]] = []

    def look(annotation: Any) -> None:
        if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
            found.append(annotation)
        for argument in get_args(annotation):
            look(argument)

    look(field.annotation)
    return found


def _many(field: FieldInfo) -> bool:
    return "tuple[" in str(field.annotation) or "dict[" in str(field.annotation)


def _kind(model: type[BaseModel]) -> str:
    kind = model.model_fields.get("kind")
    return model.__name__ if kind is None else str(get_args(kind.annotation)[0])


def _type(field: FieldInfo) -> str:
    bounds = ", ".join(_bound(rule) for rule in field.metadata if _bound(rule))
    return f"{_type_name(field.annotation)} {bounds}".strip()


def _type_name(annotation: Any) -> str:
    """``list of str or null`` of an annotation, with the bounds that stand inside it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return "null"
    if origin is Annotated:
        bounds = ", ".join(_bound(rule) for one in arguments[1:] for rule in getattr(one, "metadata", [one]))
        return f"{_type_name(arguments[0])} {bounds}".strip(" ,")
    if origin is Literal:
        return " or ".join(map(_plain, arguments))
    if origin in {Union, UnionType}:
        return " or ".join(map(_type_name, arguments))
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}"
    if origin is not None:
        return f"{origin.__name__} of {' to '.join(map(_type_name, arguments))}"
    return str(getattr(annotation, "__name__", annotation))


def _bound(rule: object) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return " ".join(f"{sign} {getattr(rule, name)}" for name, sign in signs.items() if hasattr(rule, name))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return f"`{_plain(value)}`"


def _plain(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_plain, value)) + "]"
    return str(getattr(value, "value", value))


def _meaning(path: str, field: FieldInfo, comments: dict[str, str]) -> str:
    return comments.get(re.sub(r" \(\w+\)", "", path)) or field.description or ""


def _summary(model: type[BaseModel]) -> str:
    return inspect.cleandoc(model.__doc__ or "").split("\n\n")[0].replace("``", "`")


def _cell(text: object) -> str:
    return re.sub(r"\s+", " ", str(text)).replace("|", "\\|").replace("<", "&lt;")


def _comments() -> dict[str, str]:
    """What the files of ``configs/`` say beside each key."""
    found: dict[str, str] = {}
    for name in _COMMENTED:
        text = (_CONFIGS / name).read_text(encoding="utf-8")
        prefix = "train." if name.startswith("train") else ""
        for path, line in _keys(yaml.compose(text)):
            _, mark, comment = text.splitlines()[line].partition(" #")
            if mark:
                found.setdefault(prefix + path, comment.strip())
    return found


def _keys(node: yaml.Node | None, path: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = f"{path}.{key.value}" if path else str(key.value)
            yield here, key.start_mark.line
            yield from _keys(value, here)
