"""Kernels that count the tokens of texts and add up their vectors."""

from __future__ import annotations

import numpy as np

from retrieval.encoders.compiled.byte_kernels import Number, Pointer, touch
from retrieval.encoders.compiled.word_kernels import ODD

PIECE = 2**11
"""Rows that are added up before the sum joins that of the rows before."""
AHEAD = 8
"""How many rows before its turn a row is asked for, in fours; one that is not there costs nothing."""
ROOM = PIECE + AHEAD + 4
"""Tokens that `sum_rows` needs room for."""

_LINE = 64


def count_tokens(
    ids: Pointer, word_offsets: Pointer, texts: Number, spans: Pointer, marks: Pointer, heads: Pointer, counts: Pointer
) -> Number:
    """Tokens of each text; marks those with a head of an entry odd. Returns all tokens."""
    total = 0
    for index in range(texts):
        tokens = 0
        for word in range(word_offsets[index], word_offsets[index + 1]):
            tokens += spans[ids[word]] & 0xFFFF
            if heads[ids[word]] != 0:
                marks[index] = ODD
        counts[index] = tokens
        total += tokens
    return total


def gather(
    ids: Pointer, word_offsets: Pointer, texts: Number, spans: Pointer, tokens: Pointer, offsets: Pointer, out: Pointer
) -> Number:
    """Tokens of texts behind each other; ``offsets`` gets their starts."""
    place = 0
    for index in range(texts):
        offsets[index] = place
        for word in range(word_offsets[index], word_offsets[index + 1]):
            span = spans[ids[word]]
            for number in range(span >> 16, (span >> 16) + (span & 0xFFFF)):
                out[place] = tokens[number]
                place += 1
    offsets[texts] = place
    return place


def add_rows(
    table: Pointer, scales: Pointer, stride: Number, dim: Number, kept: Pointer, rows: Number, sums: Pointer
) -> Number:
    """Sums over rows, each times its scale, one row after the other, in float32.

    Four rows in one go save three of four trips to the sums; the order of the additions stays.
    """
    for column in range(dim):
        sums[column] = np.float32(0)
    number = 0
    while number + 4 <= rows:
        first, second, third, fourth = kept[number], kept[number + 1], kept[number + 2], kept[number + 3]
        a, b, c, d = first * stride, second * stride, third * stride, fourth * stride
        for column in range(0, dim, _LINE):
            touch(table, kept[number + AHEAD] * stride + column)
            touch(table, kept[number + AHEAD + 1] * stride + column)
            touch(table, kept[number + AHEAD + 2] * stride + column)
            touch(table, kept[number + AHEAD + 3] * stride + column)
        u, v, w, x = scales[first], scales[second], scales[third], scales[fourth]
        for column in range(dim):
            two = (sums[column] + np.float32(table[a + column]) * u) + np.float32(table[b + column]) * v
            sums[column] = (two + np.float32(table[c + column]) * w) + np.float32(table[d + column]) * x
        number += 4
    while number < rows:
        a, u = kept[number] * stride, scales[kept[number]]
        for column in range(dim):
            sums[column] = sums[column] + np.float32(table[a + column]) * u
        number += 1
    return rows


def sum_rows(
    ids: Pointer,
    word_offsets: Pointer,
    texts: Number,
    counts: Pointer,
    spans: Pointer,
    tokens: Pointer,
    table: Pointer,
    scales: Pointer,
    stride: Number,
    dim: Number,
    skip: Number,
    limit: Number,
    keep_end: Number,
    kept: Pointer,
    part: Pointer,
    sums: Pointer,
) -> Number:
    """Sums of the rows of the tokens of each text, in pieces, as `RowSums.sum` adds them.

    ``skip`` and ``limit`` are -1 for none; ``kept`` has room for `ROOM` tokens, ``part`` for one row.
    """
    for index in range(texts):
        first, last = 0, counts[index]
        if 0 <= limit < last:
            first, last = (last - limit, last) if keep_end != 0 else (0, limit)
        rows = place = 0
        target = index * dim
        for column in range(dim):
            sums[target + column] = np.float32(0)
        for word in range(word_offsets[index], word_offsets[index + 1]):
            span = spans[ids[word]]
            for number in range(span >> 16, (span >> 16) + (span & 0xFFFF)):
                token = tokens[number]
                if token != skip and first <= place < last:
                    if rows == PIECE:
                        add_rows(table, scales, stride, dim, kept, rows, part)
                        for column in range(dim):
                            sums[target + column] = sums[target + column] + part[column]
                        rows = 0
                    kept[rows] = token
                    rows += 1
                place += 1
        add_rows(table, scales, stride, dim, kept, rows, part)
        for column in range(dim):
            sums[target + column] = sums[target + column] + part[column]
    return texts
