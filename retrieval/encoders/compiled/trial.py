"""A first run of freshly compiled kernels, held against the same functions uncompiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from retrieval.encoders.compiled import kernels as source
from retrieval.encoders.compiled.blocks import Block
from retrieval.encoders.compiled.objects import Argument
from retrieval.encoders.compiled.places import UnusableError
from retrieval.encoders.compiled.sum_kernels import ROOM
from retrieval.encoders.compiled.word_kernels import WAITING
from retrieval.encoders.compiled.words import Call

_TEXTS = [
    "the pipe, the\u00a0pipe\tbroke",
    "",
    "unbreakable extraordinarily",
    "a\x85b",
    "\u00e9t\u00e9 " * 3 + "x" * 20,
    "12345678 1234567890123456 a\tb 123456789 12345678\u00e9 12345678",
]


def interpreted(name: str, *arguments: Argument) -> int:
    """Run a kernel without compiling it, some thousand times slower."""
    with np.errstate(over="ignore"):
        function: Any = source.KERNELS[name][0]
        return int(function(*(value if isinstance(value, int) else value.reshape(-1) for value in arguments)))


def try_out(call: Call) -> None:
    """Run every kernel on a few texts.

    Raises:
        UnusableError: One gives other values than its source says.
    """
    runs: list[dict[str, list[bytes]]] = []
    for run in (call, interpreted):
        seen: dict[str, list[bytes]] = {}

        def record(name: str, *arguments: Argument, run: Call = run, seen: dict[str, list[bytes]] = seen) -> int:
            result = run(name, *arguments)
            arrays = [value.tobytes() for value in arguments if not isinstance(value, int)]
            seen.setdefault(name, []).extend([str(result).encode(), *arrays])
            return result

        _run_all(record)
        runs.append(seen)
    wrong = [name for name in source.KERNELS if runs[0].get(name) != runs[1].get(name) or name not in runs[0]]
    if wrong:
        raise UnusableError(f"compiled {', '.join(wrong)} computes wrongly")


def _run_all(call: Call) -> None:
    block = Block.of(_TEXTS)
    texts, room = len(block), len(block.text)
    slots, chunks, starts = np.zeros(256, np.uint64), np.zeros(64, np.uint64), np.zeros(64, np.int64)
    size, found, waiting = np.zeros(2, np.int64), np.zeros(3, np.int64), np.zeros(3 * WAITING, np.uint64)
    ids, offsets, marks = np.zeros(room, np.int32), np.zeros(texts + 1, np.int64), np.zeros(texts, np.uint8)
    looked_up = (ids, offsets, marks)
    call("scan", block.text, block.offsets, texts, slots, 127, chunks, *looked_up, found, waiting)
    call("insert", block.text, block.offsets, texts, slots, 127, chunks, starts, size, *looked_up)
    call("scan", block.text, block.offsets, texts, slots, 127, chunks, *looked_up, found, waiting)
    call("rehash", np.zeros(512, np.uint64), 255, chunks, starts, int(size[0]))

    keys = [b"\1the", b"\1,", b"\1pipe", b"\1un", b"\2break", b"\2able", b"\2a", b"\1extra", b"\1x", b"\2x"]
    ends = np.cumsum([0, *map(len, keys)])
    content, entries = np.frombuffer(b"".join(keys), np.uint8), np.zeros(64, np.int32)
    call("fill_vocabulary", content, ends, len(keys), entries, 63)
    spans, values = np.zeros(64, np.int64), np.zeros(256, np.int32)
    vocabulary = (entries, 63, content, ends, np.arange(1, len(keys) + 1, dtype=np.int32), 6, 0)
    scratch = (np.zeros(8, np.uint64), np.zeros(32, np.uint8))
    rules = (1, 30, np.zeros(2**16, np.uint8))
    words = chunks.view(np.uint8)
    odd = np.zeros(64, np.int64)
    call("tokenize", words, starts, 0, int(size[0]), *rules, *vocabulary, *scratch, spans, values, 0, odd)

    counts, heads = np.zeros(texts, np.int64), np.zeros(64, np.uint8)
    heads[0] = 1
    call("count_tokens", ids, offsets, texts, spans, marks, heads, counts)
    call("gather", ids, offsets, texts, spans, values, np.zeros(texts + 1, np.int64), np.zeros(256, np.int32))
    call("cut_runs", words, starts, 0, int(size[0]), np.zeros(256, np.uint8), np.zeros(64, np.int64))
    terms = np.arange(256, dtype=np.uint32)[::-1] * 2**24
    spare = [np.zeros(256, np.uint32) for _ in range(3)]
    sorting = (spare[0], spare[1], np.zeros(256, np.int64))
    call("collect_terms", ids, offsets, texts, spans, terms, *sorting, counts, spare[2], np.zeros(256))

    call("count_tokens", ids, offsets, texts, spans, marks, heads, counts)
    generator = np.random.default_rng(1)
    table, scales = generator.normal(size=11 * 19).astype(np.float32), np.ones(11, np.float32)
    row = (np.zeros(ROOM, np.int64), np.zeros(17, np.float32))
    whole = generator.integers(-128, 128, 11 * 19, np.int8)
    for limit, keep_end in ((-1, 0), (2, 0), (2, 1)):
        cut = (19, 17, 5, limit, keep_end)
        read = (ids, offsets, texts, counts, spans, values)
        call("sum_floats", *read, table, scales, *cut, *row, np.zeros(texts * 17, np.float32))
        call("sum_bytes", *read, whole, table[:11].copy(), *cut, *row, np.zeros(texts * 17, np.float32))
