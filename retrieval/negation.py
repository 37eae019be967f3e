"""Finds the words of an English query that negate something."""

from __future__ import annotations

import re

# Whole words only. "nothing", "nobody", "none", "nowhere" and "cannot" negate like "not". Left out on purpose:
# the prefixes un-, in-, non- and dis- (under, until, nonlinear, discover), "fail" and "deny" (topics as often as
# negations), "hardly" and "few" (degrees), and "but" and "only".
_WORDS = (
    "not|no|never|without|neither|nor|none|nothing|nobody|nowhere|cannot|except|excluding|"
    "lack|lacks|lacking|lacked|absence of|absent from|rather than|instead of|other than"
)
_CUE = re.compile(
    # The contraction with both apostrophes, and without one where no other word is spelt like it ("cant", "wont" are).
    r"(?<![\w-])(?:[a-z]+n['\u2019]t|(?:does|do|is|are|was|were|did|has|have|had|would|should|could)nt|"
    rf"{_WORDS})(?![\w-])",
    re.IGNORECASE,
)
# "no." and "No. 5" mean number; "why not" and "or not" ask for nothing negative; "not only" affirms.
_NOT_A_CUE = re.compile(
    r"\bno\.\s*\d|\bno\s+\d+\b(?!\s*[a-z])|\b(?:whether\s+or|or|why)\s+not\s*(?=[?.!]|$)|\bnot\s+only\b",
    re.IGNORECASE,
)


def negation_cues(query: str) -> tuple[str, ...]:
    """The words of a query that negate, in lower case, each once, in the order in which they appear.

    A small English list for a warning: it prefers to miss a rare form over warning about a query without negation.
    Prefixes (``unbroken``) are not found, ``note``, ``know`` or ``knot`` are not mistaken for one.

    Args:
        query: The query as given.

    Example:
        >>> negation_cues("Pipe not broken but leaking, without rust")
        ('not', 'without')
    """
    masked = _NOT_A_CUE.sub(lambda match: " " * len(match.group()), " ".join(query.split()))
    return tuple(dict.fromkeys(match.group().lower().replace("\u2019", "'") for match in _CUE.finditer(masked)))
