"""The LZ4 block format, one way: a few lines, where a package of its own would be a dependency for repairs alone.

Source: https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md
"""

from __future__ import annotations

_MOST = 1 << 28
"""Bytes of a block of unknown size; a damaged one could name any."""


def decompress_block(data: bytes, start: int, end: int, size: int | None) -> bytes:
    """What a block holds.

    Args:
        data: The block, and anything around it.
        start: Where it begins.
        end: Where it ends at the latest.
        size: How many bytes it holds; reading ends there. ``None`` where only ``end`` is known, and exact; then it is
            at most 256 MiB.

    Raises:
        ValueError: It is not such a block.
    """
    out = bytearray()
    at = start
    most = _MOST if size is None else size
    while at < end:
        token = data[at]
        at += 1
        literals = token >> 4
        if literals == 15:
            at, literals = _length(data, at, end, literals)
        if at + literals > end or len(out) + literals > most:
            raise ValueError("a literal reaches beyond the block")
        out += data[at : at + literals]
        at += literals
        if len(out) == size or (size is None and at == end):
            return bytes(out)
        if at + 2 > end:
            break
        back = data[at] | data[at + 1] << 8
        at += 2
        length = token & 15
        if length == 15:
            at, length = _length(data, at, end, length)
        length += 4
        if not 0 < back <= len(out) or len(out) + length > most:
            raise ValueError("a match reaches beyond what is there")
        begin = len(out) - back
        if back >= length:
            out += out[begin : begin + length]
        else:
            # It repeats itself: the last bytes again and again.
            pattern = bytes(out[begin:])
            out += (pattern * (length // back + 1))[:length]
    raise ValueError(f"a block of {'unknown size' if size is None else f'{size} bytes'} ends after {len(out)}")


def _length(data: bytes, at: int, end: int, length: int) -> tuple[int, int]:
    while at < end:
        step = data[at]
        at += 1
        length += step
        if step != 255:
            return at, length
    raise ValueError("a length has no end")
