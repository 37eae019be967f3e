"""Damage to each kind of file is noticed and made good; the long version is `python -m benchmarks.damage`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.damage import VARIANTS, Answers, answers, copy_index, run_case, write_documents
from benchmarks.damage_cases import DAMAGES, KINDS, Case, cases, kind_of
from benchmarks.damage_report import page
from tests.store_folders import quick_folder

_DAMAGE_OF = {
    "dense vectors": "flip in the middle",
    "codes": "zero a page",
    "BM25 rows": "cut in half",
    "BM25 index": "flip in the middle",
    "payload pages": "zero a page",
    "payload tracker": "delete",
    "id tracker": "flip at the start",
    "payload index": "flip in the middle",
    "log": "flip in the middle",
    "engine's JSON": "delete",
    "manifest": "flip in the middle",
    "settings and seal": "cut in half",
}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with quick_folder() as folder:
        (folder / "work").mkdir()
        VARIANTS["changed"].make(folder / "built", write_documents(folder / "documents", count=60))
        yield folder


@pytest.fixture(scope="module")
def expected(place: Path) -> Answers:
    return answers(copy_index(place / "built", place / "work" / "index"))


@pytest.mark.parametrize("kind", _DAMAGE_OF)
def test_damage_is_noticed_named_and_made_good(place: Path, expected: Answers, kind: str) -> None:
    found = [case for case in cases(place / "built", damages=(_DAMAGE_OF[kind],)) if case.kind == kind]
    if not found:
        pytest.skip(f"an index as small as this has no {kind}")
    largest = max(found, key=lambda case: (place / "built" / case.file).stat().st_blocks)
    record = run_case(place / "built", place / "documents", largest, expected, place / "work")
    assert record["deep"]
    assert record["named"] or record["open"]
    assert record["repaired"], record


def test_a_sound_copy_passes(place: Path, expected: Answers) -> None:
    DAMAGES["nothing"] = lambda path: None
    try:
        case = Case("log", "manifest.json", "nothing")
        record = run_case(place / "built", place / "documents", case, expected, place / "work")
    finally:
        del DAMAGES["nothing"]
    assert (record["open"], record["use"], record["deep"], record["same_answers"]) == ("", "", [], True)
    assert record["repair"]["done"] == "nothing"


def test_every_file_of_an_index_has_a_kind(place: Path) -> None:
    built = place / "built"
    files = [path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()]
    assert {file for file in files if kind_of(file) is None} == {".lock"}
    assert {kind_of(file) for file in files} - {None} <= KINDS.keys()


def test_damage_does_what_it_says(tmp_path: Path) -> None:
    data = bytes(10) + bytes(range(1, 201)) + bytes(10)
    for name, damage in DAMAGES.items():
        path = tmp_path / "file"
        path.write_bytes(data)
        damage(path)
        now = path.read_bytes() if path.exists() else None
        assert now != data, name
        if name.startswith("flip"):
            assert now is not None
            assert sum((one ^ other).bit_count() for one, other in zip(now, data, strict=True)) == 1


def test_the_page_counts_what_it_was_given() -> None:
    noticed = {
        "kind": "log",
        "file": "a",
        "damage": "delete",
        "open": "",
        "use": "",
        "same_answers": True,
        "deep": ["seal"],
    }
    changed = {"changed": ["results"], "differs": ["results"]}
    results = {
        "changed": {
            "one": {**noticed, "repaired": True},
            "two": {**noticed, "file": "b", "deep": [], "repaired": False, "repair": {"lost": 1}},
        },
        "no seal": {"one": {**noticed, "same_answers": False, "deep": [], "repaired": False, **changed}},
    }
    text = page(results)
    assert "| log | 2 | 0 | 0 | 2 | 0 | 1 of 2 | 1 of 2 | 1 |" in text
    assert "- not noticed, no answer changed: delete, b" in text
    assert "- not as it was, 1 of log: texts that were handed over" in text
    assert "1 were not noticed, and of these 1 changed an answer:\n\n- delete, a: results" in text
    assert "- not as it was, 1 of log: **not told**: results" in text
