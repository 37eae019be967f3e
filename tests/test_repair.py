"""A damaged index comes back as it was from its texts, and what cannot come back is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines import TwoStagePipeline
from pipelines.cli import app
from pipelines.deep import deep_check
from pipelines.repair import RepairReport, repair_index
from retrieval.datatypes import Quantization
from retrieval.errors import StoreBusyError, StoreCorruptError, StoreError
from retrieval.models import find_model
from retrieval.stores.edge import EdgeStore
from retrieval.stores.index_layout import MANIFEST_COPY
from retrieval.stores.json_files import read_json, write_json
from retrieval.stores.seal import SEAL
from tests.store_folders import quick_folder

TEXT = "tides bread guitars whales primes rain moon dough sea string number copper pipe leak star comet"
WORDS = TEXT.split()


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder with forty documents of which some have several passages, and an index of them and of two more."""
    with quick_folder() as folder:
        documents = folder / "documents"
        documents.mkdir()
        chosen = np.random.default_rng(6)
        for number in range(40):
            parts = range(3 if number % 10 == 0 else 1)
            text = "\n\n".join(
                f"Page {number} part {part}. {' '.join(chosen.choice(WORDS, 300 if len(parts) > 1 else 60))}"
                for part in parts
            )
            (documents / f"{number:02}.txt").write_text(f"{text}\n")
        with TwoStagePipeline.open(folder / "index") as pipeline:
            pipeline.ingest(documents)
            pipeline.ingest([{"id": "one", "text": "Zebras were handed over.", "year": 2024}, ("two", "Quinces too.")])
        yield folder


@pytest.fixture
def index(place: Path, tmp_path: Path) -> Path:
    """Without the copy for readers, from which a repair would take the files; see `test_publication_damage`."""
    unpublished = shutil.ignore_patterns("published")
    return Path(shutil.copytree(place / "index", tmp_path / "index", ignore=unpublished))


def passages_of(index: Path) -> int:
    return int((read_json(index / "manifest.json") or {})["passages"])


def contents(index: Path) -> tuple[dict[str, Any], list[Any]]:
    with TwoStagePipeline.open(index) as pipeline:
        points = {
            point.id: (
                {name: value for name, value in point.payload.items() if name != "run"},
                None if point.dense is None else point.dense.tolist(),
                None if point.sparse is None else (point.sparse.indices.tolist(), point.sparse.values.tolist()),
            )
            for point in pipeline.store.scan(vectors=True)
        }
        queries = ("copper pipe leak", "page 17", "handed over")
        # The engine adds the terms of BM25 in varying order: scores differ in their last digits.
        found = [[hit.passage_id for hit in pipeline.search(query, rerank=False)] for query in queries]
        return points, found


@pytest.fixture(scope="module")
def expected(place: Path) -> tuple[dict[str, Any], list[Any]]:
    return contents(place / "index")


def find(index: Path, name: str, generation: int = 1) -> Path:
    return next(path for path in sorted((index / "generations" / str(generation)).rglob(name)) if path.is_file())


def damage_text(index: Path, word: str) -> None:
    """Change a letter of a text where it is stored."""
    page = next(index.glob("generations/*/engine/segments/*/payload_storage/page_0.dat"))
    data = page.read_bytes()
    assert data.count(word.encode()) >= 1
    page.write_bytes(data.replace(word.encode(), word[:-1].encode() + b"#"))


def test_a_sound_index_is_left_as_it_is(index: Path) -> None:
    before = {path: path.read_bytes() for path in index.rglob("*.json")}
    report = repair_index(index)
    assert (report.done, report.damage, report.complete) == ("nothing", (), True)
    assert (report.documents, report.passages) == (42, passages_of(index))
    assert report.passages > 48
    assert {path: path.read_bytes() for path in index.rglob("*.json")} == before


@pytest.mark.parametrize(
    "file",
    [
        "vectors/chunk_0.mmap",
        "vector_storage-bm25/store/page_0.dat",
        "mutable_id_tracker.mappings",
        "tracker.dat",
        "segment.json",
    ],
)
def test_whatever_is_made_of_the_texts_is_made_again_bit_by_bit(
    index: Path, file: str, expected: tuple[dict[str, Any], list[Any]]
) -> None:
    (path,) = sorted(index.glob(f"generations/1/engine/segments/*/{file}")) or [find(index, file)]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(StoreCorruptError, match=f"{path.name} is damaged .*'retrieval repair'"):
        TwoStagePipeline.open(index)
    report = repair_index(index)
    assert (report.done, report.complete, report.lost, report.texts_from) == ("index", True, (), "files")
    assert [finding.name.rpartition("/")[2] for finding in report.damage] == [path.name]
    assert (report.generation, report.kept_damaged) == (2, "")
    assert contents(index) == expected
    assert deep_check(index).ok
    assert sorted(path.name for path in (index / "generations").iterdir()) == ["2"]


def test_damaged_texts_come_from_their_sources(index: Path, expected: tuple[dict[str, Any], list[Any]]) -> None:
    damage_text(index, "Page 17")
    report = repair_index(index)
    assert (report.complete, report.lost) == (True, ())
    assert report.reread >= 1
    assert contents(index) == expected


def test_lost_texts_are_named_and_the_damaged_files_kept(index: Path) -> None:
    damage_text(index, "Zebras")
    before = passages_of(index)
    report = repair_index(index)
    assert report.complete is False
    assert [(one.document, one.lost, one.kept) for one in report.lost] == [("one", 1, 0)]
    assert (report.documents, report.passages) == (41, before - 1)
    assert report.kept_damaged == str(index.resolve() / "generations" / "1")
    assert deep_check(index).ok
    with TwoStagePipeline.open(index) as pipeline:
        assert pipeline.store.count({"must": [{"key": "document_id", "match": {"value": "one"}}]}) == 0
        pipeline.store.tidy()
    assert (index / "generations" / "1" / "engine").is_dir()
    report = repair_index(index, discard=True)
    assert (report.done, report.notes) == ("nothing", ("the damaged generation 1 that was kept is erased",))
    assert not (index / "generations" / "1").exists()


def test_what_is_left_of_a_document_is_replaced_by_the_next_ingest(index: Path, tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    text = "\n\n".join(f"The {part}. {' '.join(WORDS * 20)}" for part in ("alpha", "beta", "gamma", "delta"))
    (documents / "long.txt").write_text(text)
    with TwoStagePipeline.open(index) as pipeline:
        pipeline.ingest(documents)
        passages = pipeline.store.count({"must": [{"key": "document_id", "match": {"value": "long.txt"}}]})
    assert passages > 2
    shutil.rmtree(index / "published")
    damage_text(index, "gamma")
    away = documents.rename(tmp_path / "away")
    report = repair_index(index)
    assert [(Path(one.document).name, one.lost, one.kept) for one in report.lost] == [("long.txt", 1, passages - 1)]
    assert deep_check(index).ok
    away.rename(documents)
    with TwoStagePipeline.open(index) as pipeline:
        assert pipeline.ingest(documents).changed == 1
        assert pipeline.store.count({"must": [{"key": "document_id", "match": {"value": "long.txt"}}]}) == passages
    assert deep_check(index).ok


def test_without_any_text_the_sources_have_to_be_named(index: Path, place: Path) -> None:
    find(index, "page_0.dat").parents[1].joinpath("payload_storage/page_0.dat").unlink(missing_ok=True)
    for page in index.glob("generations/1/engine/segments/*/payload_storage/page_0.dat"):
        page.unlink()
    before = sorted(index.rglob("*"))
    with pytest.raises(
        StoreError, match=r"no text can be read .* nothing was changed; name the folder .* --source PATH"
    ):
        repair_index(index)
    assert sorted(index.rglob("*")) == before
    passages = passages_of(index)
    report = repair_index(index, sources=[place / "documents"])
    assert (report.reread, report.documents, report.passages) == (40, 40, passages - 2)
    assert [(one.document, one.lost) for one in report.lost] == [("", 2)]


def test_small_files_are_restored_from_their_second_copies(
    index: Path, expected: tuple[dict[str, Any], list[Any]]
) -> None:
    generation = index / "generations" / "1"
    manifest = read_json(index / "manifest.json")
    for path, restored in (
        (index / "manifest.json", "manifest.json from generations/1/manifest.copy.json"),
        (generation / MANIFEST_COPY, "generations/1/manifest.copy.json from manifest.json"),
        (generation / "store.json", "generations/1/store.json from generations/1/seal.json"),
        (generation / SEAL, "generations/1/seal.json is made again from the files, when they have been compared"),
    ):
        saved = path.read_bytes()
        path.write_bytes(saved[: len(saved) // 2])
        report = repair_index(index)
        assert (report.done, report.restored) == ("files", (restored,))
        if path.name != SEAL:
            assert path.read_bytes() == saved
    assert read_json(index / "manifest.json") == manifest
    assert deep_check(index).ok
    assert contents(index) == expected


def test_without_any_manifest_the_texts_are_still_there(index: Path) -> None:
    passages = passages_of(index)
    (index / "manifest.json").unlink()
    (index / "generations" / "1" / MANIFEST_COPY).unlink()
    report = repair_index(index)
    assert (report.done, report.complete, report.documents, report.passages) == ("index", None, 42, passages)
    assert "no manifest was left" in report.notes[0]
    assert deep_check(index).ok


def test_a_later_generation_without_a_manifest_is_no_new_index(
    index: Path, expected: tuple[dict[str, Any], list[Any]]
) -> None:
    find(index, "segment.json").unlink()
    assert repair_index(index).generation == 2
    (index / "manifest.json").unlink()
    with pytest.raises(StoreCorruptError, match=r"has passages and no manifest\.json; run 'retrieval repair'"):
        TwoStagePipeline.open(index)
    assert sorted(path.name for path in (index / "generations").iterdir()) == ["2"]
    assert repair_index(index).done == "files"
    assert contents(index) == expected


def test_quantization_and_what_was_removed_stay_as_they_were(index: Path) -> None:
    with TwoStagePipeline.open(index) as pipeline:
        pipeline.store.set_quantization(Quantization("binary", 1))
        pipeline.delete(["two"])
    path = find(index, "payload_storage/tracker.dat".rpartition("/")[2])
    path.write_bytes(b"")
    report = repair_index(index)
    assert (report.complete, report.documents) == (True, 41)
    with TwoStagePipeline.open(index) as pipeline:
        assert pipeline.store.quantization == Quantization("binary", 1)
        assert pipeline.store.count({"must": [{"key": "document_id", "match": {"value": "two"}}]}) == 0


def adapted(index: Path) -> tuple[Path, dict[str, Any]]:
    """Give an index an encoder of its own: its folder, and the manifest before."""
    encoder = index / "generations" / "1" / "encoder"
    shutil.copytree(find_model("starter-static"), encoder)
    saved = read_json(index / "manifest.json") or {}
    write_json(index / "manifest.json", {**saved, "adapted_from": saved["encoder"], "dense_weight": 0.3})
    with TwoStagePipeline.open(index) as pipeline:
        assert isinstance(pipeline.store, EdgeStore)
        pipeline.store.renew_seal()
    assert deep_check(index).ok
    return encoder, saved


@pytest.mark.parametrize(("file", "source"), [("config.json", "seal.json"), ("tokenizer.json", "model starter-static")])
def test_small_files_of_an_adapted_encoder_are_put_back(index: Path, file: str, source: str) -> None:
    encoder, _ = adapted(index)
    expected = contents(index)
    (encoder / file).write_bytes((encoder / file).read_bytes()[:40])
    report = repair_index(index)
    assert (report.done, report.generation, report.notes) == ("files", 1, ())
    [line] = report.restored
    assert line.startswith(f"generations/1/encoder/{file} from ")
    assert line.endswith(source)
    assert contents(index) == expected
    assert deep_check(index).ok


def test_a_damaged_adapted_encoder_gives_way_to_the_one_it_came_from(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, saved = adapted(index)
    # Its weights are a copy here, which those of an adaptation never are.
    monkeypatch.setattr("pipelines.repair.run._base", lambda config: None)
    weights = encoder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    report = repair_index(index)
    assert report.done == "index"
    assert "the adapted encoder is damaged" in report.notes[0]
    assert "run 'retrieval adapt' again" in report.notes[0]
    now = read_json(index / "manifest.json") or {}
    assert (now["adapted_from"], now["dense_weight"]) == (None, None)
    assert now["ids_digest"] == saved["ids_digest"]


def test_after_a_writer_was_killed_the_log_is_read_too(index: Path, expected: tuple[dict[str, Any], list[Any]]) -> None:
    (index / "generations" / "1" / SEAL).unlink()
    path = next(index.glob("generations/1/engine/segments/*/vector_storage-dense/vectors/chunk_0.mmap"))
    data = bytearray(path.read_bytes())
    data[1024 * 7 + 3] ^= 0x40
    path.write_bytes(data)
    report = repair_index(index)
    assert (report.done, report.complete, report.texts_from) == ("index", True, "engine")
    assert [finding.kind for finding in report.damage][:1] == ["passage"]
    assert not (index / "repair.tmp").exists()
    assert contents(index) == expected


def test_an_index_in_use_or_no_index_is_refused(index: Path, tmp_path: Path) -> None:
    with TwoStagePipeline.open(index), pytest.raises(StoreBusyError):
        repair_index(index)
    with pytest.raises(StoreError, match="there is no index in"):
        repair_index(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_command_says_what_it_did(index: Path) -> None:
    run = CliRunner().invoke(app, ["repair", "--index", str(index), "--quiet"])
    assert run.exit_code == 0
    assert "The index is sound, and was left as it is: 42 documents," in run.output
    damage_text(index, "Zebras")
    shown = CliRunner().invoke(app, ["doctor", "--deep", "--index", str(index), "--quiet"])
    assert shown.exit_code == 1
    assert "payload_storage" in shown.output
    run = CliRunner().invoke(app, ["repair", "--index", str(index), "--json", "--quiet"])
    assert run.exit_code == 1
    report = json.loads(run.stdout)
    assert set(report) == set(RepairReport.__slots__)
    assert report["lost"] == [{"document": "one", "lost": 1, "kept": 0}]
    assert "1 passages are missing" in run.stderr
