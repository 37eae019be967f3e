"""What the plan of a cluster is reckoned with: every number with its unit and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

_SCALE = "benchmarks/scale.md"
_ASSUMED = "assumed; measure your own"
_PRICES = "AWS us-east-1 on demand, June 2026"


@dataclass(frozen=True, slots=True)
class Constant:
    """A number of the plan.

    Args:
        name: What it is.
        value: Its value.
        unit: Of the value.
        source: A file of this repository with the measurement, a page of documentation, or that it is assumed.
    """

    name: str
    value: float
    unit: str
    source: str


CHARACTERS_PER_TERM = Constant("text", 10.2, "characters per BM25 term", _SCALE)
PAYLOAD = Constant("payload", 1.07, "bytes per character of text", _SCALE)
KEYS = Constant("payload indexes of document, document_id and source", 128.0, "bytes per passage", _SCALE)
IDS = Constant("ids", 29.0, "bytes per passage", _SCALE)
GRAPH = Constant("links of the graph with m 16", 50.0, "bytes per passage", _SCALE)
WEIGHTS = Constant("BM25 weights", 6.1, "bytes per term", _SCALE)
INVERTED = Constant("inverted index", 4.2, "bytes per term", _SCALE)
CODE_OVERHEAD = Constant("beside the codes of a vector: turbo", 8.0, "bytes", _SCALE)
SCALAR_OVERHEAD = Constant("beside the codes of a vector: scalar, turbo with 8 bits", 4.0, "bytes", _SCALE)

INGEST = Constant("reading, cutting, encoding and writing", 0.84, "core-ms per passage", _SCALE)
BUILD = Constant("building graph and codes, per doubling", 0.02, "core-ms per passage", _SCALE)
DENSE = Constant("dense query of one shard, per doubling", 0.09, "core-ms", _SCALE)
BM25_FIXED = Constant("BM25 query of one shard", 1.21, "core-ms", _SCALE)
BM25_GROWTH = Constant("BM25 query, for each million passages of the shard", 1.38, "core-ms", _SCALE)
RERANK = Constant("cross-encoder", 36.0, "core-ms per passage read", "benchmarks/latency.md")

USABLE_MEMORY = Constant(
    "memory that may be resident",
    0.8,
    "of a node",
    "https://www.skills.sh/qdrant/skills/qdrant-memory-usage-optimization",
)
RULE_OF_THUMB = Constant(
    "vectors in memory with everything around them",
    6.0,
    "bytes per dimension",
    "https://qdrant.tech/documentation/capacity-planning/",
)
LEAST_NODES = Constant(
    "nodes of a cluster that survives the loss of one",
    3.0,
    "nodes",
    "https://qdrant.tech/documentation/guides/distributed_deployment/",
)
SHARDS_PER_NODE = Constant(
    "shards, from 2 to 4 for each node", 2.0, "per node", "https://skills.sh/qdrant/skills/qdrant-horizontal-scaling"
)
BUSY = Constant("processors in use at the highest rate", 0.7, "of all", _ASSUMED)
NODE_READS = Constant("random reads of a node from its disk", 50_000.0, "per second", _ASSUMED)
NODE_PRICE = Constant("16 cores and 64 GiB, eight times m7g.large", 0.6528, "dollars per hour", _PRICES)
CORE_PRICE = Constant("a core of the service, half of m7g.large", 0.0408, "dollars per hour", _PRICES)
DISK_PRICE = Constant("disk, gp3", 0.08, "dollars per GB and month", _PRICES)

ALL = tuple(value for value in dict(globals()).values() if isinstance(value, Constant))
"""Every constant, in the order of this file."""
