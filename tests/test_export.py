"""The exported model in the libraries that it is made for: the same vectors, and what int8 loses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from typer.testing import CliRunner

from pipelines import TwoStagePipeline
from pipelines.cli import app
from pipelines.export import ModelToExport, export_model, model_to_export
from pipelines.model_folder import refuse_occupied
from retrieval.config import Config
from retrieval.encoders import StaticEncoder
from retrieval.errors import ModelError
from retrieval.models import find_model
from retrieval.token_tables import open_static_model, write_portable
from tests.conftest import paper_corpus
from tests.static_models import NASTY, random_table, texts, word_tokenizer, write_own

TEXTS = texts()[: len(NASTY) + 300]
ROOT = Path(__file__).parents[1]


def own(folder: Path, table: NDArray[np.float32], tokenizer: Tokenizer, **config: object) -> StaticEncoder:
    return StaticEncoder.open(write_own(folder, tokenizer, {"embeddings": table}, **config))


def exported(encoder: StaticEncoder, out: Path, **options: Any) -> Any:
    return export_model(ModelToExport(encoder, "a model of these tests"), out, **options)


def lowest_cosine(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    known = ours.any(axis=1)
    assert known.any()
    assert not theirs[~known].any()
    return float((ours * theirs).sum(axis=1)[known].min())


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundled model in both precisions, and a float one whose rows int8 has to round."""
    root = tmp_path_factory.mktemp("exported")
    model = model_to_export(Config(), None, "starter-static")
    for precision in ("int8", "float32"):
        export_model(model, root / precision, precision=precision)
    tokenizer = Tokenizer.from_file(str(find_model("starter-static") / "tokenizer.json"))
    exported(own(root / "source", random_table(tokenizer), tokenizer), root / "rounded")
    return {name: root / name for name in ("int8", "float32", "source", "rounded")}


def test_model2vec_makes_the_same_vectors(bundled: dict[str, Path]) -> None:
    from model2vec import StaticModel

    ours = StaticEncoder.open(find_model("starter-static")).encode_documents(TEXTS)
    for name in ("int8", "float32"):
        model = StaticModel.from_pretrained(bundled[name])
        vectors = model.encode(TEXTS)
        assert vectors.dtype == np.float32
        assert lowest_cosine(ours, vectors) > 0.99999
    rounded = StaticModel.from_pretrained(bundled["rounded"]).encode(TEXTS)
    exact = StaticEncoder.open(bundled["source"]).encode_documents(TEXTS)
    # A step of int8 is 1/127 of the largest number of a row: the cosine of a token falls by some 1e-5.
    assert 0.9995 < lowest_cosine(exact, rounded) < 1.0


def test_sentence_transformers_makes_the_same_vectors(bundled: dict[str, Path], tmp_path: Path) -> None:
    code = """
import json, sys, numpy as np
from sentence_transformers import SentenceTransformer
folders, texts, out = json.load(open(sys.argv[1]))
for name, folder in folders.items():
    model = SentenceTransformer(folder, device="cpu")
    assert [type(module).__name__ for module in model] == ["StaticEmbedding", "Normalize"]
    assert model.similarity_fn_name == "cosine"
    np.save(f"{out}/{name}.npy", model.encode(texts))
"""
    task = tmp_path / "task.json"
    folders = {name: str(path) for name, path in bundled.items() if name != "source"}
    task.write_text(json.dumps([folders, TEXTS, str(tmp_path)]), encoding="utf-8")
    subprocess.run([sys.executable, "-c", code, str(task)], check=True, cwd=ROOT)
    ours = StaticEncoder.open(find_model("starter-static")).encode_documents(TEXTS)
    exact = StaticEncoder.open(bundled["source"]).encode_documents(TEXTS)
    for name, vectors in {"int8": ours, "float32": ours, "rounded": exact}.items():
        lowest = lowest_cosine(vectors, np.load(tmp_path / f"{name}.npy"))
        assert lowest > (0.99999 if name != "rounded" else 0.9995), name


def test_this_project_opens_it_again(bundled: dict[str, Path]) -> None:
    ours = StaticEncoder.open(find_model("starter-static")).encode_documents(TEXTS)
    for name in ("int8", "float32"):
        assert lowest_cosine(ours, StaticEncoder.open(bundled[name]).encode_documents(TEXTS)) > 0.999999


def test_an_int8_table_is_kept_bit_by_bit(bundled: dict[str, Path]) -> None:
    source = load_file(find_model("starter-static") / "model.safetensors")
    kept = load_file(bundled["int8"] / "model.safetensors")
    unknown = 1
    assert kept["embeddings"].dtype == np.int8
    rows = np.arange(len(source["scales"])) != unknown
    assert np.array_equal(kept["embeddings"][rows], source["embeddings"][rows])
    assert np.array_equal(kept["weights"], source["scales"])
    assert not kept["embeddings"][unknown].any()


def test_the_report_says_what_was_lost(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(["red", "green"])
    table = np.array([[9, 9], [1.0, 0.5], [0.0, 3.0]], np.float32)
    encoder = own(tmp_path / "own", table, tokenizer)
    report = exported(encoder, tmp_path / "int8")
    # 0.5 / (1 / 127) is 63.5, which is rounded to 64: (127, 64) in the place of (127, 63.5).
    cosine = (127 * 127 + 63.5 * 64) / np.hypot(127, 63.5) / np.hypot(127, 64)
    assert not report.exact
    assert report.lowest_cosine == pytest.approx(cosine, abs=1e-9)
    assert load_file(tmp_path / "int8" / "model.safetensors")["embeddings"].tolist() == [[0, 0], [127, 64], [0, 127]]
    assert exported(encoder, tmp_path / "float32", precision="float32").exact


def test_dimensions_are_cut_as_configured(tmp_path: Path) -> None:
    config = Config.model_validate({"encoder": {"dimensions": 64}})
    report = export_model(model_to_export(config, None, "starter-static"), tmp_path / "small")
    assert (report.dim, report.exact) == (64, True)
    cut = StaticEncoder.open(find_model("starter-static"), dimensions=64).encode_documents(TEXTS)
    assert lowest_cosine(cut, StaticEncoder.open(tmp_path / "small").encode_documents(TEXTS)) > 0.999999


def test_holes_in_the_vocabulary_get_a_mapping(tmp_path: Path) -> None:
    from model2vec import StaticModel

    tokenizer = Tokenizer.from_str(word_tokenizer(["red", "green"]).to_str().replace('"green":2', '"green":5'))
    table = np.arange(1, 13, dtype=np.float32).reshape(6, 2)
    encoder = own(tmp_path / "own", table, tokenizer)
    exported(encoder, tmp_path / "out", precision="float32")
    theirs = StaticModel.from_pretrained(tmp_path / "out").encode(["red green", "green", "blue"])
    assert np.allclose(theirs, encoder.encode_documents(["red green", "green", "blue"]), atol=1e-6)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"unknown": "keep"}, "leaves unknown tokens out"),
        ({"max_tokens": 3, "keep_end": True}, "first 3 tokens"),
        ({"max_tokens": 3}, "cuts the characters of a text first"),
        ({"max_tokens": 3, "max_characters": 20}, "20 characters"),
    ],
)
def test_what_another_library_does_differently_is_said(tmp_path: Path, config: dict[str, object], said: str) -> None:
    encoder = own(tmp_path / "own", np.ones((3, 2), np.float32), word_tokenizer(["red", "green"]), **config)
    report = exported(encoder, tmp_path / "out")
    assert any(said in limit for limit in report.limits)
    assert said in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_a_model2vec_folder_keeps_its_limit(tmp_path: Path) -> None:
    from model2vec import StaticModel

    table = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    exported(own(tmp_path / "own", table, word_tokenizer(["red", "green", "blue"])), tmp_path / "first")
    config = json.loads((tmp_path / "first" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "first" / "config.json").write_text(json.dumps({**config, "max_length": 2}), encoding="utf-8")
    encoder = StaticEncoder.open(tmp_path / "first")
    exported(encoder, tmp_path / "out")
    some = ["red blue green", "red green", "blue"]
    theirs = StaticModel.from_pretrained(tmp_path / "out").encode(some)
    assert np.allclose(theirs, encoder.encode_documents(some))
    # Two tokens of a median length of four letters are eight characters, in which "green" does not end.
    assert theirs.tolist() == [[pytest.approx(0.5**0.5), 0, pytest.approx(0.5**0.5)], [1, 0, 0], [0, 0, 1]]
    assert Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).truncation["max_length"] == 2


def test_an_adapted_index_exports_what_it_has_learned(tmp_path: Path) -> None:
    index = tmp_path / "index"
    with TwoStagePipeline.open(index) as pipeline:
        pipeline.ingest([(str(number), text) for number, text in enumerate(texts()[len(NASTY) :][:80])])
        pipeline.adapt(seconds=30, steps=2, force=True)
        vectors = pipeline.encoder.encode_documents(TEXTS)
        # The index is open here; exporting its model only looks at it.
        report = export_model(model_to_export(Config(), index), tmp_path / "out")
    assert report.origin == "the model starter-static, adapted to the documents of an index"
    assert lowest_cosine(vectors, StaticEncoder.open(tmp_path / "out").encode_documents(TEXTS)) > 0.999999
    plain = StaticEncoder.open(find_model("starter-static")).encode_documents(TEXTS)
    assert not np.allclose(vectors, plain)


def test_nothing_is_overwritten_and_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_to_export(Config(), None, "starter-static")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="not empty"):
            export_model(model, tmp_path / "taken", overwrite=overwrite)
    with pytest.raises(ValueError, match="'int4'"):
        export_model(model, tmp_path / "new", precision="int4")  # type: ignore[arg-type]

    def full(*arguments: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipelines.export.model.model_card", full)
    with pytest.raises(OSError, match="No space"):
        export_model(model, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken"]
    refuse_occupied(tmp_path / "new", overwrite=False)


def test_the_card_says_what_it_is_and_keeps_no_path(bundled: dict[str, Path]) -> None:
    card = (bundled["int8"] / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: model2vec\n")
    assert "Nothing was rounded" in card
    assert "### What it was made from" in card
    assert str(ROOT) not in card


def test_a_foreign_licence_is_kept_or_left_open(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    own(folder, np.ones((3, 2), np.float32), word_tokenizer(["red", "green"]))
    assert model_to_export(Config(), None, str(folder)).licence is None
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Colours\n", encoding="utf-8")
    report = export_model(model_to_export(Config(), None, str(folder)), tmp_path / "out")
    card = (report.folder / "README.md").read_text(encoding="utf-8")
    assert "license: mit" in card
    assert card.endswith("## Colours\n")


def test_an_index_goes_with_its_passages(tmp_path: Path) -> None:
    index, out = tmp_path / "index", tmp_path / "out"
    with TwoStagePipeline.open(index) as pipeline:
        pipeline.ingest([*paper_corpus(), ("odd", "\U0001f600 copper \ud800 </script>")])
    runner = CliRunner()
    done = runner.invoke(app, ["export", str(out), "--index", str(index), "--with-index", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["passages"]["passages"] == 13
    content = json.loads((out / "passages.json").read_text(encoding="utf-8"))
    assert [passage["id"] for passage in content["passages"]][:2] == ["bread-1", "bread-2"]
    assert set(content["passages"][0]) == {"id", "title", "headings", "text"}
    stored = load_file(out / "passages.safetensors")
    vectors = stored["vectors"] * stored["scales"][:, None]
    texts = [passage["text"] for passage in content["passages"]]
    encoder = StaticEncoder.open(find_model("starter-static"))
    cosines = (encoder.encode_documents(texts) * vectors).sum(axis=1) / np.linalg.norm(vectors, axis=1)
    assert cosines.min() > 0.9995
    again = runner.invoke(app, ["export", str(out), "--index", str(index)])
    assert (again.exit_code, "not empty" in again.output) == (2, True)
    few = runner.invoke(
        app, ["export", str(tmp_path / "few"), "--index", str(index), "--with-index", "--max-passages", "3"]
    )
    assert (few.exit_code, "--max-passages" in few.output) == (2, True)
    assert not (tmp_path / "few").exists()


def test_the_index_must_exist_and_go_with_its_model(tmp_path: Path) -> None:
    runner = CliRunner()
    missing = runner.invoke(app, ["export", str(tmp_path / "out"), "--index", str(tmp_path / "no")])
    assert (missing.exit_code, "there is no index" in missing.output) == (1, True)
    both = runner.invoke(app, ["export", str(tmp_path / "out"), "--model", "starter-static", "--with-index"])
    assert both.exit_code == 2
    unknown = runner.invoke(app, ["export", str(tmp_path / "out"), "--model", "no-such"])
    assert (unknown.exit_code, "starter-static" in unknown.output) == (1, True)
    assert not (tmp_path / "out").exists()


def test_a_damaged_source_is_refused(tmp_path: Path) -> None:
    folder = write_own(tmp_path / "own", word_tokenizer(["red"]), {"embeddings": np.ones((2, 2), np.float32)})
    model = open_static_model(folder)
    (tmp_path / "out").mkdir()
    assert write_portable(model, tmp_path / "out", dim=2).tokens == 2
    (folder / "model.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(ModelError):
        model_to_export(Config(), None, str(folder))
