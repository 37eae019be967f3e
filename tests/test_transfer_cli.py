"""`retrieval push`, `pull` and `snapshot` as people and machines see them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import TwoStagePipeline
from tests.adapt_corpus import documents, word, write_model
from tests.qdrant_double import QdrantDouble, qdrant_double
from tests.store_folders import quick_folder
from tests.test_adapt import copied
from tests.test_cli import COLUMNS, run
from tests.test_transfer import settings

__all__ = ["qdrant_double"]
DOCUMENTS = 60


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    with quick_folder() as folder:
        with TwoStagePipeline.open(folder / "index", settings(write_model(folder / "tiny"))) as pipeline:
            pipeline.ingest(documents(DOCUMENTS))
        yield folder


@pytest.fixture
def index(room: Path) -> Iterator[Path]:
    with quick_folder() as folder:
        yield copied(room / "index", folder / "index")


@pytest.fixture
def config(qdrant_double: QdrantDouble, room: Path, tmp_path: Path) -> Path:
    path = tmp_path / "server.yaml"
    path.write_text(
        f"store: {{kind: server, url: {qdrant_double.url}, retries: 0}}\n"
        f"encoder: {{model: {room / 'tiny'}}}\nrerank: {{enabled: false}}\n"
    )
    return path


def words(text: str) -> str:
    return " ".join(text.split())


def test_push_and_pull_say_what_they_did(index: Path, config: Path, tmp_path: Path) -> None:
    done = run("push", "--index", index, "--config", config)
    assert done.code == 0, done.err
    assert max(map(len, done.out.splitlines())) <= COLUMNS
    assert [line.split()[:2] for line in done.out.splitlines()[:2]] == [["ok", "counts"], ["ok", "contents"]]
    assert f"{DOCUMENTS} documents, {DOCUMENTS} passages" in words(done.out)
    assert "generation 2 is live" in words(done.out)
    again = run("push", "--index", index, "--config", config)
    assert (again.code, again.out.startswith("nothing to do: http://127.0.0.1")) == (0, True)
    record = json.loads(run("push", "--index", index, "--config", config, "--json").out)
    assert (record["copied"], record["generation"], record["passages"], record["checks"]) == (False, 2, DOCUMENTS, [])
    pulled = json.loads(run("pull", "--index", tmp_path / "back", "--config", config, "--json").out)
    assert (pulled["copied"], pulled["written"], pulled["target"]) == (True, DOCUMENTS, str(tmp_path / "back"))
    assert {check["ok"] for check in pulled["checks"]} == {True}
    query = ["search", word(3, 0), "--json", "--set", "rerank.enabled=false"]
    ours = json.loads(run(*query, "--index", tmp_path / "back").out)
    theirs = json.loads(run(*query, "--config", config).out)
    assert [hit["document_id"] for hit in ours["hits"]] == [hit["document_id"] for hit in theirs["hits"]] != []


def test_what_is_replaced_is_kept_or_discarded(index: Path, config: Path) -> None:
    run("push", "--index", index, "--config", config)
    for option, kept in ((), 2), (("--discard",), None):
        with TwoStagePipeline.open(index) as pipeline:
            pipeline.ingest([(f"new {kept}", word(3, 0))])
        done = run("push", "--index", index, "--config", config, *option)
        assert done.code == 0, done.err
        assert (f"generation {kept} is kept until the next switch" in words(done.out)) == (kept is not None)
        assert ("is kept" in done.out) == (kept is not None)
    with TwoStagePipeline.open(index) as pipeline:
        pipeline.ingest([("only here", word(3, 0))])
    refused = run("pull", "--index", index, "--config", config)
    assert refused.code == 1
    assert f"{DOCUMENTS + 3} passages that are not a copy of" in refused.err
    assert "--replace lets this index take their place" in refused.err
    replaced = run("pull", "--index", index, "--config", config, "--replace", "--keep")
    assert "generation 1 is kept" in words(replaced.out)


def test_errors_of_push_and_pull(index: Path, config: Path, tmp_path: Path) -> None:
    for arguments, code, message in (
        (("push", "--index", index), 2, "name the server with --config FILE"),
        (("push", "--index", tmp_path / "none", "--config", config), 1, "there is no index in"),
        (("pull", "--index", tmp_path / "none", "--config", config), 1, "there is no collection 'passages'"),
        (("push", "--index", index, "--config", config, "--set", "store.url=http://127.0.0.1:9"), 1, "127.0.0.1:9"),
    ):
        done = run(*arguments)
        assert (done.code, message in words(done.err)) == (code, True), done.err
        assert json.loads(run(*arguments, "--json").out)["exit_code"] == code


def test_ctrl_c_leaves_a_push_to_be_continued(index: Path, config: Path, qdrant_double: QdrantDouble) -> None:
    qdrant_double.fail("PUT .*/points$", status=200, delay_s=2.0, skip=2, times=1)
    command = [sys.executable, "-m", "pipelines", "push", "--index", str(index), "--config", str(config), "--set"]
    process = subprocess.Popen([*command, "store.batch_size=20"], stderr=subprocess.PIPE, text=True)
    while qdrant_double.count("PUT .*/points$") < 3:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err.strip() == "stopped; run the same command again to go on"
    qdrant_double.faults.clear()
    done = run("push", "--index", index, "--config", config)
    assert done.code == 0, done.err
    assert "passages were there from a run that was stopped" in words(done.out)


def test_snapshots_from_making_to_deleting(index: Path, config: Path, tmp_path: Path) -> None:
    run("push", "--index", index, "--config", config)
    empty = run("snapshot", "list", "--config", config)
    assert empty.out.startswith("there is no snapshot; make one with 'retrieval snapshot create --config")
    assert json.loads(run("snapshot", "list", "--config", config, "--json").out) == []
    made = json.loads(run("snapshot", "create", "--config", config, "--json").out)
    assert (made["generation"], made["name"].startswith("passages-g2-")) == (2, True)
    listed = run("snapshot", "list", "--config", config)
    assert listed.out.splitlines()[0] == made["name"]
    assert listed.out.splitlines()[1].startswith("  generation 2, ")

    file = tmp_path / "kept.snapshot"
    fetched = json.loads(run("snapshot", "download", made["name"], file, "--config", config, "--json").out)
    assert (fetched["path"], fetched["bytes"]) == (str(file), file.stat().st_size)
    (tmp_path / "folder").mkdir()
    assert run("snapshot", "download", made["name"], tmp_path / "folder", "--config", config).code == 0
    assert (tmp_path / "folder" / made["name"]).read_bytes() == file.read_bytes()

    # What is ingested after the snapshot is gone after the restore, and in the generation before.
    run("ingest", _text(tmp_path), "--config", config)
    assert _passages(config) == DOCUMENTS + 1
    restored = run("snapshot", "restore", made["name"], "--config", config)
    assert restored.code == 0, restored.err
    assert "3 is live (passages-g3)" in restored.out
    assert "generation 2 is kept" in words(restored.out)
    assert _passages(config) == DOCUMENTS
    again = json.loads(run("snapshot", "restore", file, "--config", config, "--json").out)
    assert (again["generation"], again["points"], again["previous"]) == (4, DOCUMENTS, 3)
    assert run("push", "--index", index, "--config", config).out.startswith("nothing to do")

    name = json.loads(run("snapshot", "create", "--config", config, "--json").out)["name"]
    assert run("snapshot", "delete", name, "--config", config).out == f"deleted {name}\n"
    assert name not in run("snapshot", "list", "--config", config).out


def _text(folder: Path) -> Path:
    path = folder / "new.txt"
    path.write_text(word(3, 0))
    return path


def _passages(config: Path) -> int:
    return int(json.loads(run("info", "--config", config, "--json").out)["passages"])


def test_errors_of_snapshots(index: Path, config: Path, tmp_path: Path) -> None:
    run("push", "--index", index, "--config", config)
    for arguments, code, message in (
        (("create", "--index", index), 2, "name it with --config FILE"),
        (("create", "--index", index, "--config", config), 2, "has no meaning for store.kind"),
        (("create", "--config", config, "--set", "store.collection=none"), 1, "none"),
        (("delete", "none.snapshot", "--config", config), 1, "none.snapshot"),
        (("download", "none.snapshot", tmp_path, "--config", config), 1, "none.snapshot"),
        (("restore", "none.snapshot", "--config", config), 1, "none.snapshot"),
    ):
        done = run("snapshot", *arguments)
        assert (done.code, message in words(done.err)) == (code, True), (arguments, done.err)
    assert list(tmp_path.glob("*.snapshot")) == []


@pytest.mark.parametrize("name", ["create", "list", "download", "restore", "delete"])
def test_every_snapshot_command_takes_the_shared_options(name: str) -> None:
    done = run("snapshot", name, "--help")
    assert done.code == 0
    for option in ("--config", "--set", "--json", "--debug", "--quiet"):
        assert option in done.out
