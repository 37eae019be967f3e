"""How long real searches take with a setting: the engine, the encoders and the cross-encoder, one query at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipelines.search import Search
from pipelines.search_options import SearchOptions
from pipelines.tuning.settings import Setting, config_with
from pipelines.tuning.variants import Variants
from retrieval.config import Config
from retrieval.evaluation import LatencySummary, summarize_latency
from retrieval.protocols import Reranker, SparseEncoder

SEARCHES = 10
_WARM_UP = 2


class Timer:
    """Times settings of one index.

    Args:
        config: What it is searched with now.
        present: The setting that this gives.
        variants: Opens its vectors.
        sparse: BM25 encoder.
        reranker: The cross-encoder itself.
        queries: Of which a few are asked, evenly spread.
    """

    def __init__(
        self,
        config: Config,
        present: Setting,
        variants: Variants,
        sparse: SparseEncoder,
        reranker: Reranker,
        queries: Sequence[str],
    ) -> None:
        self._config = config
        self._present = present
        self._variants = variants
        self._sparse = sparse
        self._reranker = reranker
        count = min(len(queries), SEARCHES)
        self._queries = [queries[place * len(queries) // count] for place in range(count)]

    def times(self, settings: Sequence[Setting], on_setting: Callable[[int], None]) -> dict[Setting, LatencySummary]:
        """Time settings, those over the same vectors together.

        Args:
            settings: What to time.
            on_setting: Called with the number of each.
        """
        found: dict[Setting, LatencySummary] = {}
        for variant in dict.fromkeys(setting.variant for setting in settings):
            with self._variants.opened(variant) as store:
                for setting in settings:
                    if setting.variant != variant:
                        continue
                    on_setting(len(found))
                    config = config_with(self._config, self._present, setting)
                    search = Search(
                        config,
                        self._variants.encoder(variant.dimensions),
                        self._sparse,
                        store,
                        lambda: self._reranker,
                        setting.fusion.dense_weight,
                    )
                    found[setting] = self._time(search, SearchOptions.from_config(config, None, {}))
        return found

    def _time(self, search: Search, options: SearchOptions) -> LatencySummary:
        for query in self._queries[:_WARM_UP]:
            search.run([query], options)
        return summarize_latency([search.run([query], options)[0].timings.total for query in self._queries])
