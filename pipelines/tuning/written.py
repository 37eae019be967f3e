"""A tuned configuration as a file: what differs from the defaults, with a remark at everything that was tuned."""

from __future__ import annotations

import os
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipelines.tuning.report import TuneReport
from pipelines.tuning.settings import Change, config_with
from retrieval.config import SERVICE_SECTION, Config

_WIDTH = 118
_REBUILD = "The number of dimensions is that of an index that is built with this file: 'retrieval ingest --rebuild'."
_QUANTIZE = "The quantization is that of a new index; 'retrieval quantize' gives it to the one that is there."


def tuned_config(config: Config, report: TuneReport) -> Config:
    """The configuration that gives what was chosen.

    Args:
        config: What the pipeline was opened with.
        report: What was found.
    """
    return config_with(config, report.base, report.setting)


def tuned_yaml(config: Config, report: TuneReport, *, service: Mapping[str, Any] | None = None) -> str:
    """The file, which `load_config` reads back as `tuned_config`.

    Args:
        config: What the pipeline was opened with.
        report: What was found.
        service: Section of the HTTP service, which is handed on as it is.
    """
    sections = _differences(tuned_config(config, report))
    if service is not None:
        sections[SERVICE_SECTION] = dict(service)
    lines = [*_remarks(_head(report)), ""]
    for section, values in sections.items():
        own = [change for change in report.changes if change.key.split(".")[0] == section]
        lines += [*_section(section, values, own), ""]
    return "\n".join(lines)


def write_new(path: Path, text: str, *, replace: bool) -> None:
    """Write a file as a whole, or not at all.

    Args:
        path: Where to.
        text: Its content.
        replace: Whether a file that is there may go.

    Raises:
        FileExistsError: There is one, and it may not.
        OSError: It cannot be written.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
    made = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        made.chmod(0o644)
        if replace:
            made.replace(path)
        else:
            os.link(made, path)  # fails where something is there, also when it came meanwhile
    finally:
        made.unlink(missing_ok=True)


def _differences(config: Config) -> dict[str, Any]:
    """Sections and keys with other values than the defaults; the kind of a store that is not the default one."""
    plain = Config().model_dump(mode="json")
    values = config.model_dump(mode="json")
    if config.store.kind != Config().store.kind:
        plain["store"] = {**type(config.store)().model_dump(mode="json"), "kind": None}
    found = {section: _changed(values[section], plain[section]) for section in values}
    if found["quantization"]:
        found["quantization"] = {"kind": config.quantization.kind, **found["quantization"]}
    return {section: kept for section, kept in found.items() if kept}


def _changed(values: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        other = plain.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            if inner := _changed(value, other):
                found[key] = inner
        elif value != other:
            found[key] = value
    return found


def _head(report: TuneReport) -> list[str]:
    judged = {"judged": "judged queries", "real": "real queries", "pseudo": "pseudo-queries"}[report.asked]
    head = [
        "Written by 'retrieval tune'. Everything that is not here has its default value.",
        f"Measured on {report.queries:,} {judged} over {report.passages:,} passages; {report.settings_tried} settings.",
        f"{report.reason[:1].upper()}{report.reason[1:]}.",
    ]
    if report.asked != "judged":
        head.append("Likeness to exact search at full depth is not relevance: no judgement was asked.")
    if report.needs is not None:
        head.append({"rebuild": _REBUILD, "quantize": _QUANTIZE}[report.needs])
    return head


def _remarks(sentences: Sequence[str]) -> list[str]:
    return [f"# {line}" for sentence in sentences for line in textwrap.wrap(sentence, _WIDTH - 2)]


def _section(section: str, values: Mapping[str, Any], own: Sequence[Change]) -> list[str]:
    remarks = {change.key.partition(".")[2]: f"was {_value(change.before)}" for change in own}
    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, default_flow_style=False, width=10_000)
    lines = [f"{section}:" + (f"  # tuned; {remarks['']}" if "" in remarks else "")]
    for line in text.splitlines():
        said = next((said for key, said in remarks.items() if key and line.startswith(f"{key}:")), None)
        lines.append(f"  {line}" + (f"  # tuned; {said}" if said else ""))
    written = {line.split(":")[0] for line in text.splitlines()}
    back = ((key, said) for key, said in remarks.items() if key and key not in written)
    return lines + [f"  # {key}: tuned to its default; {said}" for key, said in back]


def _value(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).splitlines()[0]
