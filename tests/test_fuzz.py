"""The driver of `benchmarks/fuzz`: it counts, writes down what it finds, goes on where it stopped, and reports."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from benchmarks.fuzz import __main__ as driver
from benchmarks.fuzz.catalogue import targets
from benchmarks.fuzz.child import Recorder
from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.report import FIXED, report
from benchmarks.fuzz.target import Target


def test_a_finding_is_written_once_for_each_place(tmp_path: Path) -> None:
    def check(data: bytes) -> None:
        if data == b"bad":
            raise KeyError("bad")
        assert data != b"wrong", f"value: {data!r}"

    recorder = Recorder(check, tmp_path, seconds=10)
    for data in (b"good", b"bad", b"bad", b"wrong"):
        recorder(data)
    found = [json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / "findings").iterdir()]
    assert sorted((one["error"], one["times"], base64.b64decode(one["data"])) for one in found) == [
        ("AssertionError", 1, b"wrong"),
        ("KeyError", 2, b"bad"),
    ]
    assert int.from_bytes((tmp_path / "counts").read_bytes()[:8], "little") == 4


def test_a_case_that_takes_too_long_is_a_finding(tmp_path: Path) -> None:
    def check(data: bytes) -> None:
        while True:
            pass

    with pytest.MonkeyPatch.context() as patch:
        import signal

        from benchmarks.fuzz import child

        before = signal.signal(signal.SIGALRM, child._interrupt)
        patch.setattr(child.signal, "alarm", lambda seconds: signal.setitimer(signal.ITIMER_REAL, 0.05 * bool(seconds)))
        try:
            Recorder(check, tmp_path, seconds=1)(b"x")
        finally:
            signal.signal(signal.SIGALRM, before)
    (found,) = (tmp_path / "findings").iterdir()
    assert json.loads(found.read_text(encoding="utf-8"))["error"] == "TooLongError"


def test_a_slice_runs_in_a_process_and_counts(tmp_path: Path) -> None:
    (target,) = [each for each in targets("ordering") if each.name == "order"]
    done = driver.run_slice(target, "ordering", tmp_path, "hypothesis", 1, 1)
    assert done["code"] == 0
    assert done["cases"] > 20


def test_a_process_that_dies_leaves_what_it_was_fed(tmp_path: Path) -> None:
    for _ in range(2):
        driver.note_death(tmp_path, -9, b"deadly")
    record = json.loads((tmp_path / "findings" / "died-9.json").read_text(encoding="utf-8"))
    assert (record["error"], record["times"], base64.b64decode(record["data"])) == ("Died with -9", 2, b"deadly")


def test_it_goes_on_where_it_stopped_and_says_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slices: list[tuple[str, int]] = []

    def run_slice(target: Target, module: str, work: Path, engine: str, seconds: int, seed: int) -> dict[str, object]:
        slices.append((target.name, seed))
        return {"cases": 1000, "seconds": 20.0, "code": 0}

    monkeypatch.setattr(driver, "run_slice", run_slice)
    out = tmp_path / "fuzz.json"
    for minutes in ("1", "1", "2"):
        arguments = ["--minutes", minutes, "--work", str(tmp_path), "--out", str(out), "--targets", "order", "ids"]
        monkeypatch.setattr("sys.argv", ["fuzz", *arguments])
        assert driver.main() == 0
    assert slices == [("order", 1), ("ids", 2), ("order", 3), ("ids", 4), ("order", 5), ("ids", 6)]
    page = out.with_suffix(".md").read_text(encoding="utf-8")
    assert "6,000 cases in 2 minutes" in page
    assert "Nothing was found in this run." in page
    assert "| order | permuting changes nothing; scaling keeps the order | 3,000 | 50 | 0 |" in page
    content = json.loads(out.read_text(encoding="utf-8"))
    content["targets"]["ids"]["findings"] = [{"error": "KeyError", "place": "a.py:b", "message": "x\ny", "times": 3}]
    assert "* ids: `KeyError` in `a.py:b`, 3 times: x y" in report(content)


def test_what_was_fixed_names_a_test_that_exists() -> None:
    root = Path(__file__).parents[1]
    for one in json.loads(FIXED.read_text(encoding="utf-8"))["fixed"]:
        file, _, name = one["test"].partition("::")
        assert f"def {name}(" in (root / file).read_text(encoding="utf-8"), one["test"]


def test_choices_end_in_the_least_of_everything() -> None:
    nothing = Choices(b"")
    assert (nothing.byte(), nothing.whole(3, 9), nothing.pick("ab"), nothing.text(), nothing.json()) == (
        0,
        3,
        "a",
        "",
        None,
    )
    assert (nothing.chance(), nothing.rest(), nothing.real(), nothing.list_of(nothing.byte, 5)) == (
        False,
        b"",
        -16.0,
        [],
    )
