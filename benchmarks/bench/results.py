"""``bench.json``: the answers to all questions so far, each of which may have been measured by a run of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.bench.figures import Findings


class ResultsError(Exception):
    """Results that cannot be put together with those that are there."""


class Results:
    """A file with a setting and a section for each question.

    Args:
        path: The file.
        record: Its content.
    """

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.record = record
        self._path = path

    @classmethod
    def open(cls, path: Path, setting: Mapping[str, Any], *, keep: bool) -> Results:
        """What is there already, or nothing yet.

        Args:
            path: The file, which may not exist.
            setting: Machine, versions, models and corpus of this run, as JSON.
            keep: Whether sections that are there stay; a file of another setting is not mixed with this run.

        Raises:
            ResultsError: They should stay, but were measured in another setting, or the file cannot be read.
        """
        if not keep or not path.is_file():
            return cls(path, {"setting": dict(setting), "sections": {}})
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            before, _ = record["setting"], record["sections"]
        except (ValueError, KeyError, TypeError) as error:
            raise ResultsError(f"{path} is not what this program writes; erase it or name another --out") from error
        other = [name for name, value in setting.items() if before.get(name) != value]
        if other:
            raise ResultsError(
                f"{path} has results with another {other[0]} ({_shown(before.get(other[0]), setting[other[0]])}), and "
                "they are not mixed with new ones: measure every question, or name another --out"
            )
        return cls(path, record)

    def has(self, name: str) -> bool:
        """Whether a question is answered, to its end."""
        return name in self.record["sections"] and not self.record["sections"][name]["notes"]

    def put(self, name: str, findings: Findings, measured: Mapping[str, Any]) -> None:
        """Replace the section of a question and write the file."""
        self.record["sections"][name] = {"measured": dict(measured), **findings.record()}
        growing = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        growing.write_text(json.dumps(self.record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        growing.replace(self._path)


def _shown(before: object, now: object) -> str:
    """Where two values differ, briefly."""
    if isinstance(before, dict) and isinstance(now, dict):
        name = next(key for key in sorted({*before, *now}) if before.get(key) != now.get(key))
        return f"{name}: {_shown(before.get(name), now.get(name))}"
    return f"{before}, now {now}"
