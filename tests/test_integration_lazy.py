from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import json
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipelines import LazyPipeline, TwoStagePipeline
from pipelines.search_options import SearchArguments
from retrieval.errors import ConfigError, StoreBusyError, StoreError
from retrieval.integrations.searching import AddressedPipeline, SearchPipeline, SearchSettings
from tests.adapter_index import PIPES, build_index

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_index(tmp_path_factory.mktemp("lazy") / "index")


def best(pipeline: SearchPipeline) -> str:
    return pipeline.search(PIPES, top_k=1, first_stage="bm25", rerank=False)[0].document_id


def free(folder: Path) -> bool:
    try:
        TwoStagePipeline.open(folder).close()
    except StoreBusyError:
        return False
    return True


def test_adapters_know_every_argument_of_a_search() -> None:
    arguments = set(inspect.signature(TwoStagePipeline.search).parameters) - {"self", "query"}
    assert set(SearchSettings.__annotations__) == {"top_k", *SearchArguments.__annotations__} == arguments


def test_both_pipelines_are_what_adapters_need(folder: Path) -> None:
    lazy = LazyPipeline(folder)
    assert isinstance(lazy, AddressedPipeline)
    with TwoStagePipeline.open(folder) as opened:
        assert isinstance(opened, SearchPipeline)
        assert not isinstance(opened, AddressedPipeline)


def test_it_opens_at_the_first_search_and_again_after_closing(folder: Path) -> None:
    lazy = LazyPipeline(folder)
    assert free(folder)
    for _ in range(2):
        assert best(lazy) == "pipe-1"
        assert not free(folder)
        lazy.close()
        assert free(folder)
    lazy.close()


def test_the_same_address_is_opened_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    with LazyPipeline(folder) as first, LazyPipeline("index") as second:
        assert first.open_once() is second.open_once()
        first.close()
        assert best(second) == "pipe-1"
        assert not free(folder)
    assert free(folder)


def test_many_threads_open_one_pipeline(folder: Path) -> None:
    lazies = [LazyPipeline(folder) for _ in range(8)]
    found: list[str] = []
    threads = [threading.Thread(target=lambda lazy=lazy: found.append(best(lazy))) for lazy in lazies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["pipe-1"] * 8
    assert len({id(lazy.open_once()) for lazy in lazies}) == 1
    for lazy in lazies:
        lazy.close()
    assert free(folder)


def test_one_that_is_forgotten_releases_the_index(folder: Path) -> None:
    forgotten = [LazyPipeline(folder)]
    best(forgotten[0])
    forgotten.append(forgotten)  # type: ignore[arg-type]
    forgotten.clear()
    gc.collect()
    assert free(folder)


def test_copies_hold_the_address_alone(folder: Path) -> None:
    with LazyPipeline(folder) as lazy:
        lazy.open_once()
        written = json.loads(json.dumps(lazy.to_dict()))
        assert written == {
            "type": "pipelines.lazy.LazyPipeline",
            "init_parameters": {"index": str(folder), "config": None, "overrides": []},
        }
        for twin in (copy.deepcopy(lazy), pickle.loads(pickle.dumps(lazy)), LazyPipeline.from_dict(written)):
            assert repr(twin) == repr(lazy) == f"LazyPipeline({str(folder)!r})"
            assert best(twin) == "pipe-1"
            twin.close()


def test_an_event_loop_is_not_held_up_by_opening(folder: Path) -> None:
    async def ask() -> list[str]:
        with LazyPipeline(folder) as lazy:
            answers = await asyncio.gather(*(lazy.asearch(query, 1, rerank=False) for query in ("vanilla", "tides")))
        return [answer[0].document_id for answer in answers]

    assert asyncio.run(ask()) == ["bread-4", "moon"]


def test_a_configuration_by_its_file(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"store: {{kind: edge, path: {json.dumps(str(folder))}}}\nsearch: {{top_k: 2}}\n", "utf-8")
    with LazyPipeline(config=config, overrides=["rerank.enabled=false"]) as lazy:
        results = lazy.search_many([PIPES])[0]
        assert (len(results), results.stopped) == (2, "off")
        assert LazyPipeline.from_dict(lazy.to_dict()).search(PIPES).stopped == "off"


def test_wrong_addresses(tmp_path: Path) -> None:
    with pytest.raises(
        StoreError, match=r"there is no index in .*nowhere; make one with 'retrieval ingest PATH --index"
    ):
        LazyPipeline(tmp_path / "nowhere").search("tides")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="overrides change a configuration file; name it with config="):
        LazyPipeline("index", overrides=["search.top_k=1"])
    with pytest.raises(TypeError, match="overrides is a list of strings"):
        LazyPipeline("index", config="c.yaml", overrides="search.top_k=1")
    memory = tmp_path / "memory.yaml"
    memory.write_text("store: {kind: memory}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="memory"):
        LazyPipeline(config=memory).search("tides")


FRAMEWORKS = {"langchain": "langchain_core", "llamaindex": "llama_index", "haystack": "haystack"}

WITHOUT = """
import importlib, importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"langchain_core", "llama_index", "haystack"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])

sys.meta_path.insert(0, Blocker())
for name in ("langchain", "llamaindex", "haystack"):
    try:
        importlib.import_module(f"retrieval.integrations.{name}")
    except ImportError as error:
        print(type(error).__name__, error)
"""


def test_a_missing_framework_gives_the_pip_line() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", WITHOUT], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"MissingExtraError retrieval.integrations.{name} needs the package {package!r}: "
        f"pip install 'two-stage-retrieval[{name}]'"
        for name, package in FRAMEWORKS.items()
    ]


def test_the_package_of_the_adapters_imports_no_framework() -> None:
    code = (
        "import sys, retrieval, pipelines, retrieval.integrations.opened; pipelines.LazyPipeline;"
        f"print([name for name in {sorted(FRAMEWORKS.values())} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
