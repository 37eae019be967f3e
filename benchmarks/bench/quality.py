"""Is the quicker search worse? nDCG@10 of both on judged queries, with the interval of the difference."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.bench.figures import Figure, Findings, Missing, Row
from benchmarks.bench.script_quality import DEPTHS, kept_rankings
from benchmarks.bench.setup import Setting, model_digests
from benchmarks.bench.two_stage import OWN
from benchmarks.bench.worker import Worker
from retrieval.evaluation import BeirCollection, compare, evaluate_run

QUESTION = "quality"
MEASURE = "nDCG@10"
PAIRED = "nDCG@10 over the queries that the script has answered"
OURS = "benchmarks.bench.ours.search"
SCRIPTS = {str(depth): f"script, torch, {depth} read" for depth in DEPTHS}

Rankings = dict[str, dict[str, list[str]]]


def measure(setting: Setting, findings: Findings) -> None:
    """All judged queries of the collection; nothing where there are no judgements."""
    collection = setting.corpus.collection
    if collection is None:
        findings.missing.append(Missing(QUESTION, MEASURE, "all", f"{setting.corpus.name} has no judgements"))
        findings.figures += figures([], "")
        return
    rankings: Rankings = {}
    queries = list(collection.queries.values())
    with Worker(OURS, {"index": str(setting.index())}) as ours:
        for name, chosen in {**OWN, "this, first stage": {"rerank": False}}.items():
            options = {"top_k": 10, **chosen}
            ours.ask("open_again", warm_up=queries[:1], options=options)  # no score of the one before is known
            found = ours.ask("found", queries=queries, options=options).value
            rankings[name] = {query: one["ids"] for query, one in zip(collection.queries, found, strict=True)}
            findings.rows += _cost(name, found)
    findings.rows += rows_of(collection, rankings, MEASURE)
    kept = kept_rankings(collection, model_digests(), setting.kept)
    if not kept:
        reason = "not computed for this collection and these models: python -m benchmarks.bench.script_quality"
        findings.missing += [Missing(QUESTION, PAIRED, name, reason) for name in SCRIPTS.values()]
    for depth, name in SCRIPTS.items() if kept else ():
        rankings[name] = {query: found[depth] for query, found in kept.items()}
    rows, comparisons = paired(collection, rankings, SCRIPTS["100"])
    findings.rows += rows
    findings.comparisons += comparisons
    share = f"{len(kept)} of {len(collection.queries)} queries, " if kept else ""
    findings.figures += figures(comparisons, f"{share}the first of a random order" if share else "")


def _cost(name: str, found: list[dict[str, Any]]) -> list[Row]:
    """What these searches took, each of them once."""
    times, note = [one["ms"] for one in found], f"{len(found)} queries"
    read = (float(np.mean([one["reranked"] for one in found])),)
    return [
        *(
            Row(QUESTION, f"query, p{part}", name, "ms", (float(np.percentile(times, part)),), note)
            for part in (50, 95)
        ),
        Row(QUESTION, "passages read of each query, mean", name, "", read, note),
    ]


def rows_of(collection: BeirCollection, rankings: Rankings, what: str) -> list[Row]:
    """The mean of each system over the queries that it has ranked."""
    return [
        Row(QUESTION, what, name, "", (sum(values.values()) / len(values),), f"{len(values)} queries")
        for name, values in _values(collection, rankings).items()
    ]


def paired(collection: BeirCollection, rankings: Rankings, baseline: str) -> tuple[list[Row], list[dict[str, Any]]]:
    """All systems over the queries of the baseline, and the difference of each from it, query by query."""
    if baseline not in rankings:
        return [], []
    shared = {name: {query: ranking[query] for query in rankings[baseline]} for name, ranking in rankings.items()}
    values = {name: {MEASURE: found} for name, found in _values(collection, shared).items()}
    return rows_of(collection, shared, PAIRED), [
        {
            "system": one.system,
            "baseline": one.baseline,
            "measure": one.measure,
            "queries": one.queries,
            "difference": one.difference,
            "interval": list(one.interval),
            "verdict": one.verdict,
        }
        for one in compare(values, baseline)
    ]


def _values(collection: BeirCollection, rankings: Rankings) -> dict[str, dict[str, float]]:
    """The measure of each system, query by query."""
    values = {}
    for name, ranking in rankings.items():
        run = {query: [(one, float(-place)) for place, one in enumerate(ids)] for query, ids in ranking.items()}
        judged = {query: collection.qrels[query] for query in ranking}
        values[name] = dict(evaluate_run(judged, run, (MEASURE,)).per_query[MEASURE])
    return values


def figures(comparisons: list[dict[str, Any]], share: str) -> list[Figure]:
    """What a search with the defaults finds beside the script; the aim is that the whole interval lies above 0."""
    title = "nDCG@10 of it minus that of the script"
    found = next((one for one in comparisons if one["system"] == "this"), None)
    if found is None:
        return [Figure(title, None, "", 0, 0)]
    low, high = found["interval"]
    out_of = f"95 % interval {low:+.3f} to {high:+.3f}, {found['verdict']}; {share}"
    return [Figure(title, found["difference"], "", 0, max(0.0, found["difference"] - low), out_of=out_of)]
