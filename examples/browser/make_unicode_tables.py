"""Writes unicode.js: the characters that the tokenizer drops, takes for accents or splits at, as it sees them itself.

Every browser knows another version of Unicode, and the tokenizer a fixed one. With these tables all of them cut texts
in the same way.

    python examples/browser/make_unicode_tables.py
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import normalizers, pre_tokenizers

HERE = Path(__file__).parent
SURROGATES = range(0xD800, 0xE000)


def ranges(codes: Iterable[int]) -> str:
    """First and last of each run, as steps from the one before, in base 36."""
    runs: list[list[int]] = []
    for code in sorted(codes):
        if runs and runs[-1][1] == code - 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    words, last = [], 0
    for first, end in runs:
        words += [_base36(first - last), _base36(end - first)]
        last = end
    return " ".join(words)


def _base36(number: int) -> str:
    digits = ""
    while True:
        number, rest = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[rest] + digits
        if not number:
            return digits


def main() -> None:
    """Ask the tokenizer about every character."""
    clean = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False
    )
    strip = normalizers.BertNormalizer(
        clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False
    )
    split = pre_tokenizers.BertPreTokenizer()
    dropped, accents, splitting = [], [], []
    for code in range(0x110000):
        if code in SURROGATES:
            continue
        character = chr(code)
        if clean.normalize_str(f"a{character}b") == "ab":
            dropped.append(code)
        elif strip.normalize_str(f"a{character}b") == "ab":
            accents.append(code)
        if len(split.pre_tokenize_str(f"a{character}b")) == 3:
            splitting.append(code)
    lines = [
        "// Made by make_unicode_tables.py: runs of code points, first and last as steps in base 36.",
        f'export const DROPPED = "{ranges(dropped)}";',
        f'export const ACCENTS = "{ranges(accents)}";',
        f'export const SPLITTING = "{ranges(splitting)}";',
    ]
    (HERE / "unicode.js").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(dropped):,} dropped, {len(accents):,} accents, {len(splitting):,} split at")


if __name__ == "__main__":
    main()
