"""docs/integrations.md says what the tests show, and its code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines import TwoStagePipeline
from tests import integration_table
from tests.adapter_index import COLUMNS
from tests.integration_table import ADAPTERS, FRAMEWORKS, NOTHING_TO_KEEP, marked_tests, versions

PAGE = integration_table.PAGE.read_text(encoding="utf-8")


def test_every_cell_has_a_test_or_nothing_to_keep() -> None:
    cells = {(adapter, column) for adapter in ADAPTERS for column in COLUMNS}
    empty = {cell for cell in cells if cell[1] in NOTHING_TO_KEEP.get(ADAPTERS[cell[0]], set())}
    assert set(marked_tests()) == cells - empty


def test_the_table_of_the_page_is_the_one_that_the_tests_make() -> None:
    assert integration_table.written() == integration_table.table(), "run: python -m tests.integration_table"


def test_every_adapter_is_in_the_table() -> None:
    import importlib

    offered = {
        f"{framework}.{name}"
        for framework in FRAMEWORKS
        for name in importlib.import_module(f"retrieval.integrations.{framework}").__all__
    }
    assert offered == set(ADAPTERS)


def test_the_version_tested_is_allowed() -> None:
    for tested, lowest in versions().values():
        assert _number(tested) >= _number(lowest)


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@pytest.mark.parametrize("example", re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE))
def test_the_python_of_the_page_runs(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with TwoStagePipeline.open("my-index") as pipeline:
        pipeline.ingest([{"id": "pipes", "text": "The copper pipe leaks, it is not broken.", "year": 2024}])
    exec(compile(example, "integrations.md", "exec"), {})


def test_links_of_the_page_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if not link.startswith("http")]
    assert links
    for link in links:
        assert (integration_table.PAGE.parent / link).exists(), link
