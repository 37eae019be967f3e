"""Which settings are tried and chosen, on numbers made by hand, and the file that is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipelines.tuning.choosing import Limits, Scored, cheaper, distinguishable, explore, folds, frontier, select
from pipelines.tuning.judging import hits_of, likeness
from pipelines.tuning.report import TunePoint, TuneReport
from pipelines.tuning.settings import Change, Fusion, Grid, Setting, Variant, changes, config_with
from pipelines.tuning.verdict import Case, decide
from pipelines.tuning.written import tuned_config, tuned_yaml, write_new
from retrieval.config import Config, load_config, parse_config
from retrieval.datatypes import Quantization, Results
from retrieval.evaluation import compare

TURBO = Quantization("turbo", 2)
PRESENT = Setting(Variant(256, Quantization()), Fusion("hybrid", "minmax", 0.4), 20, 0.4)
MANY = 40
ROWS = np.arange(MANY)
LIMITS = Limits(passages=1_000_000)


def scored(setting: Setting, quality: float, ms: float, size: float = 1_000, spread: float = 0.0) -> Scored:
    """The same quality for all queries, or by turns a spread above and below."""
    signs = np.where(np.arange(MANY) % 2, 1.0, -1.0)
    return Scored(setting, quality + spread * signs, np.full(MANY, ms), size, 0.0)


def test_what_is_as_good_and_cheaper_is_chosen() -> None:
    present = scored(PRESENT, 0.5, 300)
    shallow = scored(replace(PRESENT, depth=5), 0.499, 100, spread=0.2)
    off = scored(replace(PRESENT, depth=0), 0.4, 5)
    # 0.001 less, which the queries do not show; 0.1 less on every query, which they do.
    assert select([present, off, shallow], ROWS, LIMITS) is shallow
    assert not distinguishable(present, shallow, ROWS)
    assert distinguishable(present, off, ROWS)
    # Not shown either, and yet more than may be lost.
    shaky = scored(replace(PRESENT, depth=5), 0.48, 100, spread=0.4)
    assert not distinguishable(present, shaky, ROWS)
    assert select([present, shaky], ROWS, LIMITS) is present
    assert select([present, shaky], ROWS, replace(LIMITS, max_loss=0.03)) is shaky


def test_what_is_better_may_cost_more_only_when_it_shows() -> None:
    present = scored(PRESENT, 0.5, 100)
    better = scored(replace(PRESENT, depth=40), 0.55, 200)
    by_chance = scored(replace(PRESENT, depth=40), 0.55, 200, spread=0.5)
    assert select([present, better], ROWS, LIMITS) is better
    assert select([present, by_chance], ROWS, LIMITS) is present
    assert select([present, better], ROWS, replace(LIMITS, no_dearer=True)) is present


def test_small_savings_are_not_worth_a_change() -> None:
    present = scored(PRESENT, 0.5, 100, 1_000)
    compressed = scored(replace(PRESENT, variant=Variant(256, TURBO)), 0.5, 98, 900)
    # 100 bytes of a million passages are 95 MiB, of ten thousand 1 MiB.
    assert select([present, compressed], ROWS, LIMITS) is compressed
    assert select([present, compressed], ROWS, replace(LIMITS, passages=10_000)) is present
    assert cheaper(compressed, present, ROWS, LIMITS)
    assert not cheaper(compressed, present, ROWS, replace(LIMITS, passages=10_000))
    slower = scored(compressed.setting, 0.5, 150, 900)
    assert not cheaper(slower, present, ROWS, LIMITS)
    two = scored(replace(PRESENT, depth=10, first_stage_weight=0.6), 0.5, 50)
    one = scored(replace(PRESENT, depth=10), 0.5, 51)
    assert select([present, two, one], ROWS, LIMITS) is one


def test_limits_come_first() -> None:
    present = scored(PRESENT, 0.6, 300, 1_000)
    fast = scored(replace(PRESENT, depth=5), 0.4, 90, 1_000)
    faster = scored(replace(PRESENT, depth=0), 0.3, 5, 100)
    everything = [present, fast, faster]
    assert select(everything, ROWS, replace(LIMITS, latency_ms=100)) is fast
    assert select(everything, ROWS, replace(LIMITS, max_bytes=500)) is faster
    # Nothing is that fast: what exceeds the limit least.
    assert select(everything, ROWS, replace(LIMITS, latency_ms=1)) is faster


def test_each_query_is_held_out_once() -> None:
    parts = folds(11, 4, seed=3)
    assert sorted(len(part) for part in parts) == [2, 3, 3, 3]
    assert sorted(np.concatenate(parts).tolist()) == list(range(11))
    assert [part.tolist() for part in parts] == [part.tolist() for part in folds(11, 4, seed=3)]
    assert [part.tolist() for part in parts] != [part.tolist() for part in folds(11, 4, seed=4)]
    assert [len(part) for part in folds(3, 5, seed=0)] == [1, 1, 1]


def test_the_walk_finds_a_setting_that_differs_in_every_part() -> None:
    wanted = Setting(Variant(128, TURBO), Fusion("hybrid", "minmax", 0.6), 10, 0.2)
    asked: list[Setting] = []

    def evaluate(setting: Setting) -> Scored | None:
        asked.append(setting)
        same = [
            setting.variant == wanted.variant,
            setting.fusion == wanted.fusion,
            setting.depth == wanted.depth,
            setting.first_stage_weight == wanted.first_stage_weight,
        ]
        return scored(setting, sum(same) / 4, 100)

    tried = explore(PRESENT, Grid.around(PRESENT, 100), lambda best: [30.0], evaluate, ROWS, LIMITS)
    assert tried[0].setting == PRESENT
    assert max(tried, key=lambda one: one.mean(ROWS)).setting == wanted
    assert replace(wanted, budget_ms=30.0) in [one.setting for one in tried]
    assert len(asked) == len(set(asked)) == len(tried)
    # What cannot be measured is left out.
    few = explore(
        PRESENT,
        Grid.around(PRESENT, 100),
        lambda best: [],
        lambda s: None if s.depth > 20 else evaluate(s),
        ROWS,
        LIMITS,
    )
    assert max(one.setting.depth for one in few) == 20


def test_the_walk_looks_at_its_own_queries_alone() -> None:
    good, bad = replace(PRESENT, depth=40), replace(PRESENT, depth=5)
    values = {good: np.r_[np.ones(20), np.zeros(20)], bad: np.r_[np.zeros(20), np.ones(20)]}

    def evaluate(setting: Setting) -> Scored:
        return Scored(setting, values.get(setting, np.full(MANY, 0.2)), np.full(MANY, 100.0), 1_000, 0.0)

    first, last = ROWS[:20], ROWS[20:]
    for own, best in ((first, good), (last, bad)):
        tried = explore(PRESENT, Grid.around(PRESENT, 100), lambda one: [], evaluate, own, LIMITS)
        assert select(tried, own, LIMITS).setting == best


def test_the_grid_holds_the_present_and_halves() -> None:
    odd = Setting(Variant(256, Quantization("scalar")), Fusion("hybrid", "minmax", 0.33), 7, 0.45)
    grid = Grid.around(odd, 30)
    assert grid.variants[0] == odd.variant
    assert {variant.dimensions for variant in grid.variants} == {256, 128, 64, 32}
    assert odd.fusion in grid.fusions
    assert grid.depths == (0, 5, 7, 10, 20, 30)
    assert grid.blends == (0.2, 0.4, 0.45, 0.6, 0.8)
    small = Grid.around(replace(odd, variant=Variant(24, Quantization())), 100)
    assert {variant.dimensions for variant in small.variants} == {24}
    assert {v.dimensions for v in Grid.around(odd, 100, truncate=False).variants} == {256}


def test_a_search_that_is_exact_stays_exact() -> None:
    config = parse_config({"first_stage": {"exact": True}})
    present = Setting.present(config, 256, TURBO, None)
    assert present.variant == Variant(256, TURBO, exact=True)
    assert all(variant.exact for variant in Grid.around(present, 100, quantizations=[Quantization()]).variants)


def test_what_has_no_effect_counts_as_present() -> None:
    bm25 = replace(PRESENT, fusion=Fusion("bm25", "rrf", 0.7), variant=Variant(64, TURBO), depth=0, budget_ms=9.0)
    plain = bm25.plain(PRESENT)
    assert plain == replace(PRESENT, fusion=replace(PRESENT.fusion, arms="bm25"), depth=0)
    assert changes(PRESENT, plain) == (
        Change("first_stage.arms", "hybrid", "bm25"),
        Change("rerank.enabled", True, False),
    )


def test_the_frontier_goes_from_the_best_to_the_cheapest() -> None:
    made = [
        scored(replace(PRESENT, depth=40), 0.60, 600),
        scored(replace(PRESENT, depth=20), 0.58, 300),
        scored(replace(PRESENT, depth=10), 0.50, 290),
        scored(replace(PRESENT, depth=0), 0.40, 5),
        scored(replace(PRESENT, depth=0, variant=Variant(64, TURBO)), 0.30, 5, 200),
        scored(replace(PRESENT, depth=5), 0.35, 150),
    ]
    shown = frontier(made, ROWS, 9)
    assert [one.mean(ROWS) for one in shown] == pytest.approx([0.60, 0.58, 0.40, 0.30])
    assert [one.mean(ROWS) for one in frontier(made, ROWS, 2)] == pytest.approx([0.60, 0.30])


def case(chosen: Scored, held_out: Any, present: Scored | None = None, **limits: Any) -> Case:
    present = present or scored(PRESENT, 0.5, 300)
    values = np.full(MANY, 0.0) + held_out
    both = {
        name: {"nDCG@10": dict(zip(map(str, ROWS), own.tolist(), strict=True))}
        for name, own in (("chosen", values), ("present", present.values))
    }
    comparison = compare(both, "present")[0]
    return Case(
        present, chosen, comparison, float(values.mean()), "nDCG@10", "judged", 9, ROWS, replace(LIMITS, **limits)
    )


def test_the_verdict_follows_the_held_out_figure() -> None:
    signs = np.where(ROWS % 2, 1.0, -1.0)
    better = scored(replace(PRESENT, depth=40), 0.6, 600)
    found = decide(case(better, 0.58))
    assert (found.outcome, found.chosen) == ("changed", better)
    assert found.reason.startswith("better: +0.0800 of nDCG@10 on held-out queries")
    assert "600 ms instead of 300" in found.reason
    # It looked better on the queries that chose it, and is not on the others.
    found = decide(case(better, 0.51 + 0.3 * signs))
    assert (found.outcome, found.chosen.setting) == ("kept", PRESENT)
    assert "not distinguishable with 40 queries" in found.reason
    assert found.reason.endswith("and not cheaper")
    fast = scored(replace(PRESENT, depth=5), 0.5, 50)
    found = decide(case(fast, 0.499 + 0.3 * signs))
    assert (found.outcome, found.chosen) == ("changed", fast)
    assert found.reason.startswith("not distinguishable with 40 queries")
    assert "cheaper: 50 ms instead of 300" in found.reason
    assert decide(case(fast, 0.4)).outcome == "kept"
    assert decide(case(fast, 0.48 + 0.3 * signs)).outcome == "kept"


def test_the_verdict_where_a_limit_is_exceeded() -> None:
    fast = scored(replace(PRESENT, depth=5), 0.3, 50)
    found = decide(case(fast, 0.3, latency_ms=100))
    assert (found.outcome, found.chosen) == ("changed", fast)
    assert found.reason.startswith("the present configuration takes 300 ms of the 100 allowed")
    present = scored(PRESENT, 0.5, 300)
    found = decide(case(present, 0.5, present, max_bytes=10))
    assert found.outcome == "kept"
    assert "reads 1,000 bytes a passage of the 10 allowed, and so does everything else" in found.reason
    alone = replace(case(fast, 0.3), comparison=None, held_out=None)
    assert decide(alone).reason.startswith("one query says nothing about others")
    assert decide(replace(alone, limits=replace(LIMITS, latency_ms=100))).outcome == "changed"


def test_likeness_grades_by_place() -> None:
    from retrieval.datatypes import Hit

    def hit(name: str) -> Hit:
        fields: dict[str, Any] = dict.fromkeys(Hit.__dataclass_fields__)
        return Hit(**{**fields, "document_id": name})

    found = [Results("a", (hit("x"), hit("y"))), Results("b"), Results("c", (hit("z"),))]
    assert likeness(found) == {"0": {"x": 2, "y": 1}, "2": {"z": 1}}
    assert (hits_of("nDCG@10"), hits_of("R@100"), hits_of("RR@5"), hits_of("AP")) == (10, 100, 10, 100)
    with pytest.raises(ValueError, match="measure 'nonsense' is unknown"):
        hits_of("nonsense")


def report(chosen: Setting) -> TuneReport:
    point = TunePoint("", 256, "none", "hybrid", "minmax", 0.4, 20, 0.4, None, 0.5, (0.4, 0.6), 1.0, 2.0, 1000, 20)
    changed = changes(PRESENT, chosen)
    needs = "rebuild" if "encoder.dimensions" in {change.key for change in changed} else None
    return TuneReport(
        outcome="changed" if changed else "kept",
        reason="better: a reason",
        asked="judged",
        metric="nDCG@10",
        queries=40,
        present=point,
        chosen=point,
        frontier=(point,),
        held_out=0.5,
        held_out_interval=(0.4, 0.6),
        comparison=None,
        folds=(),
        changes=changed,
        needs=needs,  # type: ignore[arg-type]
        notes=(),
        settings_tried=9,
        pairs=10,
        ms_per_pair=1.0,
        passages=100,
        seconds=1.0,
        setting=chosen,
        base=PRESENT,
    )


CHOSEN = Setting(Variant(128, TURBO), Fusion("hybrid", "rrf", 0.5), 40, 0.6, 250.0)


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"encoder": {"model": "other"}, "chunking": {"max_tokens": 128, "overlap_tokens": 0}, "rerank": {"threads": 2}},
        {
            "store": {
                "kind": "server",
                "url": "http://h:1",
                "optimizers": {"flush_interval_s": 3},
                "payload_indexes": [{"field": "metadata.year", "type": "integer"}],
            }
        },
        {"store": {"kind": "memory"}},
        {"store": {"kind": "edge", "path": "some: folder # here"}},
    ],
    ids=["defaults", "others", "server", "memory", "edge"],
)
@pytest.mark.parametrize("chosen", [CHOSEN, replace(PRESENT, depth=0), PRESENT], ids=["all", "off", "nothing"])
def test_the_file_loads_as_what_was_chosen(tmp_path: Path, sections: dict[str, Any], chosen: Setting) -> None:
    config = parse_config(sections)
    found = report(chosen)
    text = tuned_yaml(config, found)
    write_new(tmp_path / "tuned.yaml", text, replace=False)
    loaded = load_config(tmp_path / "tuned.yaml")
    assert loaded == tuned_config(config, found) == config_with(config, PRESENT, chosen)
    # Nothing that has its default value stands in it.
    assert len(yaml.safe_load(text) or {}) <= len(sections) + len(
        {change.key.split(".")[0] for change in found.changes}
    )
    assert max(map(len, text.splitlines())) <= 120


def test_the_file_says_what_was_tuned() -> None:
    text = tuned_yaml(Config(), report(CHOSEN), service={"port": 1})
    assert "  dimensions: 128  # tuned; was 256" in text
    assert "quantization:  # tuned; was none" in text
    assert "  first_stage_weight: 0.6  # tuned; was 0.4" in text
    assert "  budget_ms: 250.0  # tuned; was null" in text
    assert "# Better: a reason." in text
    assert "retrieval ingest --rebuild" in text
    assert yaml.safe_load(text)["service"] == {"port": 1}
    # Back to a default: the key is gone, and a remark says so.
    config = parse_config({"rerank": {"budget_ms": 50, "threads": 1}})
    found = replace(report(PRESENT), base=replace(PRESENT, budget_ms=50.0))
    found = replace(found, changes=changes(found.base, found.setting))
    text = tuned_yaml(config, found)
    assert "  # budget_ms: tuned to its default; was 50.0" in text


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    place = tmp_path / "tuned.yaml"
    place.write_text("mine")
    with pytest.raises(FileExistsError):
        write_new(place, "other", replace=False)
    assert place.read_text() == "mine"
    write_new(place, "other", replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["tuned.yaml"]
    assert place.read_text() == "other"


def test_the_table_fits_into_80_columns() -> None:
    from io import StringIO

    from rich.console import Console

    from pipelines.render.tune import render_tuning

    longest = TunePoint(
        "present, chosen",
        1024,
        "binary 1.5 bit, rescored",
        "hybrid",
        "minmax",
        0.45,
        100,
        0.4,
        1250.0,
        0.5,
        (0.4, 0.6),
        1234.5,
        2000.0,
        12_345,
        99.0,
    )
    one = report(CHOSEN)
    out = StringIO()
    found = replace(one, frontier=(longest, one.present), chosen=longest)
    render_tuning(Console(file=out, width=80), found, Path("tuned.yaml"), ["retrieval search QUERY"])
    shown = out.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    for part in ("> now 1024", "binary 1.5 bit", "minmax 0.45", "100, 1250 ms", "0.5000", "1,234", "12,345"):
        assert part in shown
    assert "encoder.dimensions" in shown
    assert "256 -> 128" in shown
    assert "next: retrieval search QUERY" in shown
