"""Finds the words of an English query that negate or exclude something."""

from __future__ import annotations

import re

# Whole words only. "nothing", "nobody", "none", "nowhere" and "cannot" negate like "not". Left out on purpose:
# the prefixes un-, in-, non- and dis- (under, until, nonlinear, discover), "deny" and "avoid" as such (topics as often
# as negations: how to avoid frost), opposites ("silent", "forbidden"), "hardly" and "few" (degrees), "but" and "only".
_WORDS = (
    "not|no|never|without|neither|nor|none|nothing|nobody|nowhere|cannot|unless|except|excepting|excluding|"
    "lack|lacks|lacking|lacked|absence of|absent from|devoid of|free from|free of|rather than|instead of|other than|"
    "apart from|aside from|with the exception of|leaving out|(?:all|any(?:thing|one|body)|every(?:thing|one|body)) but|"
    "fail(?:s|ed|ing)? to|unable to"
)
# The contraction with both apostrophes, and without one; "cant" and "wont" are words too, after these.
_CONTRACTIONS = (
    "[a-z]+n['\u2019]t|(?:does|do|is|are|was|were|did|has|have|had|would|should|could|must|need|ai)nt|"
    r"(?<!\bthe )(?<!\ba )(?<!\brail )(?<!\btrack )cant|(?<!\bhis )(?<!\bher )(?<!\btheir )(?<!\bwas )(?<!\bis )wont"
)
# Verbs that exclude where they say what the thing asked for does, or what has to be done.
_LEAVES_OUT = (
    r"(?:who|that|which)\s+(?P<does>avoids?|excludes?|omits?|skips?|leaves?\s+out|avoided|excluded|omitted|left\s+out)|"
    r"(?:must|should|ha(?:s|ve)\s+to|needs?\s+to)\s+be\s+(?P<must>avoided|excluded|omitted|left\s+out)"
)
# sugar-free, but not what is named so for good.
_FREE = r"(?!(?:duty|toll|hands|post|scot|context|model)-)[a-z]+-free"
_CUE = re.compile(rf"(?<![\w-])(?:{_CONTRACTIONS}|{_WORDS}|{_LEAVES_OUT}|{_FREE})(?![\w-])", re.IGNORECASE)
_NOT_A_CUE = re.compile(
    # "no." and "No. 5" mean number; "why not" and "or not" ask for nothing negative; "not only" affirms.
    r"\bno\.\s*\d|\bno\s+\d+\b(?!\s*[a-z])|\b(?:whether\s+or|or|why)\s+not\s*(?=[?.!]|$)|\bnot\s+only\b|"
    # Bounds: at most, at least, until.
    r"\bnot?\s+(?:more|less|fewer|later|earlier|sooner|longer|shorter|greater|larger|smaller|higher|lower)\s+than\b|"
    r"\byes\s*(?:or|and|/|,)?\s*no\b|\bno\s+(?:doubt|matter|wonder)\b|\bnothing\s+but\b|\bnot\s+to\s+mention\b|"
    # Distances, and what costs nothing.
    r"\bapart\s+from\s+(?:each\s+other|one\s+another)\b|\bfree\s+of\s+(?:charge|cost)\b|"
    r"\b(?:for|downloads?|watch|get|play|order|books?|samples?)\s+free\s+from\b",
    re.IGNORECASE,
)


def negation_cues(query: str) -> tuple[str, ...]:
    """The words of a query that negate or exclude, in lower case, each once, in the order in which they appear.

    A small English grammar for a warning: it prefers to miss a rare form over warning about a query without negation.
    Prefixes (``unbroken``) are not found, ``note``, ``know`` or ``knot`` are not mistaken for one, and bounds (``no
    more than three``) do not count.

    Args:
        query: The query as given.

    Example:
        >>> negation_cues("Pipe not broken but leaking, without rust")
        ('not', 'without')
        >>> negation_cues("a fund that avoids oil")
        ('avoids',)
    """
    masked = _NOT_A_CUE.sub(lambda match: " " * len(match.group()), " ".join(query.split()))
    found = (match["does"] or match["must"] or match.group() for match in _CUE.finditer(masked))
    return tuple(dict.fromkeys(cue.lower().replace("\u2019", "'") for cue in found))
