"""Where relevant documents are lost: every stage and every precedence by hand, then over tiny indexes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.evaluation import EvaluateOptions, LossReport, evaluate_collection
from pipelines.evaluation.advice import advice_of, verdict
from pipelines.evaluation.first_stage import FirstStageLook
from pipelines.evaluation.loss_report import ArmShare, Estimate, LostDocument
from pipelines.evaluation.loss_summary import Followed, Traced, bottleneck, summarize
from pipelines.evaluation.reading import SecondLook, final_score
from pipelines.evaluation.traces import QueryTrace, TracedPassage, trace_of
from retrieval.config import Config, FirstStageConfig, RerankConfig, parse_config
from retrieval.datatypes import (
    Document,
    EncoderFingerprint,
    FloatArray,
    Hit,
    IngestReport,
    Point,
    Quantization,
    Results,
    SparseVector,
)
from retrieval.evaluation.losses import (
    STAGES,
    RelevantDocument,
    Stage,
    Trail,
    Unread,
    count_stages,
    fates_of,
    ideal_order,
    merge_trails,
    stage_of,
)
from retrieval.manifest import new_manifest
from retrieval.rerankers import read_candidates
from retrieval.stores.edge import EdgeStore
from retrieval.stores.memory import MemoryStore

CANDIDATE = Trail(dense_rank=5, bm25_rank=7, with_exact=True, first_stage_rank=6)


def relevant(trail: Trail = CANDIDATE, rank: int | None = 30, **changes: Any) -> RelevantDocument:
    return replace(RelevantDocument("q", "d", 1, True, rank, trail), **changes)


@pytest.mark.parametrize(
    ("document", "unread", "stage"),
    [
        (relevant(rank=10), "depth", "found"),
        (relevant(Trail(), None, ingested=False), "depth", "not ingested"),
        (relevant(Trail(), None), "depth", "encoder and BM25"),
        (relevant(Trail(dense_rank=101, bm25_rank=101), None), "depth", "encoder and BM25"),
        (relevant(Trail(dense_rank=100), None), "depth", "fusion cut"),
        (relevant(Trail(bm25_rank=100), None), "depth", "fusion cut"),
        # An exact search would have made it a candidate: that comes before the cut.
        (relevant(Trail(dense_rank=3, with_exact=True, near_by_codes=False), None), "depth", "quantization"),
        (relevant(Trail(dense_rank=3, with_exact=True, near_by_codes=True), None), "depth", "approximate search"),
        (relevant(Trail(dense_rank=3, with_exact=True), None), "depth", "approximate search"),
        (relevant(Trail(dense_rank=3, bm25_rank=9, near_by_codes=False), None), "depth", "fusion cut"),
        (relevant(), "depth", "rerank depth"),
        (relevant(), "budget", "rerank budget"),
        (relevant(), "failed", "cross-encoder"),
        (relevant(rank=11), "depth", "rerank depth"),
        (relevant(replace(CANDIDATE, read=True)), "budget", "cross-encoder"),
        (relevant(replace(CANDIDATE, read=True, elsewhere=True)), "budget", "passage window"),
        # What was not read cannot have been read in the wrong place.
        (relevant(replace(CANDIDATE, elsewhere=True)), "depth", "rerank depth"),
    ],
)
def test_the_first_stage_on_the_way_that_lost_it_counts(
    document: RelevantDocument, unread: Unread, stage: Stage
) -> None:
    assert stage_of(document, candidates=100, unread=unread) == stage
    assert [fate.stage for fate in fates_of([document], candidates=100, unread={"q": unread})] == [stage]


def test_the_top_may_be_shorter() -> None:
    assert stage_of(relevant(rank=4), candidates=100, unread="depth", places=3) == "rerank depth"
    assert stage_of(relevant(rank=3), candidates=100, unread="depth", places=3) == "found"


def test_of_a_document_the_best_passage_counts() -> None:
    first = Trail(dense_rank=40, bm25_rank=None, near_by_codes=False, first_stage_rank=None)
    second = Trail(dense_rank=200, bm25_rank=12, with_exact=True, first_stage_rank=17, read=True)
    third = Trail(dense_rank=None, bm25_rank=90, near_by_codes=True, first_stage_rank=12, elsewhere=True)
    assert merge_trails([first, second, third]) == Trail(40, 12, True, True, 12, True, True)
    assert merge_trails([first, second]).near_by_codes is False
    assert merge_trails([]) == Trail()


def test_a_query_loses_only_as_many_as_have_a_place() -> None:
    """Two places: one is found, so of four that are missed one counts: the highest grade, then who came furthest."""
    read = replace(CANDIDATE, read=True)
    found = relevant(rank=1, document="found")
    missing = relevant(Trail(), None, document="missing", ingested=False)
    unread = relevant(document="unread")
    low = relevant(read, rank=9, document="low")
    high = relevant(read, rank=8, document="high")
    many = [missing, found, unread, low, high]
    other = relevant(Trail(), None, query="other")

    def stages(documents: Sequence[RelevantDocument], places: int) -> list[Stage]:
        return [fate.stage for fate in fates_of(documents, candidates=100, unread={}, places=places)]

    lost = "no place"
    assert stages([*many, other], 2) == [lost, "found", lost, lost, "cross-encoder", "encoder and BM25"]
    assert stages(many, 3) == [lost, "found", lost, "cross-encoder", "cross-encoder"]
    assert stages(many, 4) == [lost, "found", "rerank depth", "cross-encoder", "cross-encoder"]
    assert stages(many, 5) == ["not ingested", "found", "rerank depth", "cross-encoder", "cross-encoder"]
    graded = [replace(missing, grade=2), found, high]
    assert stages(graded, 2) == ["not ingested", "found", lost]
    assert stages([replace(found, document=str(place)) for place in range(3)], 2) == ["found"] * 3


def test_counts_add_up_and_name_every_stage() -> None:
    fates = fates_of([relevant(document=str(n), rank=n) for n in range(5, 25)], candidates=100, unread={})
    counts = count_stages(fates)
    assert tuple(counts) == STAGES
    assert (counts["found"], counts["rerank depth"], counts["no place"]) == (6, 4, 10)
    assert sum(counts.values()) == 20


def test_the_ideal_order() -> None:
    assert ideal_order(["x", "b", "a", "y", "c"], {"a": 1, "b": 1, "c": 3, "y": -1}) == ["c", "b", "a", "x", "y"]


def hit(document: str, first_stage_rank: int, score: float, logit: float | None, passage: str = "") -> Hit:
    return Hit(
        rank=1,
        score=score,
        document_id=document,
        passage_id=passage or document,
        text="",
        title="",
        headings=(),
        start=0,
        end=0,
        source="",
        metadata={},
        first_stage_rank=first_stage_rank,
        first_stage_score=1 - first_stage_rank / 10,
        rerank_score=logit,
        read=None if logit is None else (0, 4),
        arms={},
    )


def test_a_trace_keeps_what_was_possible() -> None:
    """Three were read, of which the last is relevant; of two unread ones the last is."""
    hits = (
        hit("a", 1, 0.9, 1.0),
        hit("b", 2, 0.7, 0.0),
        hit("good", 3, 0.6, -1.0, "good-1"),
        hit("c", 4, 0.3, None),
        hit("late", 5, 0.2, None),
        hit("good", 6, 0.1, None, "good-2"),
    )
    trace = trace_of(Results("q", hits, reranked=3, stopped="complete"), {"good": 1, "late": 2, "c": 0}, depth=3)
    assert trace.ranks == {"good": 3, "late": 5}
    assert (trace.bar, trace.unread) == (-np.inf, "depth")
    assert trace.first_stage == ("a", "b", "good", "c", "late")
    assert trace.ideal == ("late", "good", "a", "b", "c")
    assert trace.ideal_read == ("good", "a", "b", "c", "late")
    # Scores of the first stage are from 0.9 down to 0.4.
    assert [(one.id, one.rank, one.read) for one in trace.passages] == [
        ("good-1", 3, (0, 4)),
        ("late", 5, None),
        ("good-2", 6, None),
    ]
    assert [one.first for one in trace.passages] == pytest.approx([0.6, 0.2, 0.0])
    assert trace_of(Results("q", hits, stopped="budget", reranked=3), {}, depth=9).unread == "budget"
    assert trace_of(Results("q", hits, stopped="off"), {}, depth=9).unread == "failed"
    assert trace_of(Results("q", hits, stopped="off"), {}, depth=0).unread == "depth"
    twelve = tuple(hit(f"d{n}", n, 1 - n / 20, None) for n in range(1, 13))
    assert trace_of(Results("q", twelve), {}, depth=0).bar == pytest.approx(0.5)


class Table:
    """Vectors by text; the sparse side has one term for each query."""

    dim = 8
    fingerprint = EncoderFingerprint("table", "0", "two-stage", "skip", None, 8, True)

    def __init__(self, vectors: dict[str, list[float]]) -> None:
        self._vectors = {text: np.asarray(row, np.float32) / np.linalg.norm(row) for text, row in vectors.items()}

    def encode_queries(self, texts: Sequence[str]) -> Any:
        return np.stack([self._vectors.get(text, np.zeros(8, np.float32)) for text in texts]).astype(np.float32)

    encode_documents = encode_queries

    def count_tokens(self, text: str) -> int:
        return len(text.split())


class Terms:
    """The term of a query is its number of letters."""

    def encode_queries(self, texts: Sequence[str]) -> list[SparseVector]:
        return [SparseVector(np.asarray([len(t)], np.uint32), np.ones(1, np.float32)) for t in texts]

    def encode_documents(self, texts: Sequence[str], average_length: float) -> Any:
        return self.encode_queries(texts), [1 for _ in texts]


def uuid_of(number: int) -> str:
    return f"00000000-0000-0000-0000-{number:012d}"


def point(number: int, dense: FloatArray | list[float], term: int | None = None, text: str = "") -> Point:
    row = np.asarray(dense, np.float32)
    sparse = None if term is None else SparseVector(np.asarray([term], np.uint32), np.ones(1, np.float32))
    payload = {"document_id": f"d{number}", "text": text, "title": ""}
    return Point(uuid_of(number), (row / np.linalg.norm(row)).astype(np.float32), sparse, payload)


def test_what_the_arms_have_alone_and_with_more_candidates() -> None:
    """Six points on a fan: the nearer the number, the nearer to the query; BM25 knows only the last."""
    fan = [[np.cos(n / 4), np.sin(n / 4), 0, 0, 0, 0, 0, 0] for n in range(6)]
    with MemoryStoreOf([point(n, row, 5 if n == 5 else None) for n, row in enumerate(fan)]) as store:
        fusion = FirstStageConfig(candidates=1, dense_weight=0.6)
        look = FirstStageLook(Table({"query": fan[0]}), Terms(), store, fusion, 6)
        names = [uuid_of(n) for n in range(6)]
        found = look.look({"q": "query"}, {"q": names}, {"q": names[1:]}, lambda *step: None)["q"]
    assert [found.trails[name].dense_rank for name in names] == [1, 2, 3, 4, 5, 6]
    assert [found.trails[name].bm25_rank for name in names] == [None] * 5 + [1]
    assert found.exact == (names[0],)
    assert [found.trails[name].with_exact for name in names] == [True] + [False] * 5
    # Two candidates: the first and BM25's own. Five: the fifth point scales to 0 and is the one that is cut.
    assert found.with_more == {names[5]: 2, names[1]: 5, names[2]: 5, names[3]: 5, names[4]: 10}


class MemoryStoreOf:
    """A store in memory with these points, closed at the end of the block."""

    def __init__(self, points: list[Point]) -> None:
        self._store = MemoryStore(dim=8)
        self._store.upsert(points)

    def __enter__(self) -> MemoryStore:
        return self._store

    def __exit__(self, *error: object) -> None:
        self._store.close()


@pytest.mark.parametrize(("rescore", "near"), [(False, False), (True, True)])
def test_codes_lose_what_their_signs_misjudge(rescore: bool, near: bool, tmp_path: Path) -> None:
    """The nearest vector has the other sign in seven of eight dimensions, a far one the same sign in all."""
    query = [1.0] + [0.1] * 7
    nearest, misjudged = [1.0] + [-0.1] * 7, [0.1] + [1.0] * 7
    quantization = {"kind": "binary", "bits": 1, "rescore": rescore, "oversampling": 3}
    config = parse_config({"quantization": quantization})
    store = EdgeStore(config, dim=8, path=tmp_path)
    try:
        store.upsert([point(1, nearest), point(2, misjudged)])
        fusion = FirstStageConfig(candidates=1)
        look = FirstStageLook(Table({"query": query}), Terms(), store, fusion, 2)
        one = uuid_of(1)
        trail = look.look({"q": "query"}, {"q": [one]}, {"q": [one]}, lambda *step: None)["q"].trails[one]
    finally:
        store.close()
    assert (trail.dense_rank, trail.with_exact, trail.near_by_codes) == (1, True, near)
    stage = stage_of(relevant(trail, None), candidates=1, unread="depth")
    assert stage == ("approximate search" if near else "quantization")


class WordCounter:
    """A cross-encoder that counts a word."""

    name = "counter"

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        return np.asarray([4.0 * text.split().count(query) - 2 for text in texts], np.float32)


def test_another_window_or_a_reading_lifts_over_the_bar() -> None:
    long = " ".join(["filler"] * 60 + ["leak"])
    texts = ["filler " * 16, long, "leak", "other"]
    store = MemoryStore(dim=8)
    store.upsert([point(n, [1.0] * 8, text=text) for n, text in enumerate(texts)])
    settings = RerankConfig(window_words=16, first_stage_weight=0.5)
    look = SecondLook(Table({}), store, WordCounter(), settings)
    passages = tuple(
        TracedPassage(uuid_of(n), f"d{n}", n + 1, 0.0, read) for n, read in enumerate([(0, 111), (0, 111), None, None])
    )
    # A logit of 2 gives 0.5 * 0.88 = 0.44, one of -2 gives 0.06.
    trace = QueryTrace({}, passages, 0.4, "depth", (), (), ())
    everything = ["d0", "d1", "d2", "d3"]
    assert look.lifted("leak", trace, everything) == {"d1", "d2"}
    assert look.lifted("leak", trace, ["d0", "d2"]) == {"d2"}
    assert look.lifted("leak", replace(trace, bar=0.45), everything) == set()
    assert look.lifted("leak", trace, []) == set()


def test_the_final_score_is_that_of_the_search() -> None:
    first, reranker = [0.9, 0.5, 0.1], WordCounter()
    texts = ["leak", "leak leak", "dry"]
    reading = read_candidates("leak", texts, first, reranker, first_stage_weight=0.4, top_k=3)
    for scaled, logit, score in zip([1.0, 0.5, 0.0], reading.logits, reading.scores, strict=True):
        assert logit is not None
        assert final_score(scaled, logit, 0.4) == pytest.approx(score)
    assert final_score(0.5, -1e9, 0.4) == pytest.approx(0.2)
    assert final_score(0.5, 1e9, 0.4) == pytest.approx(0.8)


def test_the_summary_by_hand() -> None:
    """Two queries: of the first the top is right but for the last place, of the second nothing was fetched."""
    read = replace(CANDIDATE, read=True)
    documents = [
        relevant(read, rank=1, query="a", document="kept"),
        relevant(read, rank=2, query="a", document="lifted"),
        relevant(read, rank=11, query="a", document="pushed"),
        relevant(Trail(dense_rank=150), None, query="b", document="far"),
        relevant(Trail(dense_rank=3, with_exact=True, near_by_codes=False), None, query="b", document="coded"),
    ]
    qrels = {"a": dict.fromkeys(["kept", "lifted", "pushed"], 1), "b": dict.fromkeys(["far", "coded"], 1)}
    top = ("kept", "pushed", "x")
    traces = {
        "a": QueryTrace({}, (), 0.0, "depth", top, ("kept", "lifted", "pushed"), ("kept", "pushed", "x", "lifted")),
        "b": QueryTrace({}, (), 0.0, "depth", (), (), ()),
    }
    run = {"a": (("kept", 2.0), ("lifted", 1.0)), "b": ()}
    ingest = IngestReport(0, 0, 0, 0, (), 0, 0, 0.0)
    traced = Traced("two-stage", {"a": "", "b": ""}, qrels, traces, run, ingest)
    needed = {("b", "far"): 200, ("b", "coded"): 200}
    fates = fates_of(documents, candidates=100, unread={})
    exact = {"a": top, "b": ("coded",)}
    report = summarize(traced, Followed(fates, {}, needed, {}, exact), candidates=100, depth=20)

    assert {stage: count for stage, count in report.stages.items() if count} == {
        "found": 2,
        "encoder and BM25": 1,
        "quantization": 1,
        "cross-encoder": 1,
    }
    assert (report.lifted_in, report.pushed_out) == (1, 1)
    # What quantization lost is not for more candidates to find.
    assert report.with_more == {200: 1, 500: 1, 1000: 1}
    second, third, fourth = 1 / np.log2(3), 1 / np.log2(4), 1 / np.log2(5)
    three, two = 1 + second + third, 1 + second
    assert report.ideal.mean == pytest.approx(0.5)
    assert report.ideal_read.mean == pytest.approx((1 + second + fourth) / three / 2)
    assert report.reached.mean == pytest.approx((1 + second) / three / 2)
    assert report.gain.mean == pytest.approx(0)
    assert report.exact_gain is not None
    assert report.exact_gain.mean == pytest.approx(1 / two / 2)
    # Alone, the static arm has the three candidates and the one that its codes lost, BM25 only the candidates.
    assert [(arm.fetched, arm.only, arm.near, arm.far, arm.unseen) for arm in report.arms] == [
        (4, 1, 1, 0, 0),
        (3, 0, 0, 0, 1),
    ]


def test_the_bottleneck_needs_evidence() -> None:
    full = [1.0] * 20
    assert bottleneck(full, full, [0.5] * 20) == "second stage"
    assert bottleneck(full, [0.5] * 20, [0.4] * 20) == "first stage"
    assert bottleneck(full, [0.0] + [1.0] * 19, [0.0, 0.0] + [1.0] * 18) == "open"
    assert bottleneck(full, full, full) == "none"


@pytest.fixture
def collection(tmp_path: Path, corpus: list[Document]) -> Path:
    folder = tmp_path / "tiny"
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": document.id, "title": "", "text": document.text} for document in corpus]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in documents))
    queries = [{"_id": "q1", "text": "copper pipe leak plumber"}, {"_id": "q3", "text": "vanilla"}]
    (folder / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in queries))
    return folder


def judged(collection: Path, relevant_to: dict[str, list[str]]) -> Path:
    rows = [f"{query}\t{document}\t1\n" for query, documents in relevant_to.items() for document in documents]
    (collection / "qrels" / "test.tsv").write_text("".join(rows))
    return collection


def losses_of(folder: Path, config: Config | None = None) -> LossReport:
    report = evaluate_collection(folder, config)
    assert report.losses is not None
    return report.losses


def test_an_evaluation_names_the_stages(collection: Path, tmp_path: Path) -> None:
    """Twelve documents: with all of them candidates, the last two of the result are missed."""
    config = Config(rerank=RerankConfig(early_stop="exact"))
    with (collection / "corpus.jsonl").open("a") as corpus:
        corpus.write(json.dumps({"_id": "empty", "title": "", "text": " "}) + "\n")
    judged(collection, {"q1": ["pipe-1"]})
    options = EvaluateOptions(limit=1)
    *_, two_stage = evaluate_collection(collection, config, options=options).systems
    ranked = [document for document, _ in two_stage.run["q1"]]
    assert len(ranked) == 12
    last = ranked[-1]
    judged(collection, {"q1": [ranked[0], last, "empty", "ghost"]})

    losses = losses_of(collection, config)
    assert {stage: count for stage, count in losses.stages.items() if count} == {
        "found": 1,
        "not ingested": 2,
        "cross-encoder": 1,
    }
    assert (losses.relevant, losses.candidates, losses.depth) == (4, 100, 20)
    by_document = {one.document: one for one in losses.lost}
    assert (by_document[last].stage, by_document[last].rank) == ("cross-encoder", 12)
    assert by_document["ghost"].reason == "not in the corpus"
    assert "empty" in by_document["empty"].reason
    assert sorted(losses.reasons.values()) == [1, 1]
    # Of four relevant documents two could have been first and second; two can never be found.
    everything = 1 + 1 / np.log2(3) + 1 / np.log2(4) + 1 / np.log2(5)
    assert losses.everything == 1
    assert losses.ideal.mean == losses.ideal_read.mean == pytest.approx((1 + 1 / np.log2(3)) / everything)
    assert losses.reached.mean == pytest.approx(1 / everything)
    assert losses.lost_fetching.mean + losses.lost_reading.mean + losses.lost_ordering.mean == pytest.approx(
        losses.everything - losses.reached.mean
    )

    shallow = losses_of(collection, parse_config({"rerank": {"depth": 2}}))
    assert (shallow.stages["rerank depth"], shallow.stages["cross-encoder"]) == (1, 0)
    (unread,) = [one for one in shallow.lost if one.stage == "rerank depth"]
    assert unread.would_rise is not None
    assert shallow.ideal_read.mean < shallow.ideal.mean

    narrow = losses_of(collection, parse_config({"first_stage": {"candidates": 1}}))
    assert narrow.stages["encoder and BM25"] == 1
    (missed,) = [one for one in narrow.lost if one.stage == "encoder and BM25"]
    assert missed.dense_rank is not None
    assert missed.dense_rank > 1
    assert missed.first_stage_rank is None


def test_the_command_writes_every_lost_document(collection: Path, tmp_path: Path) -> None:
    judged(collection, {"q1": ["pipe-1", "ghost"], "q3": ["nowhere"]})
    file = tmp_path / "lost.jsonl"

    def run(*arguments: object) -> Any:
        done = CliRunner().invoke(app, ["evaluate", *map(str, arguments)], env={"COLUMNS": "80"})
        assert done.exit_code == 0, done.stderr
        return done

    table = run(collection, "--save-losses", file).stdout
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(row["collection"], row["query"], row["document"], row["stage"], row["reason"]) for row in rows] == [
        ("tiny", "q1", "ghost", "not ingested", "not in the corpus"),
        ("tiny", "q3", "nowhere", "not ingested", "not in the corpus"),
    ]
    assert rows[1]["text"] == "vanilla"
    lines = {line[:40].strip(" -"): line.split()[-3:] for line in table.splitlines()}
    assert lines["not in the index"] == ["-2", "66.7", "%"]
    assert max(map(len, table.splitlines())) <= 80
    (report,) = json.loads(run(collection, "--json").stdout)["collections"]
    assert report["losses"]["stages"]["not ingested"] == 2
    assert "lost" not in report["losses"]
    off = json.loads(run(collection, "--json", "--no-losses").stdout)
    assert off["collections"][0]["losses"] is None
    assert off["command"] == "retrieval evaluate tiny --no-losses --json"
    refused = CliRunner().invoke(app, ["evaluate", str(collection), "--no-losses", "--save-losses", str(file)])
    assert refused.exit_code == 2


def report_with(stages: dict[Stage, int], **changes: Any) -> LossReport:
    """A hundred relevant documents of fifty queries; what is not said to be lost is found."""
    same = Estimate(0.8, (0.7, 0.9))
    counts = dict.fromkeys(STAGES, 0) | stages
    counts["found"] = 100 - sum(stages.values())
    lost = tuple(
        LostDocument("q", f"{stage}-{n}", 1, stage, 30, 30, None, None, None, n < 2, "")
        for stage, count in stages.items()
        for n in range(count)
    )
    report = LossReport(
        system="two-stage",
        places=10,
        candidates=100,
        depth=20,
        queries=50,
        relevant=100,
        stages=counts,
        everything=1.0,
        ideal=same,
        ideal_read=same,
        reached=same,
        first_stage=same,
        lost_fetching=Estimate(0.05, (0.02, 0.08)),
        lost_reading=Estimate(0.03, (0.02, 0.04)),
        lost_ordering=Estimate(0.12, (0.1, 0.14)),
        gain=Estimate(0.04, (0.01, 0.07)),
        exact_gain=None,
        bottleneck="second stage",
        arms=(ArmShare("dense", 80, 5, 3, 1, 0), ArmShare("bm25", 85, 10, 1, 0, 4)),
        with_more={200: 0, 500: 0, 1000: 0},
        lifted_in=9,
        pushed_out=3,
        reasons={},
        lost=lost,
    )
    return replace(report, **changes)


def advise(report: LossReport, *, adapted: bool = False, quantization: Quantization | None = None) -> str:
    table = Table({})
    manifest = new_manifest(Config(), table.fingerprint, {}, generation=1)
    if adapted:
        manifest = replace(manifest, adapted_from=table.fingerprint)
    return "\n".join(advice_of(report, Config(), manifest, quantization or Quantization()))


def test_no_advice_where_little_is_lost() -> None:
    order_is_fine = {"lost_ordering": Estimate(0.01, (0.0, 0.02))}
    assert advise(report_with({}, **order_is_fine)) == ""
    two_each: dict[Stage, int] = {"encoder and BM25": 2, "rerank depth": 2, "passage window": 2}
    assert advise(report_with(two_each, **order_is_fine)) == ""


def test_advice_about_the_first_stage() -> None:
    missed: dict[Stage, int] = {"encoder and BM25": 5, "fusion cut": 3}
    told = advise(report_with(missed, with_more={200: 1, 500: 4, 1000: 6}))
    assert "Adapt the encoder ('retrieval adapt'): both arms missed 5 relevant documents, 4 of which share no" in told
    assert "Raise first_stage.candidates above 100: of 8 relevant documents" in told
    assert "1 with 200, 4 with 500, 6 with 1,000" in told
    assert "('retrieval train')" in advise(report_with(missed), adapted=True)
    assert "More candidates hardly help: of 8 relevant documents" in advise(report_with(missed))
    absent = advise(report_with({"not ingested": 1}, reasons={"it is empty": 1}))
    assert "Not in the index: 1 relevant document (1: it is empty)" in absent


def test_advice_about_compression() -> None:
    binary = Quantization("binary", 1, rescore=False)
    costs = {"exact_gain": Estimate(0.03, (0.01, 0.05))}
    told = advise(report_with({"quantization": 6, "approximate search": 1}, **costs), quantization=binary)
    assert "cost the first stage +0.030 (95 % +0.010 to +0.050) nDCG@10" in told
    assert "lost 6 and the graph lost 1" in told
    assert "raise quantization.oversampling" in told
    nothing = {"exact_gain": Estimate(0.001, (-0.01, 0.01))}
    assert "exact search" not in advise(report_with({"quantization": 1}, **nothing), quantization=binary)


def test_advice_about_reading() -> None:
    assert (
        "Raise rerank.depth above 20, or set rerank.early_stop to exact instead of 0.15: of 8 relevant documents"
    ) in advise(report_with({"rerank depth": 8}))
    assert "would lift up to 2 into" in advise(report_with({"rerank depth": 8}))
    assert "lift at most 2 into the top 10" in advise(report_with({"rerank depth": 9}))
    assert "Reading further hardly helps" in advise(report_with({"rerank depth": 9}))
    assert "rerank.window_words above 90: up to 4 relevant documents" in advise(report_with({"passage window": 4}))


def test_advice_about_the_reranker() -> None:
    hurts = advise(report_with({}, gain=Estimate(-0.03, (-0.05, -0.01)), lifted_in=1))
    assert "The reranker hurts here: -0.030 (95 % -0.050 to -0.010) nDCG@10 against hybrid alone" in hurts
    assert "brought 1 relevant document into the top 10 and pushed 3 out" in hurts
    assert "raise rerank.first_stage_weight above 0.4, lower rerank.depth below 20" in hurts
    unclear = advise(report_with({}, gain=Estimate(0.01, (-0.01, 0.03))))
    assert "not distinguishable with 50 queries: +0.010 (95 % -0.010 to +0.030)" in unclear
    assert "hurts" not in unclear
    assert "a stronger one" in advise(report_with({"cross-encoder": 8}))


def test_the_verdict() -> None:
    assert verdict(report_with({})) == (
        "The second stage is the bottleneck: the first stage loses 0.050 nDCG@10, the second 0.150 (0.030 by not "
        "reading, 0.120 by its order)."
    )
    assert "not distinguishable with 50 queries" in verdict(report_with({}, bottleneck="open"))
    assert verdict(report_with({}, bottleneck="none")).startswith("Nothing is lost")
    assert verdict(report_with({}, relevant=0)).startswith("No document is judged relevant")
    assert "reranker" not in advise(report_with({}, bottleneck="none", gain=Estimate(0.0, (0.0, 0.0))))
