"""From the fate of every relevant document to the numbers of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.evaluation.first_stage import TIMES_MORE, ArmFindings
from pipelines.evaluation.loss_report import ArmShare, Bottleneck, Estimate, LossReport, LostDocument
from pipelines.evaluation.traces import PLACES, QueryTrace
from retrieval.datatypes import Arm, IngestReport
from retrieval.evaluation import evaluate_run
from retrieval.evaluation.losses import Fate, Stage, Trail, count_stages, ideal_order

NDCG = f"nDCG@{PLACES}"

_NOTHING = 0.005
_BY_CANDIDATES: tuple[Stage, ...] = ("encoder and BM25", "fusion cut")
_BOTTLENECKS: dict[int, Bottleneck] = {1: "second stage", -1: "first stage", 0: "open"}


@dataclass(frozen=True, slots=True)
class Traced:
    """A system after its quality pass.

    Args:
        name: Of the system.
        queries: Text of each query.
        qrels: Judgements.
        traces: Searches of all queries, with as many candidates as configured.
        run: Documents with scores, best first.
        ingest: Report of the ingest.
    """

    name: str
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    traces: Mapping[str, QueryTrace]
    run: Mapping[str, Sequence[tuple[str, float]]]
    ingest: IngestReport

    def relevant(self) -> dict[str, dict[str, int]]:
        """Grades of the relevant documents of every query."""
        return {
            query: {document: grade for document, grade in grades.items() if grade >= 1}
            for query, grades in self.qrels.items()
        }


@dataclass(frozen=True, slots=True)
class Followed:
    """Everything that is known about the relevant documents.

    Args:
        fates: What became of each.
        found: The first stage of every query, looked at again.
        needed: Candidates with which a document would have been fetched, by query and document.
        rises: Whether one more reading would have lifted a document, by query and document.
        exact: Top documents of an exact first stage; ``None`` where search is exact anyway.
    """

    fates: Sequence[Fate]
    found: Mapping[str, ArmFindings]
    needed: Mapping[tuple[str, str], int]
    rises: Mapping[tuple[str, str], bool]
    exact: Mapping[str, Sequence[str]] | None


def summarize(traced: Traced, followed: Followed, *, candidates: int, depth: int) -> LossReport:
    """The report, without advice.

    Args:
        traced: The system.
        followed: What became of its relevant documents.
        candidates: As they were searched with.
        depth: As they were read with.
    """
    traces, fates = traced.traces, followed.fates

    def ndcg(ranked: Mapping[str, Sequence[str]]) -> list[float]:
        return _ndcg(traced.qrels, ranked)

    everything = ndcg({query: ideal_order(grades, grades) for query, grades in traced.relevant().items()})
    ideal = ndcg({query: trace.ideal for query, trace in traces.items()})
    ideal_read = ndcg({query: trace.ideal_read for query, trace in traces.items()})
    first_stage = ndcg({query: trace.first_stage for query, trace in traces.items()})
    reached = ndcg({query: [document for document, _ in hits] for query, hits in traced.run.items()})
    lost = tuple(_lost(fate, followed, traced.ingest) for fate in fates if fate.stage != "found")
    needed = [
        one.candidates_needed for one in lost if one.stage in _BY_CANDIDATES and one.candidates_needed is not None
    ]
    lifted = [fate.relevant for fate in fates if fate.stage == "found"]
    return LossReport(
        system=traced.name,
        places=PLACES,
        candidates=candidates,
        depth=depth,
        queries=len(traced.qrels),
        relevant=len(fates),
        stages=count_stages(fates),
        everything=sum(everything) / len(everything),
        ideal=Estimate.of(ideal),
        ideal_read=Estimate.of(ideal_read),
        reached=Estimate.of(reached),
        first_stage=Estimate.of(first_stage),
        lost_fetching=_difference(everything, ideal),
        lost_reading=_difference(ideal, ideal_read),
        lost_ordering=_difference(ideal_read, reached),
        gain=_difference(reached, first_stage),
        exact_gain=None if followed.exact is None else _difference(ndcg(followed.exact), first_stage),
        bottleneck=bottleneck(everything, ideal, reached),
        arms=tuple(_arm_share(arm, fates, candidates) for arm in ("dense", "bm25")),
        with_more={more: sum(one <= more for one in needed) for more in (times * candidates for times in TIMES_MORE)},
        lifted_in=sum(one.document not in traces[one.query].first_stage for one in lifted),
        pushed_out=sum(one.document in traces[one.query].first_stage for one in lost),
        reasons=dict(Counter(one.reason for one in lost if one.stage == "not ingested").most_common()),
        lost=lost,
    )


def bottleneck(everything: Sequence[float], ideal: Sequence[float], reached: Sequence[float]) -> Bottleneck:
    """Which stage costs more nDCG, where the queries show a difference.

    Args:
        everything: nDCG of each query with all relevant documents in the best order.
        ideal: With the candidates in the best order.
        reached: Of the result.
    """
    first, second = _difference(everything, ideal), _difference(ideal, reached)
    if first.mean + second.mean < _NOTHING:
        return "none"
    more = [(middle - end) - (start - middle) for start, middle, end in zip(everything, ideal, reached, strict=True)]
    return _BOTTLENECKS[Estimate.of(more).sign]


def _lost(fate: Fate, followed: Followed, ingest: IngestReport) -> LostDocument:
    one, trail = fate.relevant, fate.relevant.trail
    return LostDocument(
        query=one.query,
        document=one.document,
        grade=one.grade,
        stage=fate.stage,
        rank=one.rank,
        first_stage_rank=trail.first_stage_rank,
        dense_rank=trail.dense_rank,
        bm25_rank=trail.bm25_rank,
        candidates_needed=followed.needed.get((one.query, one.document)),
        would_rise=followed.rises.get((one.query, one.document)),
        reason="" if one.ingested else _reason(one.document, ingest),
    )


def _reason(document: str, ingest: IngestReport) -> str:
    for rejected in ingest.rejected:
        if rejected.source == document:
            return rejected.reason
    all_are_told = ingest.rejected_count == len(ingest.rejected)
    return "not in the corpus" if all_are_told else "rejected, or not in the corpus"


def _ndcg(qrels: Mapping[str, Mapping[str, int]], ranked: Mapping[str, Sequence[str]]) -> list[float]:
    """Of each query, in the order of the judgements."""
    run = {
        query: [(document, -float(place)) for place, document in enumerate(documents)]
        for query, documents in ranked.items()
    }
    return list(evaluate_run(qrels, run, [NDCG]).per_query[NDCG].values())


def _difference(more: Sequence[float], less: Sequence[float]) -> Estimate:
    return Estimate.of([one - other for one, other in zip(more, less, strict=True)])


def _arm_share(arm: Arm, fates: Sequence[Fate], candidates: int) -> ArmShare:
    other: Arm = "bm25" if arm == "dense" else "dense"
    trails = [fate.relevant.trail for fate in fates]
    missed = [_rank(fate.relevant.trail, arm) for fate in fates if fate.stage == "encoder and BM25"]
    near = sum(place is not None and place <= 10 * candidates for place in missed)
    unseen = sum(place is None for place in missed)
    return ArmShare(
        arm=arm,
        fetched=sum(_has(trail, arm, candidates) for trail in trails),
        only=sum(_has(trail, arm, candidates) and not _has(trail, other, candidates) for trail in trails),
        near=near,
        far=len(missed) - near - unseen,
        unseen=unseen,
    )


def _rank(trail: Trail, arm: Arm) -> int | None:
    return trail.dense_rank if arm == "dense" else trail.bm25_rank


def _has(trail: Trail, arm: Arm, candidates: int) -> bool:
    rank = _rank(trail, arm)
    return rank is not None and rank <= candidates
