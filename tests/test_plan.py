"""The calculator: sums that can be checked by hand, constants that are those of the benchmark, and what people see."""

from __future__ import annotations

import json
import math
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import plan_constants as constants
from pipelines.plan import Node, Plan, PlanOptions, code_bytes, passage_parts, plan
from retrieval.datatypes import Quantization
from tests.test_cli import COLUMNS, run

ROOT = Path(__file__).resolve().parents[1]
SCALE = json.loads((ROOT / "benchmarks" / "scale.json").read_text(encoding="utf-8"))
SMALL = PlanOptions(passages=1_000_000)


def part(options: PlanOptions, name: str) -> Any:
    return next(part for part in passage_parts(options) if part.name == name)


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        # Measured with the embedded engine, 256 dimensions.
        (Quantization("none"), 0),
        (Quantization("scalar"), 260),
        (Quantization("turbo", 8), 260),
        (Quantization("turbo", 4), 136),
        (Quantization("turbo", 2), 72),
        (Quantization("turbo", 1.5), 56),
        (Quantization("turbo", 1), 40),
        (Quantization("binary", 1), 32),
    ],
)
def test_a_compressed_vector_takes_what_was_measured(quantization: Quantization, expected: int) -> None:
    assert code_bytes(quantization, 256) == expected


def test_what_is_in_memory() -> None:
    assert not part(SMALL, "dense vector").in_memory
    assert part(SMALL, "compressed vector").in_memory
    assert part(replace(SMALL, originals="memory"), "dense vector").in_memory
    uncompressed = replace(SMALL, quantization=Quantization("none"))
    assert part(uncompressed, "dense vector").in_memory
    assert "compressed vector" not in {part.name for part in passage_parts(uncompressed)}
    assert part(SMALL, "dense vector").bytes == 1024
    assert part(replace(SMALL, dims=512), "dense vector").bytes == 2048
    for name in ("payload", "BM25 weights", "inverted index"):
        twice = replace(SMALL, characters=1600)
        assert part(twice, name).bytes == pytest.approx(2 * part(SMALL, name).bytes)


def test_sums_over_passages_copies_and_generations() -> None:
    one = plan(SMALL)
    in_memory = sum(part.bytes for part in one.parts if part.in_memory)
    assert one.memory_gib == pytest.approx(in_memory * 1_000_000 * 2 / 2**30)
    assert one.disk_gb == pytest.approx(sum(part.bytes for part in one.parts) * 1_000_000 * 2 / 1e9)
    for more in (replace(SMALL, passages=3_000_000), replace(SMALL, replicas=6), replace(SMALL, generations=3)):
        assert plan(more).memory_gib == pytest.approx(3 * one.memory_gib)
        assert plan(more).disk_gb == pytest.approx(3 * one.disk_gb)


def test_nodes_are_what_is_scarcest() -> None:
    assert (plan(replace(SMALL, replicas=1)).nodes, plan(replace(SMALL, replicas=1)).shards) == (1, 1)
    two = plan(SMALL)
    assert (two.nodes, two.shards, two.bound_by) == (3, 6, "replicas")
    # Four nodes of which 80 % may be resident.
    big = plan(replace(SMALL, node=Node(memory_gib=two.memory_gib / 3.9 / 0.8)))
    assert (big.nodes, big.shards, big.bound_by) == (4, 8, "memory")
    full = plan(replace(SMALL, node=Node(disk_gb=two.disk_gb / 4.5)))
    assert (full.nodes, full.bound_by) == (5, "disk")


def test_more_queries_get_more_nodes_and_then_more_copies() -> None:
    two = plan(SMALL)
    assert plan(replace(SMALL, rate=two.rate)).nodes == 3
    fast = plan(replace(SMALL, rate=4 * two.rate))
    assert (fast.nodes, fast.shards, fast.replicas, fast.bound_by) == (12, 6, 2, "queries")
    assert fast.rate == pytest.approx(4 * two.rate)
    assert (fast.memory_gib, fast.disk_gb) == (two.memory_gib, two.disk_gb)
    # Twelve nodes hold one copy of a shard each; thirteen need a third copy of every shard.
    faster = plan(replace(SMALL, rate=4.1 * two.rate))
    assert (faster.nodes, faster.shards, faster.replicas) == (13, 6, 3)
    assert faster.memory_gib == pytest.approx(1.5 * two.memory_gib)
    assert faster.build_hours * 13 == pytest.approx(1.5 * two.build_hours * 3)


def test_a_query_costs_every_shard_its_share() -> None:
    alone = plan(replace(SMALL, passages=2**20, replicas=1))
    dense = 20 * constants.DENSE.value
    bm25 = constants.BM25_FIXED.value + constants.BM25_GROWTH.value * 2**20 / 1e6
    assert alone.core_ms == pytest.approx(dense + bm25)
    assert alone.milliseconds == pytest.approx(dense + bm25)
    assert alone.rate == pytest.approx(16 * 0.7 * 1000 / alone.core_ms)
    assert alone.rate_bound_by == "processors"
    spread = plan(replace(SMALL, passages=6 * 2**20))
    assert spread.shards == 6
    assert spread.core_ms == pytest.approx(6 * alone.core_ms)
    assert spread.milliseconds == pytest.approx(alone.core_ms)


def test_rescoring_reads_what_is_not_in_memory() -> None:
    # 51.2 GiB may be used, and what is resident and the originals take much more.
    tight = replace(SMALL, passages=60_000_000, replicas=1, node=Node(reads=1000))
    reckoned = plan(tight)
    assert reckoned.nodes == 1
    left = 64 * 0.8 - reckoned.memory_gib
    missing = 1 - left / (60_000_000 * 1024 / 2**30)
    assert 0 < missing < 1
    assert reckoned.reads == pytest.approx(300 * missing)
    assert (reckoned.rate, reckoned.rate_bound_by) == (pytest.approx(1000 / reckoned.reads), "disk")
    assert any("rescoring reads" in note for note in reckoned.notes)
    quantization = Quantization("turbo", 4, rescore=False)
    for other in (
        replace(tight, originals="memory"),
        replace(tight, quantization=quantization),
        replace(tight, quantization=Quantization("none")),
        SMALL,
    ):
        assert plan(other).reads == 0


def test_hours_and_dollars() -> None:
    options = replace(SMALL, passages=10_000_000, ingest_cores=10, depth=10, rate=7.0)
    reckoned = plan(options)
    assert reckoned.encode_hours == pytest.approx(10_000_000 * constants.INGEST.value / 1000 / 3600 / 10)
    core_ms = 2 * 10_000_000 * constants.BUILD.value * math.log2(10_000_000 / 6)
    assert reckoned.build_hours == pytest.approx(core_ms / 1000 / 3600 / 48)
    assert reckoned.ingest_hours == reckoned.encode_hours + reckoned.build_hours
    assert reckoned.service_cores == math.ceil(7 * 10 * constants.RERANK.value / 1000 / 0.7)
    assert reckoned.service_dollars_per_month == pytest.approx(reckoned.service_cores * 0.0408 * 730)
    assert reckoned.dollars_per_month == pytest.approx(3 * 0.6528 * 730 + reckoned.disk_gb * 0.08)
    assert plan(replace(options, depth=0)).service_cores == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"passages": 0}, "passages is from 1 to"),
        ({"passages": 10**13}, "passages is from 1 to 1,000,000,000,000"),
        ({"dims": 0}, "dims"),
        ({"replicas": -1}, "replicas"),
        ({"characters": 0}, "characters"),
        ({"generations": 4}, "generations is from 1 to 3, not 4"),
        ({"depth": -1}, "depth"),
        ({"rate": math.nan}, "rate is 0 or more, not nan"),
        ({"node": Node(memory_gib=0)}, "memory of a node is above 0"),
        ({"node": Node(disk_gb=math.inf)}, "disk of a node"),
        ({"node": Node(cores=0)}, "cores of a node"),
        ({"node": Node(dollars_per_hour=-1)}, "price of a node"),
        ({"rate": 1e9}, "2,000 nodes do not answer 1,000,000,000 queries per second"),
    ],
)
def test_what_cannot_be_planned_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(replace(SMALL, **change))


def test_the_constants_are_those_of_the_benchmark() -> None:
    last = SCALE["rows"][-1]
    passages, terms = last["passages"], last["terms_per_passage"]

    def each(name: str) -> float:
        return float(last["bytes"][name] / passages)

    measured = {
        constants.CHARACTERS_PER_TERM: last["characters_per_passage"] / terms,
        constants.PAYLOAD: each("payload") / last["characters_per_passage"],
        constants.KEYS: each("payload indexes"),
        constants.IDS: each("ids"),
        constants.GRAPH: each("graph"),
        constants.WEIGHTS: each("sparse vectors") / terms,
        constants.INVERTED: each("inverted index") / terms,
        constants.INGEST: sum(row["ingest"]["cpu"] for row in SCALE["rows"])
        / sum(row["ingest"]["passages"] for row in SCALE["rows"])
        * 1000,
        constants.BUILD: last["build"]["cpu"] / passages / math.log2(passages) * 1000,
        constants.DENSE: last["dense_ms"]["cpu_mean"] / math.log2(passages),
    }
    growth = SCALE["bm25_growth"]
    slope, start = np.polyfit(
        [row["passages"] / 1e6 for row in growth], [row["bm25_ms"]["cpu_mean"] for row in growth], 1
    )
    measured |= {constants.BM25_GROWTH: slope, constants.BM25_FIXED: start}
    for constant, value in measured.items():
        assert constant.source == "benchmarks/scale.md"
        assert constant.value == pytest.approx(value, rel=0.05), constant.name
    assert each("dense vectors, float32") == pytest.approx(1024, rel=0.05)
    assert each("dense vectors, compressed") == pytest.approx(72, rel=0.05)


def test_every_constant_has_a_source_and_is_explained() -> None:
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert len(constants.ALL) > 15
    for constant in constants.ALL:
        source = constant.source
        assert source.startswith(("https://", "assumed", "AWS")) or (ROOT / source).is_file(), constant
        row = f"| {constant.name} | {constant.value:g} {constant.unit} | "
        assert row in text, f"docs/scale.md lacks the line {row}"


def test_the_plans_of_the_document_are_those_of_the_calculator() -> None:
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```console\n\$ retrieval (plan .*?)\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 2
    for command, output in blocks:
        done = run(*shlex.split(command))
        assert done.code == 0, done.err
        assert [line.rstrip() for line in done.out.splitlines()] == [line.rstrip() for line in output.splitlines()]


def plans_of_table(text: str, heading: str) -> list[list[str]]:
    section = text.split(heading, 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_the_tables_of_the_document_are_those_of_the_calculator() -> None:
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    for kind, bits, *cells in plans_of_table(text, "## Bytes of a passage"):
        options = replace(SMALL, quantization=Quantization(kind, float(bits or 2)))  # type: ignore[arg-type]
        parts = passage_parts(options)
        resident = sum(part.bytes for part in parts if part.in_memory)
        vector = code_bytes(options.quantization, 256) or 1024
        assert cells == [f"{vector:,.0f}", f"{resident:,.0f}", f"{sum(part.bytes for part in parts):,.0f}"]
    seen = 0
    for passages, kind, bits, originals, *cells in plans_of_table(text, "## 10M, 100M, 1B"):
        reckoned = plan(
            PlanOptions(
                passages=int(float(passages.rstrip("MB")) * {"M": 1e6, "B": 1e9}[passages[-1]]),
                quantization=Quantization(kind, float(bits or 2)),  # type: ignore[arg-type]
                originals="memory" if originals == "memory" else "disk",
            )
        )
        assert cells == summary(reckoned)
        seen += 1
    assert seen >= 9


def summary(reckoned: Plan) -> list[str]:
    return [
        f"{reckoned.memory_gib:,.0f}",
        f"{reckoned.disk_gb:,.0f}",
        f"{reckoned.nodes:,}",
        f"{reckoned.shards:,}",
        f"{reckoned.ingest_hours:,.1f}",
        f"{reckoned.rate:,.0f}",
        f"{reckoned.milliseconds:,.0f}",
        f"{reckoned.dollars_per_month:,.0f}",
    ]


def test_people_and_machines_get_the_same_plan() -> None:
    done = run("plan", "--passages", "100M", "--bits", 4, "--replicas", 3, "--rate", 50)
    assert done.code == 0, done.err
    assert max(map(len, done.out.splitlines())) <= COLUMNS
    assert "100,000,000 of 256 dimensions, 3 copies" in done.out
    record = json.loads(run("plan", "--passages", "100m", "--bits", 4, "--replicas", 3, "--rate", 50, "--json").out)
    expected = plan(PlanOptions(passages=10**8, quantization=Quantization("turbo", 4), replicas=3, rate=50))
    assert (record["nodes"], record["shards"], record["rate"]) == (expected.nodes, expected.shards, expected.rate)
    assert record["ingest_hours"] == expected.ingest_hours
    assert {"name", "value", "unit", "source"} == set(record["constants"][0])
    assert len(record["constants"]) == len(constants.ALL)


def test_the_command_reads_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("quantization: {kind: binary, bits: 1.5, oversampling: 2}\n")
    record = json.loads(run("plan", "--passages", "1,000,000", "--config", file, "--json").out)
    assert record["options"]["quantization"] == {
        "kind": "binary",
        "bits": 1.5,
        "query_bits": None,
        "rescore": True,
        "oversampling": 2.0,
    }
    record = json.loads(run("plan", "--passages", "1M", "--quantization", "none", "--config", file, "--json").out)
    assert record["options"]["quantization"]["kind"] == "none"
    record = json.loads(run("plan", "--passages", "0.5B", "--quantization", "binary", "--json").out)
    assert (record["options"]["passages"], record["options"]["quantization"]["bits"]) == (500_000_000, 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--passages", "many"], "500k, 100M or 1B, not 'many'"),
        (["--passages", "-5"], "not '-5'"),
        (["--passages", "0"], "passages is from 1"),
        (["--passages", "1M", "--quantization", "zip"], "quantization.kind"),
        (["--passages", "1M", "--bits", "3"], "bits is 1, 1.5, 2, 4 or 8, not 3"),
        (["--passages", "1M", "--originals", "tape"], "--originals is disk or memory"),
        (["--passages", "1M", "--node-memory", "nan"], "memory of a node is above 0, not nan"),
        (["--passages", "1M", "--rate", "1e9"], "do not answer"),
    ],
)
def test_bad_options_are_named(arguments: list[str], message: str) -> None:
    done = run("plan", *arguments)
    assert done.code == 2
    assert message in done.err
