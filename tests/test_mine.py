"""Hard negatives from a corpus small enough to know which ones they must be."""

from __future__ import annotations

import gzip
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines import TwoStagePipeline
from pipelines.cli import app
from pipelines.mine import MineProgress, Progress, mine_lists
from pipelines.mined_lists import MinedLists
from pipelines.pair_files import PairFiles
from pipelines.render.mine import duration, estimate, mine_progress
from retrieval.config import Config, MemoryStoreConfig, parse_config
from retrieval.encoders import Bm25Encoder, StaticEncoder
from retrieval.errors import ConfigError, DocumentError, StoreBusyError, StoreError
from retrieval.models import open_encoder
from retrieval.rerankers import open_reranker
from retrieval.stores.memory import MemoryStore
from retrieval.training.known import KnownPositives, shared_runs
from retrieval.training.mine import MineCounts, Miner, MineSettings
from retrieval.training.pairs import Pair
from retrieval.training.reranker.lists import RankingList, read_lists
from tests.pair_graphs import write_shared_words

QUERY = "copper pipe leak"
POSITIVE = "copper pipe leak plumber solder joint torch flux"
# The cross-encoder counts the words that query and text share: 3 for the positive and for the passage that answers too.
FALSE_NEGATIVE = "copper pipe leak basement drain valve pressure gauge"
HARD = "copper pipe bathroom shower faucet wrench sealant tape"
SOFT = "copper roof gutter rain ladder nail hammer timber"
FAR = "bright star galaxy telescope mirror dome camera lens"
ALSO_KNOWN = "copper pipe leak gasket washer rubber clamp ring"
NEAR = "plumber solder joint torch flux copper pipe leak"
CORPUS = (POSITIVE, FALSE_NEGATIVE, HARD, SOFT, FAR)
PAIR = Pair(QUERY, POSITIVE)


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The bundled encoder, and a cross-encoder whose logits can be counted."""
    folder = write_shared_words(tmp_path_factory.mktemp("shared-words"), name="shared-words")
    return parse_config({"rerank": {"model": str(folder), "threads": 1}})


def numbered(texts: Sequence[str]) -> list[tuple[str, str]]:
    return [(f"text-{number}", text) for number, text in enumerate(texts)]


@pytest.fixture(scope="session")
def encoder() -> StaticEncoder:
    return open_encoder(Config().encoder)


@dataclass(frozen=True)
class Bench:
    """Mines a corpus in memory."""

    encoder: StaticEncoder
    config: Config

    def mine(
        self,
        corpus: Sequence[str],
        pair: Pair = PAIR,
        *,
        known: Sequence[Pair] = (),
        rerank: bool = True,
        **settings: Any,
    ) -> tuple[RankingList, MineCounts]:
        lists, counts = self.mine_all(corpus, [pair], known=known, rerank=rerank, **settings)
        return (*lists, RankingList(pair.query, pair.positive, ()))[0], counts

    def mine_all(
        self, corpus: Sequence[str], pairs: Sequence[Pair], *, known: Sequence[Pair], rerank: bool, **settings: Any
    ) -> tuple[list[RankingList], MineCounts]:
        store = MemoryStore(dim=self.encoder.dim)
        sparse = Bm25Encoder(self.config.bm25)
        memory = self.config.model_copy(update={"store": MemoryStoreConfig()})
        answers = KnownPositives()
        for pair in (*pairs, *known):
            answers.add(pair)
        reranker = open_reranker(self.config.rerank)
        with TwoStagePipeline(
            memory, encoder=self.encoder, sparse=sparse, store=store, open_reranker=lambda: reranker
        ) as pipeline:
            pipeline.ingest(numbered(corpus))
            miner = Miner(store, self.encoder, sparse, answers, reranker if rerank else None, MineSettings(**settings))
            return miner.mine(pairs)


@pytest.fixture
def bench(encoder: StaticEncoder, config: Config) -> Bench:
    return Bench(encoder, config)


class TestChoice:
    def test_the_margin_drops_the_false_negative_and_keeps_the_hard_ones(self, bench: Bench) -> None:
        found, counts = bench.mine(CORPUS)
        # 95 % of the probability of 3 is .905, the logit 2.25: 3 is dropped and 2 kept.
        assert found == RankingList(QUERY, POSITIVE, (HARD, SOFT, FAR), "", (3.0, 2.0, 1.0, 0.0))
        assert counts == MineCounts(queries=1, lists=1, negatives=3, known=1, dropped=1, read=5)

    def test_without_the_cross_encoder_the_false_negative_stays_and_there_are_no_scores(self, bench: Bench) -> None:
        found, counts = bench.mine(CORPUS, rerank=False)
        assert set(found.negatives) == {FALSE_NEGATIVE, HARD, SOFT, FAR}
        assert found.scores == ()
        assert counts == MineCounts(queries=1, lists=1, negatives=4, known=1)

    @pytest.mark.parametrize(
        ("margin", "kept"), [(0.0, (FALSE_NEGATIVE, HARD, SOFT, FAR)), (1.0, (HARD, SOFT, FAR)), (1.5, (SOFT, FAR))]
    )
    def test_an_absolute_margin_is_a_distance_of_logits(
        self, bench: Bench, margin: float, kept: tuple[str, ...]
    ) -> None:
        assert bench.mine(CORPUS, margin=margin, margin_kind="absolute")[0].negatives == kept

    def test_known_positives_near_duplicates_and_answers_are_left_out(self, bench: Bench) -> None:
        corpus = [POSITIVE.upper(), ALSO_KNOWN, NEAR, HARD, SOFT, FAR]
        pair, known = Pair(QUERY, POSITIVE, answer="faucet"), [Pair(QUERY.title(), ALSO_KNOWN)]
        found, counts = bench.mine(corpus, pair, known=known, rerank=False)
        assert set(found.negatives) == {SOFT, FAR}
        assert counts == MineCounts(queries=1, lists=1, negatives=2, known=2, near=1, answered=1)

    def test_a_part_of_the_positive_is_no_negative(self, bench: Bench) -> None:
        beginning, other = " ".join(POSITIVE.split()[:5]), "copper pipe leak joint plumber"
        found, counts = bench.mine([beginning, other, SOFT], near_duplicate=1.0, rerank=False)
        assert set(found.negatives) == {other, SOFT}
        assert counts.near == 1

    def test_documents_that_a_pair_names_are_left_out_with_all_their_passages(self, bench: Bench) -> None:
        pair = Pair(QUERY, "not in the index", documents=("text-1", "text-5"))
        found, counts = bench.mine([*CORPUS, ALSO_KNOWN], pair, rerank=False)
        assert set(found.negatives) == {POSITIVE, HARD, SOFT, FAR}
        assert counts.known == 2

    def test_a_pairs_own_negatives_come_along_and_are_judged_as_well(self, bench: Bench) -> None:
        own = Pair("night", "night bread", ("night star night star", "", "star bread copper", " "))
        found, _ = bench.mine(["night bread", SOFT], own, given=4)
        # The first own negative shares "night" twice, the positive once: it looks like an answer.
        assert found.negatives == ("star bread copper", SOFT)
        assert found.scores == (1.0, 0.0, 0.0)

    def test_it_reads_no_more_than_it_needs(self, bench: Bench) -> None:
        corpus = [f"copper word{number} roof{number} rain{number}" for number in range(40)]
        _, counts = bench.mine(corpus, negatives=3)
        assert (counts.negatives, counts.read) == (3, 4)

    def test_it_gives_up_where_everything_looks_like_an_answer(self, bench: Bench) -> None:
        corpus = [f"copper pipe leak a{number} b{number} c{number}" for number in range(60)]
        found, counts = bench.mine(corpus, negatives=4)
        assert found.negatives == ()
        assert (counts.lists, counts.dropped, counts.read) == (0, 12, 13)

    def test_long_passages_are_cut_to_the_window_that_is_scored(self, bench: Bench) -> None:
        long = "valve gauge drain " * 8 + "copper pipe faucet wrench " + "rain timber nail " * 8
        found, _ = bench.mine([long], window_words=8)
        (window,) = found.negatives
        assert len(window.split()) == 8
        assert {"copper", "pipe"} <= set(window.split())
        assert found.scores == (3.0, 2.0)

    def test_never_a_known_positive_among_many(self, bench: Bench) -> None:
        words = ("pump", "valve", "gear", "wheel", "motor", "cable", "screw")
        pairs = [
            Pair(f"{one} {other}", f"{one} {other} text{copy} for{copy} these{copy}")
            for one in words
            for other in words
            for copy in range(3)
            if one < other
        ]
        positives: dict[str, set[str]] = {}
        for pair in pairs:
            positives.setdefault(pair.query, set()).add(pair.positive)
        lists, counts = bench.mine_all([pair.positive for pair in pairs], pairs, known=(), rerank=False)
        assert len(lists) == len(pairs) == 63
        assert counts.known >= 63
        for item in lists:
            assert len(item.negatives) == len(set(item.negatives)) == 7
            assert not positives[item.query] & set(item.negatives)


def test_progress_within_a_batch_only_grows(bench: Bench) -> None:
    store, told = MemoryStore(dim=bench.encoder.dim), []
    sparse, known = Bm25Encoder(bench.config.bm25), KnownPositives()
    pairs = [Pair(QUERY, POSITIVE, negatives=(HARD, SOFT, FAR))] * 4
    reranker = open_reranker(bench.config.rerank)
    miner = Miner(store, bench.encoder, sparse, known, reranker, MineSettings(negatives=3, given=3))
    miner.mine(pairs, on_list=told.append)
    assert told == [1, 2, 3, 4]


class TestParts:
    def test_the_ceiling_by_hand(self) -> None:
        # sigmoid(0) is a half, 80 % of it .4, and logit(.4) is ln(2/3).
        assert MineSettings(margin=0.8).ceiling(0.0) == pytest.approx(math.log(2 / 3))
        assert MineSettings(margin=1.0).ceiling(2.5) == pytest.approx(2.5)
        assert MineSettings(margin=2.0, margin_kind="absolute").ceiling(-1.0) == -3.0
        for extreme in (-5000.0, 5000.0):
            assert not math.isnan(MineSettings().ceiling(extreme))
        assert MineSettings().ceiling(-800.0) < -600.0

    @pytest.mark.parametrize(
        ("first", "second", "share"),
        [
            ("a b c d e f", "a b c d e f", 1.0),
            ("a b c d e f", "x A B C D E y", 1 / 2),
            ("b c", "a b c d e f", 1.0),
            ("b d", "a b c d e f", 0.0),
            ("", "a", 0.0),
        ],
    )
    def test_shared_runs_by_hand(self, first: str, second: str, share: float) -> None:
        assert shared_runs(first, second) == pytest.approx(share)
        assert shared_runs(second, first) == pytest.approx(share)

    def test_known_positives_go_by_words_and_by_document(self) -> None:
        known = KnownPositives()
        known.add(Pair("Who?", "The  Queen", documents=("doc-1",)))
        known.add(Pair("who?", "the king"))
        assert known.answers("WHO?", "the queen")
        assert known.answers("who?", "The\nKing")
        assert known.answers("who?", "another text", "doc-1")
        assert not known.answers("who?", "doc-1")
        assert not known.answers("why?", "the queen", "doc-1")
        assert not known.answers("who?", "another text", "")

    @pytest.mark.parametrize(
        "wrong",
        [
            {"negatives": 0},
            {"depth": 0},
            {"given": -1},
            {"batch_size": 0},
            {"margin": 0.0},
            {"margin": 1.2},
            {"margin": math.nan},
            {"margin": math.inf, "margin_kind": "absolute"},
            {"margin_kind": "other"},
        ],
    )
    def test_settings_out_of_range_are_refused(self, wrong: Mapping[str, object]) -> None:
        with pytest.raises(ValueError, match=str(next(iter(wrong)))):
            MineSettings(**wrong)  # type: ignore[arg-type]

    def test_where_nobody_watches_a_long_run_is_announced_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        with mine_progress(quiet=False) as show:
            assert show is not None
            for done in range(0, 1000, 50):
                show(MineProgress("mining", done, 1000, 400, 7200.0 if done else None, 5400.0))
        said = capsys.readouterr().err
        assert said.count("about 2 h 00 min, 1 h 30 min of them in the cross-encoder") == 1
        with mine_progress(quiet=False) as show:
            assert show is not None
            for done in range(0, 1000, 50):
                show(MineProgress("mining", done, 1000, 0, 20.0, 0.0))
        assert capsys.readouterr().err == ""

    def test_durations_as_people_say_them(self) -> None:
        assert [duration(seconds) for seconds in (0.4, 59, 60, 3599, 11_100)] == [
            *("0 s", "59 s", "1 min", "1 h 00 min", "3 h 05 min"),
        ]
        assert estimate(7200, 0) == "about 2 h 00 min"
        assert "2 h 00 min, 1 h 30 min of them in the cross-encoder (--no-rerank" in estimate(7200, 5400)


# Two of six words that the cross-encoder counts: some passages share both with a query, some one, some none.
TOPICS = list(itertools.combinations(("copper", "pipe", "leak", "star", "night", "bread"), 2))
PAIRS = [
    {"query": f"{one} {other} part{number}", "positive": f"{one} {other} text{number} valve{number} part{number}"}
    for number, (one, other) in enumerate((TOPICS * 3)[:40])
]
KILLED = """
import os, signal, sys
from pathlib import Path
from pipelines.mine import mine_lists
from pipelines.pair_files import PairFiles
from retrieval.config import parse_config
from retrieval.training.mine import MineCounts, Miner, MineSettings

pairs, out, model, stage, after = sys.argv[1:]

def stop(progress):
    if progress.stage == stage and progress.done >= int(after):
        os.kill(os.getpid(), signal.SIGKILL)

config = parse_config({"rerank": {"model": model, "threads": 1}})
mine_lists(PairFiles([pairs]), out, config, settings=MineSettings(batch_size=8), on_progress=stop)
"""


@pytest.fixture
def pair_file(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PAIRS), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the passages of `PAIRS`, for tests that need none of their own."""
    folder = tmp_path_factory.mktemp("pairs") / "index"
    with TwoStagePipeline.open(folder) as pipeline:
        pipeline.ingest(numbered([row["positive"] for row in PAIRS]))
    return folder


class TestResume:
    settings = MineSettings(batch_size=8)

    def run(self, pairs: Path, out: Path, config: Config, **arguments: object) -> bytes:
        chosen: dict[str, Any] = {"settings": self.settings, **arguments}
        mine_lists(PairFiles([pairs]), out, config, **chosen)
        return out.read_bytes()

    @pytest.mark.skipif(os.name != "posix", reason="SIGKILL is a signal of POSIX systems")
    @pytest.mark.parametrize(("stage", "after"), [("mining", 20), ("indexing", 1)])
    def test_a_killed_run_goes_on_and_ends_with_the_same_file(
        self, tmp_path: Path, config: Config, pair_file: Path, stage: str, after: int
    ) -> None:
        expected = self.run(pair_file, tmp_path / "whole.jsonl.gz", config)
        out, folder = tmp_path / "l.jsonl.gz", tmp_path / "l.jsonl.gz.mining"
        arguments = [str(pair_file), str(out), config.rerank.model, stage, str(after)]
        done = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not out.exists()
        if stage == "mining":
            # What a kill in the middle of a write leaves behind the last record.
            with (folder / "lists.jsonl.gz").open("ab") as file:
                file.write(expected[:100])
        report = mine_lists(PairFiles([pair_file]), out, config, settings=self.settings)
        assert report.resumed == (16 if stage == "mining" else 0)
        assert report.counts.queries == 40
        assert out.read_bytes() == expected
        assert not folder.exists()

    def test_the_same_seed_gives_the_same_file_and_another_seed_another(
        self, tmp_path: Path, config: Config, pair_file: Path, index: Path
    ) -> None:
        first = self.run(pair_file, tmp_path / "a.jsonl.gz", config, index=index, rerank=False)
        assert first == self.run(pair_file, tmp_path / "b.jsonl.gz", config, index=index, rerank=False)
        other = MineSettings(batch_size=8, seed=1)
        self.run(pair_file, tmp_path / "c.jsonl.gz", config, index=index, rerank=False, settings=other)
        assert read_lists(tmp_path / "c.jsonl.gz") != read_lists(tmp_path / "a.jsonl.gz")

    def stop_after(self, done: int) -> Progress:
        def stop(progress: MineProgress) -> None:
            if progress.stage == "mining" and progress.done >= done:
                raise KeyboardInterrupt

        return stop

    def test_an_unfinished_run_is_not_gone_on_with_under_other_conditions(
        self, tmp_path: Path, config: Config, pair_file: Path, index: Path
    ) -> None:
        out = tmp_path / "l.jsonl.gz"
        with pytest.raises(KeyboardInterrupt):
            self.run(pair_file, out, config, index=index, rerank=False, on_progress=self.stop_after(16))
        with pytest.raises(ConfigError, match=r"another reranker \(None, now shared-words\).*--overwrite"):
            self.run(pair_file, out, config, index=index)
        with pytest.raises(ConfigError, match="another depth"):
            self.run(pair_file, out, config, index=index, rerank=False, settings=MineSettings(depth=9))
        whole = pair_file.read_text()
        pair_file.write_text(whole.replace("valve39", "valve40"))
        with pytest.raises(ConfigError, match="another pairs"):
            self.run(pair_file, out, config, index=index, rerank=False)
        pair_file.write_text(whole)
        self.run(pair_file, out, config, index=index, overwrite=True)
        assert len(read_lists(out)) == 40

    def test_documents_of_two_corpora_never_meet_in_one_index(self, tmp_path: Path, config: Config) -> None:
        def stop(progress: MineProgress) -> None:
            if progress.stage == "indexing":
                raise KeyboardInterrupt

        one, other = tmp_path / "one.txt", tmp_path / "other.txt"
        one.write_text(HARD, encoding="utf-8")
        other.write_text(SOFT, encoding="utf-8")
        out = tmp_path / "l.jsonl.gz"
        with pytest.raises(KeyboardInterrupt):
            mine_lists([PAIR], out, config, corpus=one, on_progress=stop)
        with pytest.raises(ConfigError, match=r"another candidates \(.*one\.txt, now .*other\.txt\)"):
            mine_lists([PAIR], out, config, corpus=other)
        mine_lists([PAIR], out, config, corpus=one)
        assert [item.negatives for item in read_lists(out)] == [(HARD,)]

    def test_an_index_that_has_changed_is_noticed(
        self, tmp_path: Path, config: Config, pair_file: Path, index: Path
    ) -> None:
        out, copy = tmp_path / "l.jsonl.gz", Path(shutil.copytree(index, tmp_path / "index"))
        with pytest.raises(KeyboardInterrupt):
            self.run(pair_file, out, config, index=copy, rerank=False, on_progress=self.stop_after(16))
        with TwoStagePipeline.open(copy) as pipeline:
            pipeline.ingest([("one-more", HARD)])
        with pytest.raises(ConfigError, match="another contents"):
            self.run(pair_file, out, config, index=copy, rerank=False)
        anew = self.run(pair_file, out, config, index=copy, rerank=False, overwrite=True)
        assert anew == self.run(pair_file, tmp_path / "anew.jsonl.gz", config, index=copy, rerank=False)

    def test_a_run_that_replaces_a_file_is_gone_on_with_as_well(
        self, tmp_path: Path, config: Config, pair_file: Path, index: Path
    ) -> None:
        out = tmp_path / "l.jsonl.gz"
        out.write_bytes(b"of no use any more")
        arguments: dict[str, Any] = {"index": index, "rerank": False, "overwrite": True, "settings": self.settings}
        with pytest.raises(KeyboardInterrupt):
            mine_lists(PairFiles([pair_file]), out, config, on_progress=self.stop_after(16), **arguments)
        assert not out.exists()
        assert mine_lists(PairFiles([pair_file]), out, config, **arguments).resumed == 16

    def test_damaged_leftovers_are_named(self, tmp_path: Path, config: Config, pair_file: Path, index: Path) -> None:
        out, folder = tmp_path / "l.jsonl.gz", tmp_path / "l.jsonl.gz.mining"
        with pytest.raises(KeyboardInterrupt):
            self.run(pair_file, out, config, index=index, rerank=False, on_progress=self.stop_after(16))
        lists = (folder / "lists.jsonl.gz").read_bytes()
        (folder / "lists.jsonl.gz").write_bytes(lists[:-1])
        with pytest.raises(DocumentError, match=r"lists\.jsonl\.gz has \d+ bytes of \d+; start again with --overwrite"):
            self.run(pair_file, out, config, index=index, rerank=False)
        self.run(pair_file, out, config, index=index, rerank=False, overwrite=True)
        with pytest.raises(KeyboardInterrupt):
            self.run(pair_file, out, config, index=index, rerank=False, overwrite=True, on_progress=self.stop_after(16))
        (folder / "state.json").write_text('{"queries": "many"}')
        with pytest.raises(DocumentError, match=r"state\.json is damaged"):
            self.run(pair_file, out, config, index=index, rerank=False)
        self.run(pair_file, out, config, index=index, rerank=False, overwrite=True)
        assert len(read_lists(out)) == 40

    def test_two_at_a_time_are_refused(self, tmp_path: Path, config: Config, pair_file: Path, index: Path) -> None:
        out = tmp_path / "l.jsonl.gz"

        def second(progress: MineProgress) -> None:
            with pytest.raises(StoreBusyError, match="another process is mining into"):
                self.run(pair_file, out, config, index=index, rerank=False)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.run(pair_file, out, config, index=index, rerank=False, on_progress=second)


@pytest.mark.skipif(os.name != "posix", reason="limits of files are set by POSIX calls")
def test_a_disk_that_fills_loses_nothing_that_was_recorded(tmp_path: Path) -> None:
    import resource

    out, first = tmp_path / "l.jsonl.gz", RankingList("q1", "p1", ("n1",))
    rng = np.random.default_rng(0)
    big = RankingList("q2", "".join(chr(97 + letter) for letter in rng.integers(0, 26, 50_000)), ("n2",))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with MinedLists(out) as lists:
        lists.begin({"seed": 0})
        lists.append([first], MineCounts(queries=1, lists=1, negatives=1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        try:
            with pytest.raises(StoreError, match=r"cannot write into .*nothing that was recorded is lost"):
                lists.append([big], MineCounts(queries=1, lists=1, negatives=1))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with MinedLists(out) as lists:
        lists.begin({"seed": 0})
        assert (lists.queries, lists.counts.negatives) == (1, 1)
        lists.append([big], MineCounts(queries=1, lists=1, negatives=1))
        lists.finish()
    assert read_lists(out) == [first, big]
    assert lists.counts == MineCounts(queries=2, lists=2, negatives=2)


def cli(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "80"})
    return result.exit_code, result.stdout, result.stderr


class TestCommand:
    def options(self, config: Config) -> list[object]:
        return ["--set", f"rerank.model={config.rerank.model}", "--set", "rerank.threads=1"]

    def test_writes_lists_and_reports(self, tmp_path: Path, config: Config, pair_file: Path) -> None:
        out = tmp_path / "l.jsonl.gz"
        code, shown, err = cli("mine", pair_file, "--out", out, "--negatives", 3, "--json", *self.options(config))
        assert (code, err) == (0, "")
        report = json.loads(shown)
        assert report["counts"]["queries"] == report["counts"]["lists"] == report["passages"] == 40
        lists = read_lists(out)
        assert [item.query for item in lists] == [row["query"] for row in PAIRS]
        assert all(item.scores[0] == 2.0 > max(item.scores[1:]) for item in lists)
        assert all(len(item.negatives) == 3 and len(item.scores) == 4 for item in lists)
        assert report["counts"]["negatives"] == 120
        assert sorted(path.name for path in tmp_path.iterdir()) == ["l.jsonl.gz", "pairs.jsonl"]

    def test_says_what_it_did_in_eighty_columns(self, tmp_path: Path, config: Config, pair_file: Path) -> None:
        code, shown, _ = cli("mine", pair_file, "--out", tmp_path / "l.jsonl.gz", *self.options(config))
        assert code == 0
        assert "40 lists with" in " ".join(shown.split())
        assert "shared-words scores them as answers" in " ".join(shown.split())
        assert all(len(line) <= 80 for line in shown.splitlines())

    def test_shows_how_far_it_is_on_a_terminal(self, tmp_path: Path, pair_file: Path, index: Path) -> None:
        arguments = ["mine", pair_file, "--index", index, "--no-rerank", "--out"]
        command = [*map(str, arguments), str(tmp_path / "l.jsonl.gz")]
        done = CliRunner().invoke(app, command, env={"COLUMNS": "80", "FORCE_COLOR": "1", "TERM": "xterm"})
        assert "40 of 40" in done.stderr
        quiet = CliRunner().invoke(app, [*command, "--overwrite", "--quiet"], env={"FORCE_COLOR": "1", "TERM": "xterm"})
        assert (quiet.exit_code, quiet.stderr) == (0, "")

    def test_takes_a_corpus_an_index_but_not_both(self, tmp_path: Path, config: Config, pair_file: Path) -> None:
        texts = tmp_path / "texts"
        texts.mkdir()
        for number, text in enumerate((FALSE_NEGATIVE, HARD)):
            (texts / f"{number}.txt").write_text(text, encoding="utf-8")
        code, _, err = cli("mine", pair_file, "--corpus", texts, "--out", tmp_path / "a.jsonl.gz", "--no-rerank")
        assert code == 0, err
        index = tmp_path / "index"
        assert cli("ingest", texts, "--index", index)[0] == 0
        code, _, err = cli("mine", pair_file, "--index", index, "--out", tmp_path / "b.jsonl.gz", "--no-rerank")
        assert code == 0, err
        for name in ("a", "b"):
            assert {frozenset(item.negatives) for item in read_lists(tmp_path / f"{name}.jsonl.gz")} == {
                frozenset((FALSE_NEGATIVE, HARD))
            }
        code, _, err = cli("mine", pair_file, "--index", index, "--corpus", texts, "--out", tmp_path / "c.jsonl.gz")
        assert (code, "not from both" in err) == (2, True)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b'{"query": "a", "positive": "b"}\nno json\n', r"pairs\.jsonl:2: not JSON"),
            (b'{"query": "a", "positive": "b"}\n\n{"query": "a"}\n', r"pairs\.jsonl:3: a pair needs"),
            (b'{"query": "a", "positive": "b", "negatives": "c"}\n', r"pairs\.jsonl:1: 'negatives' is a list"),
            (b'{"query": "a", "positive": "b", "documents": [1]}\n', r"pairs\.jsonl:1: 'documents' is a list"),
            (b'{"query": "a", "positive": "b"}\n{"query": "\xff"}\n', r"pairs\.jsonl:2"),
            (b"[1]\n", r"pairs\.jsonl:1: a pair is a JSON object, not list"),
            (b"", "there are no pairs"),
        ],
    )
    def test_bad_pairs_are_named_with_file_and_line(self, tmp_path: Path, content: bytes, message: str) -> None:
        path = tmp_path / "pairs.jsonl"
        path.write_bytes(content)
        with pytest.raises(DocumentError, match=message):
            mine_lists(PairFiles([path]), tmp_path / "l.jsonl.gz", rerank=False)
        code, _, err = cli("mine", path, "--out", tmp_path / "l.jsonl.gz", "--no-rerank")
        assert code == 1
        assert err.startswith("error: ")
        assert "Traceback" not in err

    def test_other_formats_are_read_and_their_bad_rows_named(self, tmp_path: Path) -> None:
        path = tmp_path / "pairs.csv"
        path.write_text(f"query,positive\n{QUERY},{POSITIVE}\nnight,{FAR}\n", encoding="utf-8")
        assert [pair.positive for pair in PairFiles([tmp_path])] == [POSITIVE, FAR]
        path.write_text(f"query,positive\n{QUERY},{POSITIVE}\n,{FAR}\n", encoding="utf-8")
        with pytest.raises(DocumentError, match=r"pairs\.csv:3: column 'query' is empty"):
            list(PairFiles([path]))

    def test_cut_archives_and_missing_files_are_errors(self, tmp_path: Path) -> None:
        path = tmp_path / "pairs.jsonl.gz"
        path.write_bytes(gzip.compress(b'{"query": "a", "positive": "b"}\n' * 1000)[:-20])
        for place in (path, tmp_path / "absent.jsonl"):
            with pytest.raises(DocumentError, match=place.name):
                list(PairFiles([place]))
        (tmp_path / "empty").mkdir()
        with pytest.raises(DocumentError, match="holds no file of pairs"):
            list(PairFiles([tmp_path / "empty"]))

    def test_the_output_is_not_replaced_by_accident(self, tmp_path: Path, pair_file: Path) -> None:
        out = tmp_path / "l.jsonl.gz"
        out.write_bytes(b"precious")
        code, _, err = cli("mine", pair_file, "--out", out, "--no-rerank")
        assert (code, "exists already" in err, out.read_bytes()) == (2, True, b"precious")
        assert not (tmp_path / "l.jsonl.gz.mining").exists()
        assert cli("mine", pair_file, "--out", out, "--no-rerank", "--overwrite")[0] == 0
        assert len(read_lists(out)) == 40
        pair_file.write_text("no pair\n", encoding="utf-8")
        assert cli("mine", pair_file, "--out", out, "--no-rerank", "--overwrite")[0] == 1
        assert len(read_lists(out)) == 40
        code, _, err = cli("mine", pair_file, "--out", tmp_path / "lists.txt", "--no-rerank")
        assert (code, "NAME.jsonl.gz" in err) == (2, True)
        code, _, err = cli("mine", pair_file, "--index", tmp_path / "none", "--out", tmp_path / "x.jsonl.gz")
        assert (code, "there is no index" in err) == (1, True)

    def test_pairs_that_can_be_read_only_once_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(TypeError, match="read more than once"):
            mine_lists(iter([PAIR]), tmp_path / "l.jsonl.gz")
