"""The check of saved runs against ir-measures and pytrec_eval, which must be able to fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.measures_check import check_run, main
from retrieval.evaluation import write_qrels, write_run
from tests.test_trec import random_run


def test_saved_runs_agree_to_the_last_digit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in enumerate(("first", "second")):
        folder = tmp_path / name
        folder.mkdir()
        # Ten levels give ties, which `write_run` puts in our order for everybody.
        qrels, run = random_run(seed, levels=10)
        write_qrels(folder / "qrels.txt", qrels)
        write_run(folder / "our.run", run, "our")
    assert main([str(tmp_path), "--out", str(tmp_path / "check.json")]) == 0
    record = json.loads((tmp_path / "check.json").read_text())
    assert [(one["collection"], one["run"], one["queries"]) for one in record["runs"]] == [
        ("first", "our", 40),
        ("second", "our", 40),
    ]
    assert record["largest"] <= 1e-9
    assert "1,200 differences" in capsys.readouterr().out


def test_a_run_that_others_read_differently_is_found(tmp_path: Path) -> None:
    """Equal scores: we take the ranks of the file, trec_eval the later document id, which is not the relevant one."""
    (tmp_path / "qrels.txt").write_text("q 0 a 1\nq 0 b 0\n")
    (tmp_path / "tied.run").write_text("q Q0 a 1 1.0 t\nq Q0 b 2 1.0 t\n")
    found = check_run(tmp_path / "qrels.txt", tmp_path / "tied.run")
    # The relevant document is first for us and second for them: RR is 1 and 1/2.
    assert found.pytrec_eval == pytest.approx(0.5)
    assert found.ir_measures == pytest.approx(0.5)
    assert main([str(tmp_path)]) == 1
    with pytest.raises(SystemExit):
        main([str(tmp_path / "nowhere")])
