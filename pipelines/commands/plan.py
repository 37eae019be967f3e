"""`retrieval plan`: how many machines an index of some size takes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipelines.commands.invocation import Invocation

if TYPE_CHECKING:
    from retrieval.datatypes import Quantization

_MULTIPLES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


def plan(
    invocation: Invocation,
    passages: Annotated[str, typer.Option(metavar="N", help="Passages, such as 500k, 100M or 1B.")],
    dims: Annotated[int, typer.Option(metavar="N", help="Dimensions of the dense vectors.")] = 256,
    quantization: Annotated[
        str | None, typer.Option(metavar="KIND", help="turbo, binary, scalar or none.", show_default="turbo")
    ] = None,
    bits: Annotated[
        float | None, typer.Option(metavar="N", help="Bits of each dimension.", show_default="2, binary 1")
    ] = None,
    replicas: Annotated[int, typer.Option(metavar="N", help="Copies of every shard.")] = 2,
    characters: Annotated[int, typer.Option(metavar="N", help="Characters of a passage, on average.")] = 800,
    originals: Annotated[
        str, typer.Option(metavar="PLACE", help="Uncompressed vectors for rescoring: disk or memory.")
    ] = "disk",
    generations: Annotated[
        int, typer.Option(metavar="N", help="2 to adapt, push or restore beside the live index.")
    ] = 1,
    rate: Annotated[float, typer.Option(metavar="N", help="Queries per second to be answered.")] = 0.0,
    depth: Annotated[int, typer.Option(metavar="N", help="Passages the cross-encoder reads; 0: first stage.")] = 20,
    ingest_cores: Annotated[int, typer.Option(metavar="N", help="Processors that read and encode.")] = 16,
    node_memory: Annotated[float, typer.Option(metavar="GIB", help="Memory of a node.")] = 64.0,
    node_cores: Annotated[int, typer.Option(metavar="N", help="Processors of a node.")] = 16,
    node_disk: Annotated[float, typer.Option(metavar="GB", help="Disk of a node.")] = 1000.0,
    node_reads: Annotated[float, typer.Option(metavar="N", help="Random reads of its disk per second.")] = 50_000.0,
    node_price: Annotated[float, typer.Option(metavar="DOLLARS", help="Of a node per hour, without disk.")] = 0.6528,
) -> None:
    """Reckon memory, disk, nodes, shards, hours, queries per second and cost from measured constants.

    --json names every constant with its source. Nothing is opened, and no server is asked.
    """
    from pipelines.plan import Node, PlanOptions
    from pipelines.plan import plan as reckon
    from pipelines.render.output import output_console, plain, write_json
    from pipelines.render.plan import render_plan

    reckoned = reckon(
        PlanOptions(
            passages=_count(passages),
            dims=dims,
            quantization=_quantization(invocation, quantization, bits),
            replicas=replicas,
            characters=characters,
            originals=_place(originals),
            generations=generations,
            rate=rate,
            depth=depth,
            ingest_cores=ingest_cores,
            node=Node(node_memory, node_cores, node_disk, node_reads, node_price),
        )
    )
    if invocation.json:
        write_json({**plain(reckoned), "ingest_hours": reckoned.ingest_hours})
    else:
        render_plan(output_console(), reckoned)


def _count(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kmb]?)", text.strip().lower().replace(",", "").replace("_", ""))
    if found is None:
        raise ValueError(f"--passages is a number such as 500k, 100M or 1B, not {text!r}")
    return round(float(found[1]) * _MULTIPLES[found[2]])


def _place(text: str) -> Literal["disk", "memory"]:
    if text == "disk":
        return "disk"
    if text == "memory":
        return "memory"
    raise ValueError(f"--originals is disk or memory, not {text!r}")


def _quantization(invocation: Invocation, kind: str | None, bits: float | None) -> Quantization:
    """What the options say, before the configuration, before the default."""
    settings = invocation.settings()
    said = settings.quantization.kind != "auto"
    kind = kind if kind is not None else settings.quantization.kind if said else "turbo"
    bits = bits if bits is not None else settings.quantization.bits if said else 1 if kind == "binary" else 2
    given = {"kind": kind, "bits": bits}
    overrides = [f"quantization.{name}={json.dumps(value)}" for name, value in given.items()]
    return replace(invocation, overrides=[*(invocation.overrides or ()), *overrides]).settings().quantization.record()
