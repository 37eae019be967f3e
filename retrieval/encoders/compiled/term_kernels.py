"""Kernels that count the BM25 terms of texts."""

from __future__ import annotations

import numpy as np

from retrieval.encoders.compiled.byte_kernels import Number, Pointer
from retrieval.encoders.compiled.piece_kernels import is_letter_or_digit, lowered


def cut_runs(words: Pointer, starts: Pointer, first: Number, last: Number, text: Pointer, offsets: Pointer) -> Number:
    """Words as the texts of a block: those of ASCII in lower case, with spaces for all but letters and digits."""
    place = 0
    for identity in range(first, last):
        begin, end = 8 * starts[identity], 8 * starts[identity + 1]
        while words[end - 1] == 0:
            end -= 1
        ascii_only = True
        for at in range(begin, end):
            ascii_only = ascii_only and words[at] < 128
        offsets[identity - first] = place
        for at in range(begin, end):
            byte: Number = np.int64(words[at])
            if ascii_only:
                byte = lowered(byte) if is_letter_or_digit(byte) else 32
            text[place] = byte
            place += 1
        text[place] = 10
        place += 1
    offsets[last - first] = place
    return place


def collect_terms(
    ids: Pointer,
    word_offsets: Pointer,
    texts: Number,
    spans: Pointer,
    terms: Pointer,
    scratch: Pointer,
    other: Pointer,
    counts: Pointer,
    different: Pointer,
    indices: Pointer,
    frequencies: Pointer,
) -> Number:
    """Different terms of each text, ascending, with how often they occur; returns how many there are.

    ``scratch`` and ``other`` have room for the terms of one text, ``counts`` for 256 numbers.
    """
    place = 0
    for index in range(texts):
        size = 0
        for word in range(word_offsets[index], word_offsets[index + 1]):
            span = spans[ids[word]]
            for number in range(span >> 16, (span >> 16) + (span & 0xFFFF)):
                scratch[size] = terms[number]
                size += 1
        sort(scratch, other, counts, size)
        begin = place
        for number in range(size):
            if number > 0 and scratch[number] == scratch[number - 1]:
                frequencies[place - 1] += np.float64(1)
            else:
                indices[place] = scratch[number]
                frequencies[place] = np.float64(1)
                place += 1
        different[index] = place - begin
    return place


def sort(values: Pointer, other: Pointer, counts: Pointer, size: Number) -> Number:
    """Sort 32-bit numbers: by insertion when few, else by their bytes, the lowest first."""
    if size <= 32:
        for number in range(1, size):
            value, at = values[number], number
            while at > 0 and values[at - 1] > value:
                values[at] = values[at - 1]
                at -= 1
            values[at] = value
        return size
    for turn in range(4):
        shift = np.uint32(8 * turn)
        for number in range(256):
            counts[number] = 0
        for number in range(size):
            counts[(values[number] >> shift) & np.uint32(255)] += 1
        total = 0
        for number in range(256):
            count = counts[number]
            counts[number] = total
            total += count
        for number in range(size):
            digit = (values[number] >> shift) & np.uint32(255)
            other[counts[digit]] = values[number]
            counts[digit] += 1
        for number in range(size):
            values[number] = other[number]
    return size
