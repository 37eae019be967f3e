"""Kernels that look up the words of texts in a table, and put new ones there.

Words are kept in chunks of 8 bytes, the last filled up with zeros; no word contains a zero byte. A slot of the table is
two numbers: the first chunk of a word, and an entry with its number plus one (24 bits), how many chunks it has (8 bits)
and where they are in the arena (32 bits).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from retrieval.encoders.compiled.byte_kernels import (
    SEED,
    Number,
    Pointer,
    below_first,
    bytes_in,
    chunk_at,
    load,
    mix,
    space_at,
    stops_of,
    touch,
    word_end,
)

PLAIN, ODD, UNKNOWN = 0, 1, 2
"""Marks of texts: all words found, not for the word table at all, some word not in the table."""
CHUNKS = 255
"""Chunks of the longest word that the table takes."""
WAITING = 32
"""Words whose slots are asked for before the first of them is read."""

_NONE = np.uint64(0)
_ID = np.uint64(2**24 - 1)
_COUNT = np.uint64(255)


def find(slots: Pointer, mask: Number, arena: Pointer, text: Pointer, start: Number, end: Number) -> Number:
    """The slot of a word, times two; an empty one when the word is not there."""
    count = (end - start + 7) >> 3
    first = chunk_at(text, start, end)
    code = mix(SEED, first)
    for number in range(1, count):
        code = mix(code, chunk_at(text, start + 8 * number, end))
    slot = np.int64(code & np.uint64(mask))
    while True:
        entry = slots[2 * slot + 1]
        if entry == _NONE:
            return 2 * slot
        if slots[2 * slot] == first and np.int64((entry >> np.uint64(24)) & _COUNT) == count:
            base = np.int64(entry >> np.uint64(32))
            same = True
            for number in range(1, count):
                if arena[base + number] != chunk_at(text, start + 8 * number, end):
                    same = False
                    break
            if same:
                return 2 * slot
        slot = (slot + 1) & mask


def key_at(text: Pointer, at: Number) -> Any:
    """The two chunks of the word that begins here, and where it ends; -1 when it needs a longer look.

    Most words have up to 16 bytes and end at a space or a line end: they are read in one or two loads. The second chunk
    is zero when there is one only.
    """
    first, second, stop = load(text, at), _NONE, np.int64(at)
    stops = stops_of(first)
    if stops == _NONE:
        second, stop = load(text, at + 8), np.int64(at + 8)
        stops = stops_of(second)
        second &= below_first(stops)
    else:
        first &= below_first(stops)
    if stops == _NONE:
        return first, second, np.int64(-1)
    stop += bytes_in(below_first(stops))
    return first, second, stop if text[stop] == 32 or text[stop] == 10 else np.int64(-1)


def look_up(
    slots: Pointer,
    mask: Number,
    arena: Pointer,
    keys: Pointer,
    waiting: Number,
    ids: Pointer,
    words: Number,
    found: Pointer,
) -> Number:
    """Numbers of the words whose keys are waiting; -1 for those that are not there. Returns all words so far."""
    missing = chunks = 0
    highest: Number = found[1]
    for number in range(waiting):
        first, second, slot = keys[3 * number], keys[3 * number + 1], np.int64(keys[3 * number + 2])
        count = 1 if second == _NONE else 2
        entry = slots[2 * slot + 1]
        while entry != _NONE:
            same = slots[2 * slot] == first and np.int64((entry >> np.uint64(24)) & _COUNT) == count
            if same and (count == 1 or arena[np.int64(entry >> np.uint64(32)) + 1] == second):
                break
            slot = (slot + 1) & mask
            entry = slots[2 * slot + 1]
        if entry == _NONE:
            missing += 1
            chunks += count
        identity: Number = np.int64(entry & _ID) - 1
        highest = max(highest, identity)
        ids[words + number] = identity
    found[0] += chunks
    found[1] = highest
    found[2] += missing
    return words + waiting


def look_up_long(
    slots: Pointer,
    mask: Number,
    arena: Pointer,
    text: Pointer,
    at: Number,
    ids: Pointer,
    words: Number,
    found: Pointer,
) -> Number:
    """The number of any word that begins here; returns where it ends, -1 when the text is odd."""
    stop: Number = np.int64(word_end(text, at))
    if stop < 0 or stop - at > 8 * CHUNKS:
        return np.int64(-1)
    entry = slots[find(slots, mask, arena, text, at, stop) + 1]
    identity: Number = np.int64(entry & _ID) - 1
    if entry == _NONE:
        found[0] += (stop - at + 7) >> 3
        found[2] += 1
    found[1] = max(found[1], identity)
    ids[words] = identity
    return stop


def scan_text(
    text: Pointer,
    at: Number,
    end: Number,
    slots: Pointer,
    mask: Number,
    arena: Pointer,
    ids: Pointer,
    words: Number,
    found: Pointer,
    keys: Pointer,
) -> Number:
    """Look up the words of one text; returns all words so far, -1 when the text is odd."""
    waiting = 0
    while at < end:
        if text[at] <= 32 or text[at] >= 128:
            space = space_at(text, at)
            if space > 0:
                at += space
                continue
            if space < 0:
                return np.int64(-1)
        first, second, stop = key_at(text, at)
        if stop < 0:
            words = look_up(slots, mask, arena, keys, waiting, ids, words, found)
            stop = look_up_long(slots, mask, arena, text, at, ids, words, found)
            if stop < 0:
                return np.int64(-1)
            words += 1
            waiting = 0
        else:
            code = mix(SEED, first) if second == _NONE else mix(mix(SEED, first), second)
            slot = code & np.uint64(mask)
            touch(slots, 2 * np.int64(slot))
            keys[3 * waiting], keys[3 * waiting + 1], keys[3 * waiting + 2] = first, second, slot
            waiting += 1
        if waiting == WAITING:
            words = look_up(slots, mask, arena, keys, waiting, ids, words, found)
            waiting = 0
        at = stop
    return np.int64(look_up(slots, mask, arena, keys, waiting, ids, words, found))


def scan(
    text: Pointer,
    offsets: Pointer,
    texts: Number,
    slots: Pointer,
    mask: Number,
    arena: Pointer,
    ids: Pointer,
    word_offsets: Pointer,
    marks: Pointer,
    found: Pointer,
    keys: Pointer,
) -> Number:
    """Look up the words of texts; returns how many are unknown (id -1).

    ``offsets[i]`` to ``offsets[i + 1] - 1`` is text ``i``, then comes a line end. ``found`` gets the chunks of all
    unknown words, the highest id, and how many are unknown. ``keys`` has room for three times `WAITING` numbers.
    """
    words: Number = np.int64(0)
    found[0] = found[1] = found[2] = 0
    for index in range(texts):
        word_offsets[index] = words
        before = found[2]
        end = offsets[index + 1] - 1
        after = scan_text(text, offsets[index], end, slots, mask, arena, ids, words, found, keys)
        if after < 0:
            marks[index] = ODD
            found[2] = before
        else:
            marks[index] = UNKNOWN if found[2] > before else PLAIN
            words = after
    word_offsets[texts] = words
    return np.int64(found[2])


def insert(
    text: Pointer,
    offsets: Pointer,
    texts: Number,
    slots: Pointer,
    mask: Number,
    arena: Pointer,
    starts: Pointer,
    state: Pointer,
    ids: Pointer,
    word_offsets: Pointer,
    marks: Pointer,
) -> Number:
    """Put the unknown words of scanned texts into the table, which has room; returns how many were new.

    ``state`` is the number of words and of chunks. Only one thread may insert, others may look words up meanwhile: a
    slot that is written in part matches nothing.
    """
    before = state[0]
    for index in range(texts):
        if marks[index] != UNKNOWN:
            continue
        at, word = offsets[index], word_offsets[index]
        while word < word_offsets[index + 1]:
            space = space_at(text, at)
            if space > 0:
                at += space
                continue
            stop = word_end(text, at)
            if ids[word] < 0:
                slot = find(slots, mask, arena, text, at, stop)
                if slots[slot + 1] == _NONE:
                    identity, base, count = state[0], state[1], (stop - at + 7) >> 3
                    for number in range(count):
                        arena[base + number] = chunk_at(text, at + 8 * number, stop)
                    starts[identity + 1] = base + count
                    state[0], state[1] = identity + 1, base + count
                    slots[slot] = arena[base]
                    slots[slot + 1] = (
                        np.uint64(identity + 1) | np.uint64(count) << np.uint64(24) | np.uint64(base) << np.uint64(32)
                    )
                ids[word] = np.int64(slots[slot + 1] & _ID) - 1
            word += 1
            at = stop
        marks[index] = PLAIN
    return np.int64(state[0] - before)


def rehash(slots: Pointer, mask: Number, arena: Pointer, starts: Pointer, words: Number) -> Number:
    """Fill empty slots with the words of a table."""
    for identity in range(words):
        base, count = starts[identity], starts[identity + 1] - starts[identity]
        code = SEED
        for number in range(count):
            code = mix(code, arena[base + number])
        slot = np.int64(code & np.uint64(mask))
        while slots[2 * slot + 1] != _NONE:
            slot = (slot + 1) & mask
        slots[2 * slot] = arena[base]
        slots[2 * slot + 1] = (
            np.uint64(identity + 1) | np.uint64(count) << np.uint64(24) | np.uint64(base) << np.uint64(32)
        )
    return words
