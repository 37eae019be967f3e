"""What readers beside a writer cost, on an index that is there: ``python -m benchmarks.readers INDEX``.

The index is copied first. Published and opened anew a few times; medians are printed as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines import TwoStagePipeline
from pipelines.reader import IndexReader
from retrieval.stores.edge import EdgeStore
from retrieval.stores.published import withdraw_publications

_QUERY = "what holds the cell together"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("index", type=Path)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where to work; a temporary folder without")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="readers-", dir=arguments.folder))
    try:
        subprocess.run(["cp", "-a", "--sparse=always", str(arguments.index), str(place / "index")], check=True)
        shutil.rmtree(place / "index" / "published", ignore_errors=True)
        print(json.dumps(measure(place / "index", arguments.times), indent=1))
    finally:
        shutil.rmtree(place)


def measure(index: Path, times: int) -> dict[str, Any]:
    """Mebibytes and seconds of publishing, of opening a reader, of its turning to the next state, and of a search.

    Each time stands beside what this process computed meanwhile, which another load of the machine changes little.
    """
    with TwoStagePipeline.open(index) as writer:
        store = writer.store
        assert isinstance(store, EdgeStore)
        alone = _disk(index)
        search = _median(times, lambda: writer.search(_QUERY, rerank=False))
        store.flush()

        def publish_anew() -> None:
            withdraw_publications(index)  # what is published already is left alone
            store.publish()

        publish = _median(times, publish_anew)
        published = _disk(index) - alone
        readers: list[IndexReader] = []
        opening = _median(times, lambda: readers.append(_reader(index)))
        views = _disk(index) - alone - published
        beside = _median(times, lambda: readers[0].search(_QUERY, rerank=False))
        turning = []
        for _ in range(times):
            publish_anew()
            turning.append(_seconds(readers[0].refresh))
        passages = writer.manifest.passages
        for reader in readers:
            reader.close()
    return {
        "passages": passages,
        "index_mib": round(alone / 2**20, 1),
        "publish": publish,
        "publication_mib": round(published / 2**20, 1),
        "open_reader": opening,
        "view_mib": round(views / times / 2**20, 1),
        "turn": _middle(turning),
        "search": search,
        "search_in_reader": beside,
    }


def _reader(index: Path) -> IndexReader:
    reader = TwoStagePipeline.open(index, read_only=True)
    assert isinstance(reader, IndexReader)
    return reader


def _median(times: int, act: Callable[[], Any]) -> dict[str, float]:
    return _middle([_seconds(act) for _ in range(times)])


def _middle(measured: list[tuple[float, float]]) -> dict[str, float]:
    wall, computed = (statistics.median(values) for values in zip(*measured, strict=True))
    return {"wall_s": round(wall, 4), "computed_s": round(computed, 4)}


def _seconds(act: Callable[[], Any]) -> tuple[float, float]:
    started, computed = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - started, time.process_time() - computed


def _disk(folder: Path) -> int:
    """Bytes of disk, each file once however many names it has."""
    blocks = {}
    for path, _, names in os.walk(folder):
        for name in names:
            state = os.lstat(os.path.join(path, name))
            blocks[state.st_ino] = state.st_blocks * 512
    return sum(blocks.values())


if __name__ == "__main__":
    main()
