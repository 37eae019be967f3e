"""Logits of pairs that were read before: the same to the bit, within a bound, and free of budget."""

from __future__ import annotations

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines import TwoStagePipeline
from retrieval.config import Config, MemoryStoreConfig, RerankConfig
from retrieval.models import find_model
from retrieval.rerankers import CacheStatistics, OnnxCrossEncoder, ScoreCache, open_reranker
from retrieval.rerankers.score_cache import ENTRY_BYTES
from tests.pair_graphs import write_shared_words

TEXTS = ["the copper pipe leaks at the joint", "sourdough bread needs time", "", "a pipe"]


def keys_of(*texts: str) -> list[bytes]:
    return ScoreCache.keys("model", "query", texts)


def test_the_least_recently_used_go_first() -> None:
    cache = ScoreCache(3 * ENTRY_BYTES)
    a, b, c, d = keys_of("a", "b", "c", "d")
    cache.put([a, b, c], [1.0, 2.0, 3.0])
    assert cache.get([a]) == [1.0]  # used, so that b is the oldest
    cache.put([d], [4.0])
    assert cache.get([a, b, c, d]) == [1.0, None, 3.0, 4.0]
    assert cache.statistics == CacheStatistics(4, 1, 1, 3, 3 * ENTRY_BYTES)


def test_looking_is_no_use() -> None:
    cache = ScoreCache(2 * ENTRY_BYTES)
    a, b, c = keys_of("a", "b", "c")
    cache.put([a, b], [1.0, 2.0])
    assert cache.holds([a, c]) == [True, False]
    cache.put([c], [3.0])
    assert cache.holds([a, b, c]) == [False, True, True]
    assert (cache.statistics.hits, cache.statistics.misses) == (0, 0)


def test_model_query_and_text_cannot_be_confused() -> None:
    parts = [("m", "q", "t"), ("mq", "", "t"), ("m", "", "qt"), ("m", "qt", ""), ("m", "q", "T"), ("n", "q", "t")]
    parts += [("m", "q", "\ud800"), ("m", "q", "?")]
    keys = {ScoreCache.keys(model, query, [text])[0] for model, query, text in parts}
    assert len(keys) == len(parts)
    assert {len(key) for key in keys} == {16}


def test_the_bound_holds_in_bytes() -> None:
    bound = 2_000_000
    tracemalloc.start()
    try:
        cache = ScoreCache(bound)
        before, _ = tracemalloc.get_traced_memory()
        for number in range(20_000):
            cache.put(ScoreCache.keys("m", "q", [str(number)]), [number / 7])
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert cache.statistics.entries == bound // ENTRY_BYTES
    assert after - before <= bound


def test_nothing_is_kept_without_room() -> None:
    cache = ScoreCache(ENTRY_BYTES - 1)
    cache.put(keys_of("a"), [1.0])
    assert cache.get(keys_of("a")) == [None]
    with pytest.raises(ValueError, match="0 bytes or more, not -1"):
        ScoreCache(-1)


def test_threads_share_it() -> None:
    cache = ScoreCache(50 * ENTRY_BYTES)
    keys = keys_of(*map(str, range(200)))
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for at in range(2_000):
            place = (at * (number + 3)) % len(keys)
            cache.put([keys[place]], [float(place)])
            assert cache.get([keys[place]])[0] in (None, float(place))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    statistics = cache.statistics
    assert statistics.entries == 50
    assert statistics.hits + statistics.misses == 16_000


def test_a_remembered_score_is_the_fresh_one_bit_for_bit() -> None:
    model = find_model("starter-reranker")
    fresh = OnnxCrossEncoder(model).score("leaking pipe", TEXTS)
    reranker = OnnxCrossEncoder(model, cache_bytes=100_000)
    first = reranker.score("leaking pipe", TEXTS)
    again = reranker.score("leaking pipe", TEXTS[::-1])
    assert first.tobytes() == fresh.tobytes()
    assert again[::-1].tobytes() == fresh.tobytes()
    assert (reranker.cache.hits, reranker.cache.misses, reranker.cache.entries) == (4, 4, 4)
    assert reranker.prepare("leaking pipe", TEXTS, timed=True).milliseconds == (0.0,) * 4
    reranker.score("another query", TEXTS)
    assert reranker.cache.misses == 8


def test_the_setting_switches_it_off(tmp_path: Path) -> None:
    folder = write_shared_words(tmp_path / "model")
    on, off = (open_reranker(RerankConfig(cache_mb=size), folder) for size in (1.0, 0.0))
    assert isinstance(on, OnnxCrossEncoder)
    assert isinstance(off, OnnxCrossEncoder)
    for reranker in (on, off):
        assert reranker.score("copper", ["copper pipe"]).tolist() == reranker.score("copper", ["copper pipe"]).tolist()
    assert (on.cache.hits, off.cache) == (1, CacheStatistics())


def test_a_search_that_is_repeated_reads_nothing_anew() -> None:
    config = Config(store=MemoryStoreConfig())
    with TwoStagePipeline.open(config=config) as pipeline:
        pipeline.ingest([(f"d{number}", text) for number, text in enumerate(TEXTS) if text])
        reranker = pipeline.reranker()
        assert isinstance(reranker, OnnxCrossEncoder)
        first, again = pipeline.search("leaking pipe"), pipeline.search("leaking pipe")
        assert first.hits == again.hits
        assert reranker.cache.misses == first.reranked
        assert reranker.cache.hits == again.reranked
