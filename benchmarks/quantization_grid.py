"""What the table of quantization measures: ways to compress, ways to search what is compressed, and dimensions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from retrieval.datatypes import Quantization

FLOAT = Quantization()
CODES = (
    Quantization("binary", 1),
    Quantization("binary", 1, query_bits=8),
    Quantization("binary", 1, query_bits=4),
    Quantization("binary", 1.5),
    Quantization("binary", 1.5, query_bits=8),
    Quantization("binary", 2),
    Quantization("binary", 2, query_bits=8),
    Quantization("scalar"),
    Quantization("turbo", 1),
    Quantization("turbo", 1.5),
    Quantization("turbo", 2),
    Quantization("turbo", 4),
)
"""Every way to compress; how it is searched is left open."""
SHARES = (1, 2, 4, 8)
"""Matryoshka: all dimensions, half, a quarter, an eighth."""

_COMMON = (1, 3)
_ALL = (1, 2, 3, 4)


def searches(code: Quantization) -> tuple[Quantization, ...]:
    """A way to compress with every way to search it: by the codes alone, and rescored with growing oversampling.

    Sign bits, which all others are compared with, get four factors, the others the two that tell most: rescored without
    oversampling, which orders the list anew and adds nothing to it, and the default of three.
    """
    if code.kind == "none":
        return (code,)
    factors = _ALL if (code.kind, code.bits, code.query_bits) == ("binary", 1, None) else _COMMON
    alone = replace(code, rescore=False, oversampling=1.0)
    return (alone, *(replace(code, rescore=True, oversampling=float(factor)) for factor in factors))


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table.

    Args:
        dims: Leading dimensions of the vectors.
        quantization: How they are compressed and searched.
    """

    dims: int
    quantization: Quantization

    @property
    def code(self) -> str:
        """How vectors are compressed, in words: ``binary 1 bit, queries 8 bit``."""
        return code_name(self.quantization)

    @property
    def search(self) -> str:
        """How the codes are searched, in words: ``codes only``, or ``rescored x3``."""
        return search_name(self.quantization)

    @property
    def name(self) -> str:
        """Dimensions, code and search in words; unique in a table."""
        return f"{self.dims} dims, {self.code}" + (f", {self.search}" if self.search else "")


def code_name(quantization: Quantization) -> str:
    """How vectors are compressed, in words."""
    if quantization.kind == "none":
        return "float"
    if quantization.kind == "scalar":
        return "scalar int8"
    asymmetric = "" if quantization.query_bits is None else f", queries {quantization.query_bits} bit"
    return f"{quantization.kind} {quantization.bits:g} bit{asymmetric}"


def search_name(quantization: Quantization) -> str:
    """How the codes are searched, in words; empty where there are none."""
    if quantization.kind == "none":
        return ""
    return f"rescored x{quantization.oversampling:g}" if quantization.rescore else "codes only"


def settings(dims: Sequence[int], codes: Sequence[Quantization] = CODES) -> Iterator[Setting]:
    """Every row: float first for each number of dimensions."""
    for size in dims:
        for code in (FLOAT, *codes):
            yield from (Setting(size, search) for search in searches(code))


def matryoshka(dim: int) -> tuple[int, ...]:
    """All dimensions, half, a quarter and an eighth of them, as far as they are whole numbers."""
    return tuple(dim // share for share in SHARES if dim % share == 0)


def recall(exact: Collection[str], found: Collection[str]) -> float:
    """Share of the exact list that a search found; 1 where the exact list is empty."""
    return len(set(exact) & set(found)) / len(exact) if exact else 1.0
