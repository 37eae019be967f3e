"""How many machines an index of some size takes, before there is one: memory, disk, nodes, shards, hours, rate, cost.

The model is a sum of measured costs, not a simulation. What it leaves out: filters, queries that share cached pages,
network time, and machines of another speed than those of the benchmarks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from pipelines import plan_constants as constants
from pipelines.plan_constants import Constant
from retrieval.datatypes import Quantization

MAX_NODES = 2000
_HOURS_PER_MONTH = 730
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Node:
    """One machine of the cluster.

    Args:
        memory_gib: Memory.
        cores: Processors.
        disk_gb: Disk for the data.
        reads: Random reads of its disk per second.
        dollars_per_hour: Its price, without the disk.
    """

    memory_gib: float = 64.0
    cores: int = 16
    disk_gb: float = 1000.0
    reads: float = constants.NODE_READS.value
    dollars_per_hour: float = constants.NODE_PRICE.value


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What is to be planned.

    Args:
        passages: Passages in the index.
        dims: Dimensions of the dense vectors.
        quantization: How they are compressed in memory.
        replicas: Copies of every shard, at least.
        characters: Characters of a passage, on average.
        originals: Where the uncompressed vectors are that rescoring reads; always in memory without quantization.
        generations: How many generations must fit at a time; 2 to adapt, push or restore while the first one serves.
        rate: Queries per second that are to be answered; 0 takes what the memory asks for.
        candidates: Passages that each arm fetches.
        depth: Passages that the cross-encoder reads for a query; 0 for the first stage only.
        ingest_cores: Processors that read and encode.
        node: The machines.
    """

    passages: int
    dims: int = 256
    quantization: Quantization = field(default_factory=lambda: Quantization("turbo", 2))
    replicas: int = 2
    characters: int = 800
    originals: Literal["disk", "memory"] = "disk"
    generations: int = 1
    rate: float = 0.0
    candidates: int = 100
    depth: int = 20
    ingest_cores: int = 16
    node: Node = Node()


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that is kept of every passage.

    Args:
        name: What it is.
        bytes: Its size for one passage.
        in_memory: Whether it has to be in memory; on disk is everything.
    """

    name: str
    bytes: float
    in_memory: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What it takes.

    Args:
        options: What was asked for.
        parts: What is kept of a passage.
        memory_gib: Resident memory of all copies and generations.
        disk_gb: Their disk.
        nodes: Machines of the cluster.
        bound_by: What asks for that many: memory, disk, replicas or queries.
        shards: Shards of the collection (``store.shard_number``).
        replicas: Copies of each (``store.replication_factor``); more than asked for where the rate needs them.
        core_ms: Processor time of the first stage of one query, over all shards.
        milliseconds: The first stage of one query where nothing else runs: its shards are searched side by side.
        reads: Random reads from disk of one query, over all shards.
        rate: Queries per second that the cluster answers, first stage.
        rate_bound_by: What limits it: processors or disk.
        service_cores: Processors that the cross-encoder takes at that rate, or at the one asked for.
        encode_hours: Reading and encoding, on ``ingest_cores``.
        build_hours: Building the graph in every replica, on the cluster.
        dollars_per_month: Nodes and disks.
        service_dollars_per_month: Processors of the service.
        notes: Sentences for a person.
        constants: What was reckoned with.
    """

    options: PlanOptions
    parts: tuple[Part, ...]
    memory_gib: float
    disk_gb: float
    nodes: int
    bound_by: str
    shards: int
    replicas: int
    core_ms: float
    milliseconds: float
    reads: float
    rate: float
    rate_bound_by: str
    service_cores: int
    encode_hours: float
    build_hours: float
    dollars_per_month: float
    service_dollars_per_month: float
    notes: tuple[str, ...]
    constants: tuple[Constant, ...]

    @property
    def ingest_hours(self) -> float:
        """The index is built after everything has come: see ``store.bulk``."""
        return self.encode_hours + self.build_hours


def plan(options: PlanOptions) -> Plan:
    """Reckon what an index takes.

    Args:
        options: What is to be planned.

    Raises:
        ValueError: An option is out of range, or no cluster of up to `MAX_NODES` nodes answers the rate.
    """
    _require_usable(options)
    parts = passage_parts(options)
    copies = options.passages * options.generations
    memory = sum(part.bytes for part in parts if part.in_memory) * copies / _GIB
    disk = sum(part.bytes for part in parts) * copies / 1e9
    needs = {
        "memory": math.ceil(memory * options.replicas / (options.node.memory_gib * constants.USABLE_MEMORY.value)),
        "disk": math.ceil(disk * options.replicas / options.node.disk_gb),
        "replicas": 1 if options.replicas == 1 else max(options.replicas, round(constants.LEAST_NODES.value)),
    }
    bound_by = max(needs, key=lambda name: needs[name])
    least = max(needs[bound_by], 1)
    answer = _answer_for_rate(options, memory, least)
    nodes, memory, disk = answer.nodes, memory * answer.replicas, disk * answer.replicas
    asked = options.rate or answer.rate
    service_cores = math.ceil(asked * options.depth * constants.RERANK.value / 1000 / constants.BUSY.value)
    return Plan(
        options=options,
        parts=parts,
        memory_gib=memory,
        disk_gb=disk,
        nodes=nodes,
        bound_by=bound_by if nodes == least else "queries",
        shards=answer.shards,
        replicas=answer.replicas,
        core_ms=answer.core_ms,
        milliseconds=answer.core_ms / answer.shards,
        reads=answer.reads,
        rate=answer.rate,
        rate_bound_by=answer.bound_by,
        service_cores=service_cores,
        encode_hours=options.passages * constants.INGEST.value / 3.6e6 / options.ingest_cores,
        build_hours=_build_ms(options, answer) / 3.6e6 / (nodes * options.node.cores),
        dollars_per_month=nodes * options.node.dollars_per_hour * _HOURS_PER_MONTH + disk * constants.DISK_PRICE.value,
        service_dollars_per_month=service_cores * constants.CORE_PRICE.value * _HOURS_PER_MONTH,
        notes=tuple(_notes(options, answer)),
        constants=constants.ALL,
    )


def passage_parts(options: PlanOptions) -> tuple[Part, ...]:
    """What is kept of every passage, in one copy."""
    terms = options.characters / constants.CHARACTERS_PER_TERM.value
    compressed = code_bytes(options.quantization, options.dims)
    parts = [
        Part("dense vector", 4.0 * options.dims, not compressed or options.originals == "memory"),
        Part("graph", constants.GRAPH.value, True),
        Part("inverted index", constants.INVERTED.value * terms, True),
        Part("BM25 weights", constants.WEIGHTS.value * terms, False),
        Part("payload", constants.PAYLOAD.value * options.characters, False),
        Part("payload indexes", constants.KEYS.value, True),
        Part("ids", constants.IDS.value, True),
    ]
    if compressed:
        parts.insert(1, Part("compressed vector", compressed, True))
    return tuple(parts)


def code_bytes(quantization: Quantization, dims: int) -> float:
    """Bytes of a compressed vector as the engine lays them out, 0 without quantization."""
    if quantization.kind == "none":
        return 0.0
    if quantization.kind == "binary":
        return math.ceil(quantization.bits * dims / 128) * 16.0
    if quantization.kind == "scalar":
        return math.ceil(dims / 16) * 16 + constants.SCALAR_OVERHEAD.value
    overhead = constants.SCALAR_OVERHEAD if quantization.bits == 8 else constants.CODE_OVERHEAD
    return math.ceil(quantization.bits * dims / 8) + overhead.value


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a cluster of some nodes does for a query."""

    nodes: int
    shards: int
    replicas: int
    core_ms: float
    reads: float
    rate: float
    bound_by: str

    @classmethod
    def of(cls, options: PlanOptions, memory: float, nodes: int, shards: int) -> _Answer:
        # More nodes than there are copies of shards have nothing to hold: they get copies of their own.
        replicas = max(options.replicas, math.ceil(nodes / shards))
        size = max(options.passages / shards, 2.0)
        dense = constants.DENSE.value * math.log2(size)
        bm25 = constants.BM25_FIXED.value + constants.BM25_GROWTH.value * size / 1e6
        core_ms = shards * (dense + bm25)
        rates = {"processors": nodes * options.node.cores * constants.BUSY.value * 1000 / core_ms}
        left = nodes * options.node.memory_gib * constants.USABLE_MEMORY.value - memory * replicas
        reads = shards * _reads(options, left / replicas)
        if reads > 0:
            rates["disk"] = nodes * options.node.reads / reads
        bound_by = min(rates, key=lambda name: rates[name])
        return cls(nodes, shards, replicas, core_ms, reads, rates[bound_by], bound_by)


def _reads(options: PlanOptions, left: float) -> float:
    """Original vectors that rescoring does not find in what memory is left for the cached files of one copy."""
    quantization = options.quantization
    if quantization.kind == "none" or not quantization.rescore or options.originals == "memory":
        return 0.0
    originals = 4.0 * options.dims * options.passages / _GIB
    return options.candidates * quantization.oversampling * min(max(1 - left / originals, 0.0), 1.0)


def _answer_for_rate(options: PlanOptions, memory: float, least: int) -> _Answer:
    """Shards are what memory and disk ask for; more queries get more nodes, which every shard would cost anew."""
    shards = 1 if least == 1 else round(least * constants.SHARDS_PER_NODE.value)
    for nodes in range(least, max(MAX_NODES, least) + 1):
        answer = _Answer.of(options, memory, nodes, shards)
        if answer.rate >= options.rate:
            return answer
    raise ValueError(
        f"{MAX_NODES:,} nodes do not answer {options.rate:,.0f} queries per second; "
        "keep the original vectors in memory, take larger nodes, or split the collection"
    )


def _build_ms(options: PlanOptions, answer: _Answer) -> float:
    """Processor time of all graphs: each link is found by a search, whose cost grows with the logarithm of the size."""
    per_passage = constants.BUILD.value * math.log2(max(options.passages / answer.shards, 2.0))
    return options.passages * answer.replicas * per_passage


def _notes(options: PlanOptions, answer: _Answer) -> list[str]:
    notes = []
    rule = options.passages * answer.replicas * options.dims * constants.RULE_OF_THUMB.value / _GIB
    notes.append(f"Qdrant's rule for vectors that are all in memory, without quantization: {rule:,.0f} GiB")
    if options.generations == 1:
        notes.append("adapting, pushing or restoring beside the live index takes twice the memory and disk")
    if answer.reads > 0:
        notes.append(f"rescoring reads {answer.reads:,.0f} vectors from disk for a query; in memory they cost no read")
    return notes


def _require_usable(options: PlanOptions) -> None:
    whole = {
        "passages": (options.passages, 10**12),
        "dims": (options.dims, 65_536),
        "replicas": (options.replicas, 100),
        "characters": (options.characters, 10**6),
        "generations": (options.generations, 3),
        "candidates": (options.candidates, 10_000),
        "ingest cores": (options.ingest_cores, 10**6),
        "cores of a node": (options.node.cores, 10**4),
    }
    for name, (value, most) in whole.items():
        if not 1 <= value <= most:
            raise ValueError(f"{name} is from 1 to {most:,}, not {value:,}")
    if not 0 <= options.depth <= 10_000:
        raise ValueError(f"depth is from 0 to 10,000, not {options.depth:,}")
    node = options.node
    sizes = {"memory of a node": node.memory_gib, "disk of a node": node.disk_gb, "reads of a node": node.reads}
    for name, size in sizes.items():
        if not 0 < size < math.inf:
            raise ValueError(f"{name} is above 0, not {size:g}")
    for name, size in {"rate": options.rate, "price of a node": node.dollars_per_hour}.items():
        if not 0 <= size < math.inf:
            raise ValueError(f"{name} is 0 or more, not {size:g}")
