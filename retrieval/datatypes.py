"""The records that travel between the parts, in the order in which they come into being.

Document -> Passage -> Point (ingest); SearchRequest -> ScoredPoint -> Candidate -> Hit -> Results (search).
All are frozen with slots. Records that hold arrays compare by identity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Filter = Mapping[str, Any]
"""A Qdrant REST filter: ``{"must": [{"key": "metadata.year", "range": {"gte": 2020}}]}``."""

Arm = Literal["dense", "bm25"]
FirstStage = Literal["hybrid", "dense", "bm25"]
GroupBy = Literal["document", "passage"]
"""``document`` keeps the best passage of each document in a result, ``passage`` keeps them all."""
Stopped = Literal["complete", "budget", "settled", "likely", "off"]


@dataclass(frozen=True, slots=True)
class Document:
    """One text with its name and what is known about it.

    Args:
        id: Name shown in results and used by judgements, unique in its source.
        text: The text, characters as read (offsets of passages refer to it).
        title: Title, empty when there is none.
        metadata: JSON values to filter by and to show.
        source: Unique location, ``path`` or ``path#record``; empty for documents handed over in Python.
    """

    id: str
    text: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    @property
    def key(self) -> str:
        """Identity of the document in an index: its source, or its id where it has none."""
        return self.source or self.id


@dataclass(frozen=True, slots=True)
class Rejected:
    """Something that could not be ingested, and why.

    Args:
        source: Path, ``path#record`` or document id.
        reason: One sentence for a person.
    """

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Passage:
    """The unit that is indexed.

    Args:
        document_id: Id of the document.
        index: Position among the passages of the document, from 0.
        text: ``document.text[start:end]``.
        start: First character in the document.
        end: One past the last character.
        title: Title of the document.
        headings: Heading path above the passage, outermost first.
    """

    document_id: str
    index: int
    text: str
    start: int
    end: int
    title: str = ""
    headings: tuple[str, ...] = ()

    @property
    def indexed_text(self) -> str:
        """What both arms encode: title and headings that the text does not repeat, then the text."""
        head = [part for part in dict.fromkeys((self.title, *self.headings)) if part and part not in self.text[:200]]
        return "\n".join((*head, self.text))


@dataclass(frozen=True, slots=True, eq=False)
class SparseVector:
    """A sparse vector: uint32 ``indices`` without repetition, float32 ``values`` of the same length."""

    indices: NDArray[np.uint32]
    values: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """What a store keeps: an id (UUID string), vectors and a JSON payload.

    Args:
        id: UUID in its canonical form.
        dense: float32 (dim,), unit length or all zero; ``None`` to store none.
        sparse: BM25 weights; ``None`` to store none.
        payload: JSON values.
    """

    id: str
    dense: FloatArray | None
    sparse: SparseVector | None
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class StoredPoint:
    """A point read back: payload as asked for (empty if not), vectors only when asked for."""

    id: str
    payload: Mapping[str, Any]
    dense: FloatArray | None = None
    sparse: SparseVector | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SearchRequest:
    """One arm, one query.

    Args:
        vector: float32 (dim,) for the dense arm, a `SparseVector` for BM25.
        limit: How many points to return, at least 1.
        where: Filter, ``None`` for all points.
        exact: Bypass approximate search and quantization.
        rescore: ``False`` scores by the compressed vectors alone, where there are any; ``None`` as the store is set.
    """

    vector: FloatArray | SparseVector
    limit: int
    where: Filter | None = None
    exact: bool = False
    rescore: bool | None = None


@dataclass(frozen=True, slots=True)
class ScoredPoint:
    """An id with its score in one arm, higher is better."""

    id: str
    score: float


@dataclass(frozen=True, slots=True)
class Quantization:
    """How dense vectors are compressed for search; originals stay stored for rescoring.

    Args:
        kind: ``none``, ``binary``, ``turbo`` or ``scalar`` (int8).
        bits: Bits per dimension: 1, 1.5 or 2 for binary; 1, 1.5, 2, 4 or 8 for turbo; ignored for scalar and none.
        query_bits: Bits of the query side of binary quantization: ``None`` for the same, 4 or 8 for asymmetric.
        rescore: Score the oversampled candidates again with the original vectors.
        oversampling: How many times ``limit`` candidates are fetched before rescoring, at least 1.
    """

    kind: Literal["none", "binary", "turbo", "scalar"] = "none"
    bits: float = 2
    query_bits: int | None = None
    rescore: bool = True
    oversampling: float = 3.0

    def __str__(self) -> str:
        if self.kind == "none":
            return "none"
        bits = "int8" if self.kind == "scalar" else f"{self.bits:g} bit"
        asymmetric = "" if self.query_bits is None else f", queries {self.query_bits} bit"
        search = f"oversampling {self.oversampling:g}, rescored" if self.rescore else "not rescored"
        return f"{self.kind} {bits}{asymmetric}, {search}"


@dataclass(frozen=True, slots=True)
class ArmScore:
    """Rank (from 1) and raw score of a passage in one arm of the first stage."""

    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the first stage returns for one passage.

    Args:
        id: Point id of the passage.
        rank: Rank after fusion, from 1.
        score: Fused score in [0, 1] (RRF: its sum).
        arms: Rank and score in each arm that returned it.
    """

    id: str
    rank: int
    score: float
    arms: Mapping[Arm, ArmScore]


@dataclass(frozen=True, slots=True)
class Hit:
    """One line of a result.

    Args:
        rank: Final rank, from 1.
        score: Final score, higher is better, falling with the rank.
        document_id: Id of the document.
        passage_id: Point id of the passage.
        text: Text of the passage.
        title: Title of the document.
        headings: Heading path above the passage.
        start: First character of the passage in the document.
        end: One past its last character.
        source: Location of the document.
        metadata: Metadata of the document.
        first_stage_rank: Rank after fusion.
        first_stage_score: Fused score.
        rerank_score: Raw logit of the cross-encoder, ``None`` when it did not read the passage.
        read: ``(start, end)`` of the text that the cross-encoder read, characters in ``text``; ``None`` when not read.
        arms: Rank and score in each arm.
        probability: Calibrated probability that the passage answers the query, from the logit; ``None`` when it was not
            read, or when neither the cross-encoder nor the index has a calibration.
    """

    rank: int
    score: float
    document_id: str
    passage_id: str
    text: str
    title: str
    headings: tuple[str, ...]
    start: int
    end: int
    source: str
    metadata: Mapping[str, Any]
    first_stage_rank: int
    first_stage_score: float
    rerank_score: float | None
    read: tuple[int, int] | None
    arms: Mapping[Arm, ArmScore]
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds spent in each stage of one search; ``total`` includes everything.

    Of several queries searched for together each has an equal share.
    """

    encode: float = 0.0
    retrieve: float = 0.0
    rerank: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Results(Sequence[Hit]):
    """The hits of one query, best first.

    Args:
        query: The query as given.
        hits: The hits.
        timings: Milliseconds per stage.
        reranked: How many candidates the cross-encoder read.
        stopped: Why it stopped reading: all read, budget spent, top settled, settled but for the chance that
            ``rerank.early_stop`` accepts (``likely``), or switched off.
        candidates: How many passages the first stage returned.
        warnings: Sentences for a person (a fallback, a negation, an empty query, an order that is not settled).
        settled: ``False`` when hits differ only by a negation, an opposite, a number or the order of their words, and
            the cross-encoder is not sure which comes first, or did not read both; ``warnings`` names them.
        answered: Whether a hit reaches the threshold that `TwoStagePipeline.calibrate` stored with the index; ``None``
            when there is no threshold, or no hit has a probability.
    """

    query: str
    hits: tuple[Hit, ...] = ()
    timings: Timings = Timings()
    reranked: int = 0
    stopped: Stopped = "off"
    candidates: int = 0
    warnings: tuple[str, ...] = ()
    settled: bool = True
    answered: bool | None = None

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[index]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """What an ingest has done so far.

    ``stage`` is repairing, sampling, reading, removing, committing, reweighting or indexing. The seconds of reading,
    encoding (with cutting) and writing are seconds of work: of two processes they overlap.
    """

    stage: str
    documents: int
    passages: int
    rejected: int
    seconds: float
    read_seconds: float = 0.0
    encode_seconds: float = 0.0
    write_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class IncomingDuplicate:
    """A document that was near-equal to another one when it came in.

    Args:
        source: Its source, or its id.
        of: Id of the document that was there before.
        kind: ``exact`` for the same words, ``near`` for nearly the same.
        share: Word triples that both share, 0 to 1.
        skipped: Whether it was left out for that.
    """

    source: str
    of: str
    kind: Literal["exact", "near"]
    share: float
    skipped: bool


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingest did.

    Args:
        added: New documents.
        changed: Documents whose content replaced an older one.
        unchanged: Documents skipped because their content hash was known.
        removed: Documents removed by ``sync``.
        rejected: What could not be used (the first 1,000, see ``rejected_count``).
        rejected_count: How many could not be used.
        passages: Passages written.
        seconds: Wall-clock time.
        duplicates: Near-equal documents, where they were looked for (the first 1,000, see ``duplicate_count``).
        duplicate_count: How many there were.
        read_seconds: Work of reading and hashing documents. Where two processes share the work, theirs overlaps.
        encode_seconds: Work of cutting passages and of encoding them.
        write_seconds: Work of making points and of writing them.
    """

    added: int
    changed: int
    unchanged: int
    removed: int
    rejected: tuple[Rejected, ...]
    rejected_count: int
    passages: int
    seconds: float
    duplicates: tuple[IncomingDuplicate, ...] = ()
    duplicate_count: int = 0
    read_seconds: float = 0.0
    encode_seconds: float = 0.0
    write_seconds: float = 0.0

    @property
    def passages_per_second(self) -> float:
        """Passages written per second of wall-clock time."""
        return self.passages / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class EncoderFingerprint:
    """Everything that decides which vector a text gets.

    Args:
        name: Name of the model.
        digest: First 12 hex digits of a SHA-256 over weights and tokenizer.
        loader: Rule set of the format: ``two-stage``, ``model2vec`` or ``sentence-transformers``.
        unknown: What happens to unknown tokens: ``skip`` or ``keep``.
        max_tokens: Tokens read of a text, ``None`` for all.
        dim: Dimensions after truncation.
        normalize: Whether rows have unit length.
    """

    name: str
    digest: str
    loader: str
    unknown: str
    max_tokens: int | None
    dim: int
    normalize: bool

    def __str__(self) -> str:
        return f"{self.name}@{self.digest} ({self.dim} dims, {self.loader} rules, unknown tokens: {self.unknown})"


@dataclass(frozen=True, slots=True)
class IndexManifest:
    """What an index was built with, kept beside it and compared when it is opened.

    Args:
        schema_version: Version of payload and manifest.
        generation: Number of the generation that this describes; each has vectors of one encoder.
        previous: Number of the generation that a rollback returns to; ``None`` when there is none.
        encoder: Fingerprint of the static encoder.
        adapted_from: Fingerprint of the encoder that the configuration names, from which ``encoder`` was adapted to
            these documents; ``None`` for one that was not adapted.
        dense_weight: Weight of the dense arm that was chosen for these documents; ``None`` for the default.
        bm25: Settings of the BM25 arm (language, k1, b).
        average_length: BM25 terms per passage that the stored weights assume; 0 before the first ingest.
        chunking: Settings of the chunker at the last ingest.
        config: The configuration sections that made it (encoder, bm25, chunking), used when none is given.
        documents: Documents in the index.
        passages: Points in the store.
        terms: BM25 terms over all passages.
        ids_digest: Order-free digest of all point ids (XOR of their 128 bits, hex).
        runs: Ingest runs so far; every point carries the number of its run.
        state: ``ready``, or what was under way when the manifest was written: ``ingesting``, ``reweighting``.
        created: ISO 8601 UTC.
        updated: ISO 8601 UTC.
        calibration: What logits of the cross-encoder mean for these documents, and from which probability on a hit is a
            good answer (`retrieval.rerankers.IndexCalibration`); ``None`` until `TwoStagePipeline.calibrate`.
    """

    schema_version: int
    generation: int
    previous: int | None
    encoder: EncoderFingerprint
    adapted_from: EncoderFingerprint | None
    dense_weight: float | None
    bm25: Mapping[str, Any]
    average_length: float
    chunking: Mapping[str, Any]
    config: Mapping[str, Any]
    documents: int
    passages: int
    terms: int
    ids_digest: str
    runs: int
    state: Literal["ready", "ingesting", "reweighting"]
    created: str
    updated: str
    calibration: Mapping[str, Any] | None = None
