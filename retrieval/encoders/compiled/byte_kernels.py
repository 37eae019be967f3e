"""Pieces of kernels that read text 8 bytes at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

Pointer = Any  # indexed like a numpy array of one dimension
Number = Any  # a whole number of Python, of numpy or of the machine

_LOW = np.uint64(0x7F7F7F7F7F7F7F7F)
_ABOVE_SPACE = np.uint64(0x5F5F5F5F5F5F5F5F)
_HIGH = np.uint64(0x8080808080808080)
_ONES = np.uint64(0x0101010101010101)
SEED = np.uint64(0x9E3779B97F4A7C15)
_NONE, _ONE, _SEVEN, _BYTE = np.uint64(0), np.uint64(1), np.uint64(7), np.uint64(8)


def load(text: Pointer, at: Number) -> Any:
    """8 bytes as one number, the first byte lowest; compiled to one load."""
    return (
        np.uint64(text[at])
        | np.uint64(text[at + 1]) << np.uint64(8)
        | np.uint64(text[at + 2]) << np.uint64(16)
        | np.uint64(text[at + 3]) << np.uint64(24)
        | np.uint64(text[at + 4]) << np.uint64(32)
        | np.uint64(text[at + 5]) << np.uint64(40)
        | np.uint64(text[at + 6]) << np.uint64(48)
        | np.uint64(text[at + 7]) << np.uint64(56)
    )


def touch(values: Pointer, at: Number) -> None:
    """Have a part of memory fetched that is needed soon: an instruction when compiled, else nothing."""


def space_at(text: Pointer, at: Number) -> Number:
    """Bytes of the whitespace character that begins here, 0 for none, -1 for what makes a text odd."""
    byte, second, third = text[at], text[at + 1], text[at + 2]
    if byte < 128:
        if byte == 32 or byte == 10 or byte == 9 or byte == 13:
            return 1
        return -1 if byte == 0 or byte == 11 or byte == 12 or 28 <= byte <= 31 else 0
    if byte == 0xC2:
        return 2 if second == 0xA0 else -1 if second == 0x85 else 0
    if byte == 0xE2:
        general = second == 0x80 and (0x80 <= third <= 0x8A or third == 0xA8 or third == 0xA9 or third == 0xAF)
        return 3 if general or (second == 0x81 and third == 0x9F) else 0
    if byte == 0xE1:
        return 3 if second == 0x9A and third == 0x80 else 0
    return 3 if byte == 0xE3 and second == 0x80 and third == 0x80 else 0


def mix(code: Any, chunk: Any) -> Any:
    """The next state of a hash."""
    code = (code ^ chunk) * SEED
    return code ^ (code >> np.uint64(32))


def stops_of(chunk: Any) -> Any:
    """The highest bit of each byte that is at most a space, or not ASCII."""
    return (~((chunk & _LOW) + _ABOVE_SPACE) | chunk) & _HIGH


def below_first(stops: Any) -> Any:
    """All bits of the bytes below the first stop; all bits when there is none."""
    return ((stops & (~stops + _ONE)) >> _SEVEN) - _ONE


def bytes_in(below: Any) -> Number:
    """How many bytes `below_first` left."""
    return np.int64(((below & _ONES) * _ONES) >> np.uint64(56))


def word_end(text: Pointer, start: Number) -> Number:
    """Where the word that begins at ``start`` ends; whitespace follows every text. Negative: the text is odd."""
    at = start
    while True:
        stops = stops_of(load(text, at))
        while stops != _NONE:
            place = at + bytes_in(below_first(stops))
            space = space_at(text, place)
            if space > 0:
                return place
            if space < 0:
                return -1
            stops &= stops - _ONE
        at += 8


def chunk_at(text: Pointer, at: Number, end: Number) -> Any:
    """The chunk of a word that ends at ``end``."""
    chunk = load(text, at)
    if end - at >= 8:
        return chunk
    return chunk & ((_ONE << (np.uint64(end - at) * _BYTE)) - _ONE)
