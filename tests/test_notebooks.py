"""Every notebook runs from top to bottom on small real data, and is committed as it ran."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.chat_stub import KEY, running_chat_stub

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# A line that shows the effect the notebook is about, beside having run.
SHOWS = {
    "1_quickstart": r"3,\d{3} unchanged, 0 added",
    "2_how_good_is_it": r"two-stage +[+-]0\.\d{3} against BM25 \(95 % [+-]0\.\d{3} to [+-]0\.\d{3}\)",
    "3_quantization_and_matryoshka": r"kept: turbo 4.*\n.*\n +turbo +overlap (0\.99\d|1\.000), 136 bytes a passage",
    "4_adapt_to_your_corpus": r"hybrid +0\.\d{3} -> 0\.\d{3} +change [+-]0\.\d{3}",
    "5_train_and_distil": r"0\.\d{3} -> 0\.\d{3}, change \+0\.\d{3}",
    "6_negation": r"dog bit man / man bit dog: cosine 1\.000",
    "7_rag": r"How long do I boil an egg\? +best probability 0\.0\d",
}


def printed(notebook: Any) -> str:
    """What the cells printed or showed, without the code."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


def test_there_are_seven_and_each_says_what_it_shows() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(SHOWS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short_and_committed_with_its_output(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= 15
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert re.search(SHOWS[path.stem], printed(notebook))
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"/(home|work|root|tmp|Users)/", text), "a path of the machine it ran on"
    assert "Traceback" not in text
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (FOLDER / target).exists(), target


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.delenv("TEACHER", raising=False)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    with running_chat_stub() as stub:
        monkeypatch.setenv("OPENAI_BASE_URL", stub.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": FOLDER}})
        client.execute()
    assert re.search(SHOWS[path.stem], printed(notebook)), printed(notebook)
    # The one that asks a language model gets an answer that cites the first passage.
    assert len(stub.requests) == printed(notebook).count("[1]. And so on") == (path.stem == "7_rag")
