"""Kernels that cut words into the entries of a WordPiece vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np

from retrieval.encoders.compiled.byte_kernels import SEED, Number, Pointer

_PRIME = np.uint64(1099511628211)


def is_letter_or_digit(byte: Number) -> Any:
    """Whether a byte is an ASCII letter or digit."""
    return 48 <= byte <= 57 or 65 <= byte <= 90 or 97 <= byte <= 122


def lowered(byte: Number) -> Number:
    """An ASCII letter in lower case, other bytes as they are."""
    return np.int64(byte) + 32 if 65 <= byte <= 90 else np.int64(byte)


def cut_piece(
    piece: Pointer,
    length: Number,
    slots: Pointer,
    mask: Number,
    keys: Pointer,
    key_starts: Pointer,
    key_tokens: Pointer,
    longest: Number,
    unknown: Number,
    codes: Pointer,
    out: Pointer,
    place: Number,
) -> Number:
    """WordPiece, the longest match first; writes the tokens of a piece and returns where they end.

    A key is a byte 1 or 2 (the beginning of a piece, or its continuation) and the bytes of an entry.
    """
    at, begin = 0, place
    while at < length:
        most = min(length - at, longest)
        kind = 1 if at == 0 else 2
        code = SEED ^ np.uint64(kind)
        for number in range(most):
            code = (code ^ np.uint64(piece[at + number])) * _PRIME
            codes[number] = code
        size, match = most, np.int64(-1)
        while size > 0 and match < 0:
            code = codes[size - 1]
            slot = np.int64((code ^ (code >> np.uint64(32))) & np.uint64(mask))
            while slots[slot] != 0:
                entry = slots[slot] - 1
                start = key_starts[entry]
                same = key_starts[entry + 1] - start == size + 1 and keys[start] == kind
                number = 0
                while same and number < size:
                    same = keys[start + 1 + number] == piece[at + number]
                    number += 1
                if same:
                    match = np.int64(entry)
                    break
                slot = (slot + 1) & mask
            size -= 1
        if match < 0:
            out[begin] = unknown
            return begin + 1
        out[place] = key_tokens[match]
        place += 1
        at += size + 1
    return place


def fill_vocabulary(keys: Pointer, key_starts: Pointer, entries: Number, slots: Pointer, mask: Number) -> Number:
    """Fill the empty slots of a vocabulary."""
    for entry in range(entries):
        start, stop = key_starts[entry], key_starts[entry + 1]
        code = SEED ^ np.uint64(keys[start])
        for number in range(start + 1, stop):
            code = (code ^ np.uint64(keys[number])) * _PRIME
        slot = np.int64((code ^ (code >> np.uint64(32))) & np.uint64(mask))
        while slots[slot] != 0:
            slot = (slot + 1) & mask
        slots[slot] = entry + 1
    return entries


def tokenize(
    words: Pointer,
    starts: Pointer,
    first: Number,
    last: Number,
    lowercase: Number,
    longest_word: Number,
    beginnings: Pointer,
    slots: Pointer,
    mask: Number,
    keys: Pointer,
    key_starts: Pointer,
    key_tokens: Pointer,
    longest: Number,
    unknown: Number,
    codes: Pointer,
    piece: Pointer,
    spans: Pointer,
    out: Pointer,
    place: Number,
    odd: Pointer,
) -> Number:
    """Tokens of the words ``first`` to ``last``; returns where they end.

    ``odd[0]`` counts the words that need the tokenizer itself, whose numbers follow: those that are long, not
    printable ASCII, or contain one of ``beginnings`` (pairs of bytes with which added tokens begin).
    """
    odd[0] = 0
    for identity in range(first, last):
        begin, end = 8 * starts[identity], 8 * starts[identity + 1]
        while words[end - 1] == 0:
            end -= 1
        plain = end - begin <= longest_word
        at = begin
        while plain and at < end:
            byte = words[at]
            follower = lowered(words[at + 1]) if at + 1 < end else 0
            plain = 33 <= byte <= 126 and beginnings[256 * lowered(byte) + follower] == 0
            at += 1
        if not plain:
            odd[0] += 1
            odd[odd[0]] = identity
            spans[identity] = 0
            continue
        origin, at = place, begin
        while at < end:
            size = 0
            while at < end and is_letter_or_digit(words[at]):
                piece[size] = lowered(words[at]) if lowercase != 0 else np.int64(words[at])
                size += 1
                at += 1
            if size == 0:
                piece[0] = words[at]
                size = 1
                at += 1
            place = cut_piece(
                piece, size, slots, mask, keys, key_starts, key_tokens, longest, unknown, codes, out, place
            )
        spans[identity] = origin << 16 | (place - origin)
    return place
