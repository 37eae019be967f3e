"""Clusters of an index with labels, and places on a plane for a map.

Documents (the mean of their passages' vectors) or passages are put into clusters by k-means on the static vectors.
Where no number of clusters is given, it is the largest from 4 to 24 that keeps nine tenths of the best silhouette.
2 and 3 are looked at only where some number parts the texts clearly: two halves look best nearly always and tell
nobody anything. scikit-learn does the computing, in one thread, so that the same index, seed and version of it give the
same clusters and the same map.

Source:
    Rousseeuw 1987, "Silhouettes: a graphical aid to the interpretation and validation of cluster analysis".
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.corpus_views.labels import Labelled, label_clusters
from pipelines.corpus_views.sample import Item, sample_items
from retrieval.datatypes import Filter, FloatArray
from retrieval.errors import MissingExtraError, StoreError

if TYPE_CHECKING:
    from pipelines.progress import StepCallback
    from retrieval.protocols import SparseEncoder, Store

By = Literal["document", "passage"]

COUNTS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24)
"""Numbers of clusters that are tried."""

MOST_ITEMS = 3_000
MOST_CLUSTERS = 100
_SILHOUETTE_SAMPLE = 2_000
_FEWEST_PER_CLUSTER = 5
_FEW, _CLEAR, _KEPT = 4, 0.2, 0.9
_DIRECTIONS = 64
_CENTRAL = 3
_PERPLEXITY, _STEPS = 30.0, 500


@dataclass(frozen=True, slots=True)
class ClusterPoint:
    """A document or passage and its place.

    Args:
        document_id: Id of the document.
        index: Position of the passage in it; ``None`` for a document.
        title: Title of the document.
        text: How it begins.
        cluster: Number of its cluster, from 1.
        x: Place on the map, -1 to 1; near ones are alike, distances between far ones mean little. 0 without a map.
        y: The same.
    """

    document_id: str
    index: int | None
    title: str
    text: str
    cluster: int
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Cluster:
    """Documents or passages that lie together.

    Args:
        number: From 1, the largest first.
        label: Its most telling words.
        terms: More of them, most telling first.
        size: How many it has.
        cohesion: Mean cosine with its centre; 1 where all are the same.
        central: Ids and titles of the documents closest to its centre.
    """

    number: int
    label: str
    terms: tuple[str, ...]
    size: int
    cohesion: float
    central: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ClustersReport:
    """The clusters of an index.

    Args:
        by: Whether points are documents or passages.
        total: How many documents or passages there are.
        clusters: Largest first.
        points: The sample that was clustered; all where ``len(points) == total``.
        silhouettes: Mean silhouette of each number of clusters that was tried, -1 to 1; empty where one was given.
        mapped: Whether the points have places.
        seed: Of sample, clusters and map.
        seconds: Time it took.
    """

    by: By
    total: int
    clusters: tuple[Cluster, ...]
    points: tuple[ClusterPoint, ...]
    silhouettes: tuple[tuple[int, float], ...]
    mapped: bool
    seed: int
    seconds: float


def find_clusters(
    store: Store,
    sparse: SparseEncoder,
    *,
    by: By = "document",
    count: int | None = None,
    limit: int = MOST_ITEMS,
    seed: int = 0,
    where: Filter | None = None,
    mapped: bool = False,
    on_progress: StepCallback | None = None,
) -> ClustersReport:
    """Put a sample of an index into clusters.

    Args:
        store: Open store.
        sparse: BM25 encoder of the index; tells telling words from stop words.
        by: ``document`` or ``passage``.
        count: Number of clusters, 1 to `MOST_CLUSTERS`; ``None`` chooses one.
        limit: A uniform sample of so many is taken where there are more.
        seed: Of sample, clusters and map.
        where: Filter.
        mapped: Give the points places on a plane.
        on_progress: Called with what is under way.

    Raises:
        ValueError: An argument is out of range.
        StoreError: There is nothing to put into clusters.
        MissingExtraError: scikit-learn is not installed.
    """
    tell = on_progress or (lambda stage, done, total: None)
    if by not in {"document", "passage"}:
        raise ValueError(f"by is 'document' or 'passage', not {by!r}")
    if limit < 1 or (count is not None and not 1 <= count <= MOST_CLUSTERS):
        raise ValueError(f"the limit is at least 1, and clusters are 1 to {MOST_CLUSTERS}; got {limit} and {count}")
    started = time.perf_counter()
    _require_sklearn()
    from threadpoolctl import threadpool_limits

    items, vectors, total = sample_items(store, by=by, limit=limit, seed=seed, where=where, on_progress=tell)
    if not items:
        raise StoreError(
            f"{store.location} has no {by} with a vector that matches; there is nothing to put into clusters"
        )
    with threadpool_limits(1):
        chosen, silhouettes = _chosen(vectors, count, seed, tell)
        tell("labels", 0, 0)
        numbers, centres = _largest_first(chosen, vectors)
        labelled = label_clusters([f"{item.title}\n{item.text}" for item in items], numbers, len(centres), sparse)
        tell("map", 0, 0)
        places = _places(vectors, seed) if mapped else np.zeros((len(items), 2), np.float32)
    return ClustersReport(
        by=by,
        total=total,
        clusters=tuple(_clusters(items, vectors, numbers, centres, labelled)),
        points=tuple(
            ClusterPoint(item.document_id, item.index, item.title, item.start, int(number) + 1, float(x), float(y))
            for item, number, (x, y) in zip(items, numbers, places, strict=True)
        ),
        silhouettes=silhouettes,
        mapped=mapped,
        seed=seed,
        seconds=time.perf_counter() - started,
    )


def _require_sklearn() -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("sklearn", "map", "putting documents into clusters") from error


def _chosen(
    vectors: FloatArray, count: int | None, seed: int, tell: StepCallback
) -> tuple[NDArray[np.int64], tuple[tuple[int, float], ...]]:
    """The cluster of each row, and the silhouettes of the numbers that were tried."""
    from sklearn.metrics import silhouette_score

    rows = len(np.unique(vectors, axis=0))
    if rows < 2:
        return np.zeros(len(vectors), np.int64), ()
    reduced = _main_directions(vectors, _DIRECTIONS)
    if count is not None:
        return _k_means(reduced, min(count, rows), seed, tries=4), ()
    tried = [one for one in COUNTS if one * _FEWEST_PER_CLUSTER <= len(vectors) and one < rows]
    silhouettes = []
    for step, one in enumerate(tried):
        tell("clusters", step, len(tried))
        labels = _k_means(reduced, one, seed, tries=1)
        size = min(_SILHOUETTE_SAMPLE, len(vectors))
        score = silhouette_score(vectors, labels, metric="cosine", sample_size=size, random_state=seed)
        silhouettes.append((one, float(score)))
    best = best_count(silhouettes)
    if best is None:
        return np.zeros(len(vectors), np.int64), tuple(silhouettes)
    return _k_means(reduced, best, seed, tries=4), tuple(silhouettes)


def best_count(silhouettes: Sequence[tuple[int, float]]) -> int | None:
    """The largest number that keeps nine tenths of the best silhouette.

    Numbers below four count only where the best silhouette is at least 0.2.

    Args:
        silhouettes: Numbers that were tried, with their mean silhouette.

    Returns:
        ``None`` where no number is worth it: everything is one cluster.
    """
    clear = max((score for _, score in silhouettes), default=0.0) >= _CLEAR
    allowed = [(count, score) for count, score in silhouettes if score > 0 and (clear or count >= _FEW)]
    best = max((score for _, score in allowed), default=0.0)
    return max((count for count, score in allowed if score >= _KEPT * best), default=None)


def _main_directions(vectors: FloatArray, directions: int) -> NDArray[np.float64]:
    from sklearn.decomposition import PCA

    kept = min(directions, *vectors.shape)
    if len(np.unique(vectors, axis=0)) < 2:
        return np.zeros((len(vectors), kept))
    reduced: NDArray[np.float64] = PCA(kept, svd_solver="full").fit_transform(vectors.astype(np.float64))
    return reduced


def _k_means(rows: NDArray[np.float64], count: int, seed: int, *, tries: int) -> NDArray[np.int64]:
    from sklearn.cluster import KMeans

    labels: NDArray[np.int64] = KMeans(count, n_init=tries, random_state=seed).fit(rows).labels_.astype(np.int64)
    return labels


def _largest_first(labels: NDArray[np.int64], vectors: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
    """Numbers by size, and the centres at unit length."""
    used, sizes = np.unique(labels, return_counts=True)
    order = used[np.argsort(-sizes, kind="stable")]
    place = {int(label): number for number, label in enumerate(order)}
    numbers = np.array([place[int(label)] for label in labels], np.int64)
    sums = np.stack([vectors[numbers == number].sum(axis=0) for number in range(len(order))])
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    return numbers, (sums / np.where(norms > 0, norms, 1)).astype(np.float32)


def _clusters(
    items: Sequence[Item],
    vectors: FloatArray,
    numbers: NDArray[np.int64],
    centres: FloatArray,
    labelled: Sequence[Labelled],
) -> list[Cluster]:
    cosines = (vectors * centres[numbers]).sum(axis=1)
    clusters = []
    for number, words in enumerate(labelled):
        members = np.flatnonzero(numbers == number)
        nearest = members[np.argsort(-cosines[members], kind="stable")][:_CENTRAL]
        clusters.append(
            Cluster(
                number=number + 1,
                label=words.label,
                terms=words.terms,
                size=len(members),
                cohesion=float(cosines[members].mean()),
                central=tuple((items[at].document_id, items[at].title) for at in nearest),
            )
        )
    return clusters


def _places(vectors: FloatArray, seed: int) -> NDArray[np.float64]:
    """Places on a plane by t-SNE, from the two main directions where there are too few points for it."""
    from sklearn.manifold import TSNE

    if len(vectors) < 3:
        places: NDArray[np.float64] = np.linspace([-0.5, 0.0], [0.5, 0.0], len(vectors))
        return places
    few = len(np.unique(vectors, axis=0)) < 10
    reduced = _main_directions(vectors, 2 if few else 50)
    if not few:
        perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
        reduced = TSNE(2, perplexity=perplexity, init="pca", max_iter=_STEPS, random_state=seed).fit_transform(reduced)
    centred = np.asarray(reduced, np.float64)
    if centred.shape[1] < 2:
        centred = np.column_stack([centred, np.zeros(len(centred))])
    # Directions of t-SNE mean nothing, so each fills its side of the map.
    low, high = centred.min(axis=0), centred.max(axis=0)
    spans = np.where(high > low, high - low, 1.0)
    scaled: NDArray[np.float64] = np.clip((2 * centred - low - high) / spans, -1, 1)
    return scaled
