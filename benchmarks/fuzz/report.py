"""The table of a run, made from its numbers."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FIXED = Path(__file__).parent / "fixed.json"
PACKAGES = ("atheris", "hypothesis", "qdrant-edge-py", "qdrant-client", "semantic-text-splitter", "lxml", "markitdown",
            "pyarrow", "pydantic", "PyYAML", "safetensors", "tokenizers", "onnxruntime")  # fmt: skip


def setting(minutes: float, engine: str) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "minutes": minutes,
        "engine": engine,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def report(content: dict[str, Any]) -> str:
    """The page."""
    facts, rows = content["setting"], content["targets"]
    total = sum(each["cases"] for each in rows.values())
    packages = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    lines = [
        "# Fuzzing",
        "",
        "    pip install -r benchmarks/fuzz/requirements.txt",
        f"    python -m benchmarks.fuzz --minutes {facts['minutes']:g} --work DIR --out benchmarks/fuzz.json",
        "",
        f"{total:,} cases in {content['seconds'] / 60:.0f} minutes, one process at a time, starts of the processes "
        f"included: {facts['date']}, Python {facts['python']}, {facts['machine']}, {facts['cores']} cores shared with "
        f"other work, {packages}. Slices take turns; slice n has the seed n.",
        "",
        "A case is one input that a target took. It passes when the outcome is one that is promised: a result within "
        "its bounds, or an error of the class that the docstring names. Any other exception, a case of over 10 s (90 "
        "with a converter), and memory of more than 2.5 GB over that of the start are findings.",
        "",
        *([facts["note"], ""] if "note" in facts else []),
        "| target | what holds of any input | cases | a second | findings |",
        "|---|---|---:|---:|---:|",
    ]
    lines += [
        f"| {name} | {each['states']} | {each['cases']:,} | {each['cases'] / max(each['seconds'], 1):,.0f} | "
        f"{len(each['findings'])} |"
        for name, each in rows.items()
    ]
    lines += [f"| **all** | | **{total:,}** | | **{sum(len(each['findings']) for each in rows.values())}** |", ""]
    lines += _open_findings(rows)
    lines += _fixed()
    return "\n".join(lines).rstrip() + "\n"


def _open_findings(rows: dict[str, Any]) -> list[str]:
    found = [(name, one) for name, each in rows.items() for one in each["findings"]]
    if not found:
        return ["Nothing was found in this run.", ""]
    lines = ["## Found in this run", ""]
    for name, one in found:
        message = " ".join(str(one["message"]).split())[:200]
        lines.append(f"* {name}: `{one['error']}` in `{one['place']}`, {one['times']} times: {message}")
    return [*lines, ""]


def _fixed() -> list[str]:
    fixed = json.loads(FIXED.read_text(encoding="utf-8"))
    rows = [f"| {one['target']} | {one['found']} | {one['now']} | {one['test']} |" for one in fixed["fixed"]]
    known = [f"* {line}" for line in fixed["not_covered"]]
    head = [
        "## Found before and fixed",
        "",
        "| target | what happened | what happens now | test |",
        "|---|---|---|---|",
    ]
    return [*head, *rows, "", "## Not covered", "", *known]
