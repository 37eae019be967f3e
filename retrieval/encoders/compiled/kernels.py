"""The inner loops of encoding, written for a compiler: plain functions over pointers and whole numbers.

`build` compiles them with numba, once per machine. No array is made there, nothing is bounds-checked, and nothing may
raise. A pointer is indexed like an array, so that the functions run uncompiled over numpy arrays as well.
"""

from __future__ import annotations

from pathlib import Path

from retrieval.encoders.compiled import byte_kernels as byte
from retrieval.encoders.compiled import piece_kernels as piece
from retrieval.encoders.compiled import sum_kernels as sums
from retrieval.encoders.compiled import term_kernels as term
from retrieval.encoders.compiled import word_kernels as word

SOURCES = [Path(str(module.__file__)) for module in (byte, word, sums, piece, term)]
"""Files that the machine code depends on."""

INLINED = (
    *(byte.load, byte.mix, byte.stops_of, byte.below_first, byte.bytes_in, byte.chunk_at),
    *(word.key_at, word.look_up),
)
"""Helpers that are too small to be called."""

HELPERS = (
    *(*INLINED, byte.space_at, byte.word_end, word.find, word.look_up_long, word.scan_text),
    *(sums.add_rows, piece.is_letter_or_digit, piece.lowered, piece.cut_piece, term.sort),
)
"""What kernels call."""

KERNELS = {
    "scan": (word.scan, "BqnQnQiqBqQ"),
    "insert": (word.insert, "BqnQnQqqiqB"),
    "rehash": (word.rehash, "QnQqn"),
    "count_tokens": (sums.count_tokens, "iqnqBBq"),
    "gather": (sums.gather, "iqnqiqi"),
    "sum_floats": (sums.sum_rows, "iqnqqiffnnnnnqff"),
    "sum_bytes": (sums.sum_rows, "iqnqqibfnnnnnqff"),
    "fill_vocabulary": (piece.fill_vocabulary, "Bqnin"),
    "tokenize": (piece.tokenize, "BqnnnnBinBqinnQBqinq"),
    "cut_runs": (term.cut_runs, "BqnnBq"),
    "collect_terms": (term.collect_terms, "iqnqIIIqqId"),
}
"""Name, function and arguments: whole numbers (n) and pointers to int8 (b), uint8 (B), int32 (i), uint32 (I), int64
(q), uint64 (Q), float32 (f) and float64 (d). All return a whole number."""
