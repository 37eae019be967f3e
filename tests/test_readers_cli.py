"""Searching from the command line, and from a prompt, while another process has the index."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipelines import LazyPipeline, TwoStagePipeline
from pipelines.cli import app
from pipelines.lease import IndexLease
from retrieval.config import Config, EdgeStoreConfig
from retrieval.errors import StoreBusyError, StoreError
from retrieval.stores import open_store
from tests.store_folders import closed_index

FACTS = [("moon", "The moon causes the tides."), ("bread", "Yeast makes dough rise.")]


@pytest.fixture
def index(quick_path: Path) -> Path:
    """A closed index of two documents; nothing of it is published."""
    return closed_index(quick_path, FACTS)


def search(index: Path, *options: str, lines: str | None = None) -> Result:
    query = [] if lines is not None else ["tides"]
    command = ["search", *query, "--index", str(index), "--no-rerank", *options]
    return CliRunner().invoke(app, command, input=lines, env={"COLUMNS": "80"})


def first(result: Result) -> str:
    assert result.exit_code == 0, result.stderr
    return str(json.loads(result.stdout)["hits"][0]["document_id"])


def test_an_index_in_use_is_searched_as_it_was_published(index: Path) -> None:
    with TwoStagePipeline.open(index) as writer:
        writer.ingest([("reef", "Corals and the tides build a reef of tides.")])
        done = search(index, "--json")
        assert first(done) in {"moon", "reef"}
        assert "another process has the index open; searching a copy of its state of" in done.stderr
        assert "with 3 passages" in " ".join(done.stderr.split())
        assert "another process" not in search(index, "--json", "--quiet").stderr
        lines = search(index, "--json", lines="tides\ndough\n")
        assert [json.loads(line)["hits"][0]["document_id"] for line in lines.stdout.splitlines()][1] == "bread"


def test_without_a_published_state_it_is_in_use(index: Path) -> None:
    with TwoStagePipeline.open(index):
        done = search(index)
        assert done.exit_code == 1
        assert "is in use by this process, through another handle; close it there, or search it read-only" in " ".join(
            done.stderr.split()
        )


def test_read_only_is_beside_others_from_the_start(index: Path) -> None:
    assert first(search(index, "--json", "--read-only")) == "moon"
    with TwoStagePipeline.open(index) as writer:
        done = search(index, "--json", "--read-only")
        assert (first(done), done.stderr) == ("moon", "")
        writer.delete(["moon"])
        assert "moon" not in search(index, "--json", "--read-only").stdout


def test_who_wants_the_index_itself_is_refused(index: Path) -> None:
    with TwoStagePipeline.open(index) as writer:
        writer.store.publish()  # type: ignore[attr-defined]
        done = search(index, "--no-read-only")
        assert done.exit_code == 1
        assert "is in use by" in done.stderr


def test_an_index_that_is_not_there_is_not_made(index: Path) -> None:
    done = search(index.with_name("nowhere"), "--read-only")
    assert done.exit_code == 1
    assert not index.with_name("nowhere").exists()


def test_a_prompt_takes_the_published_state_and_then_the_index_itself(index: Path) -> None:
    told: list[str] = []
    lease = IndexLease(
        lambda: (Config(store=EdgeStoreConfig()), index), idle=0, wait=0, read_only=None, tell=told.append
    )
    with TwoStagePipeline.open(index) as writer:
        with pytest.raises(StoreBusyError), lease.use():
            pass
        writer.store.publish()  # type: ignore[attr-defined]
        with lease.use() as pipeline:
            assert pipeline.search("tides", rerank=False)[0].document_id == "moon"
            with pytest.raises(StoreError, match="read-only"):
                pipeline.delete(["moon"])
    assert len(told) == 1
    with lease.use() as pipeline:
        assert pipeline.delete(["moon"]) == 1
    lease.close()
    assert len(told) == 1


def test_an_address_can_be_that_of_a_reader(index: Path) -> None:
    address = pickle.loads(pickle.dumps(LazyPipeline(index, read_only=True)))
    assert repr(address) == f"LazyPipeline({str(index)!r}, read_only=True)"
    with address, LazyPipeline(index) as alone, TwoStagePipeline.open(index) as writer:
        assert address.to_dict()["init_parameters"]["read_only"] is True
        assert "read_only" not in alone.to_dict()["init_parameters"]
        with pytest.raises(StoreBusyError):
            alone.search("tides")
        writer.store.publish()  # type: ignore[attr-defined]
        assert address.search("tides", rerank=False)[0].document_id == "moon"
        writer.ingest([("reef", "Corals build a reef.")])
        assert address.search("corals", rerank=False)[0].document_id == "reef"


def test_a_server_or_memory_is_read_only_too(tmp_path: Path) -> None:
    config = Config.model_validate({"store": {"kind": "memory"}})
    store = open_store(config, dim=4, path=tmp_path, read_only=True)
    with pytest.raises(StoreError, match="read-only"):
        store.upsert([])
    assert store.count() == 0
