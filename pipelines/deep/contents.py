"""All that can be learned of an open index by reading it twice from end to end."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from pipelines.deep.lookups import LookupChecks
from pipelines.deep.passages import PassageChecks
from pipelines.deep.searches import SearchChecks
from pipelines.index_checks import Check
from pipelines.progress import StepCallback
from retrieval.datatypes import IndexManifest
from retrieval.protocols import Encoder, SparseEncoder, Store

_POINTS_PER_BATCH = 512


def examine_deeply(
    store: Store,
    manifest: IndexManifest,
    encoder: Encoder | None,
    sparse: SparseEncoder | None,
    on_progress: StepCallback,
) -> Iterator[Check]:
    """Compare everything that is stored with what is made of the stored texts.

    Args:
        store: Open store.
        manifest: Its manifest.
        encoder: The encoder that the index was built with; ``None`` leaves vectors out.
        sparse: The BM25 encoder of its settings; ``None`` leaves BM25 out.
        on_progress: Called while reading.
    """
    passages, lookups = PassageChecks(manifest, encoder, sparse), LookupChecks(store)
    searches = SearchChecks(store, sparse)
    points = store.scan(vectors=True)
    done = 0
    while batch := list(islice(points, _POINTS_PER_BATCH)):
        passages.add(batch)
        lookups.add(batch)
        searches.add(batch)
        done += len(batch)
        on_progress("comparing", done, manifest.passages)
    yield from passages.results()
    yield from lookups.results()
    yield from searches.results(on_progress, done)
