"""Rules that change the meaning of one English sentence with one small edit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from retrieval.opposites import (
    AUXILIARIES,
    LONG_FORMS,
    base_to_past,
    opposites,
    past_to_base,
)


@dataclass(frozen=True, slots=True)
class Edit:
    """A sentence with another meaning than the one it was made from.

    Args:
        text: The changed sentence.
        kind: ``deny`` (a negation was added), ``affirm`` (one was removed), ``opposite``, ``number`` or ``roles``.
        anchor: What was changed, in lower case: another sentence in which it stands can be changed in the same way.
        start: Where the change begins, characters in ``text``.
        end: Where it ends.
    """

    text: str
    kind: str
    anchor: str
    start: int
    end: int


_WORD = re.compile(r"[A-Za-z]+(?:[-'][A-Za-z]+)*")
_SUBORDINATE_TEXT = """
which that who whom whose where when while if because although though since unless whether than as
"""
_SUBORDINATE = frozenset(_SUBORDINATE_TEXT.split())
_QUANTIFIED = re.compile(r"^(?:all|every|each|some|many|most|several|both|any|few|only|either|neither|no)\b", re.I)
_NEGATION = re.compile(
    r"\b(?:not|no|never|without|neither|nor|none|nothing|nobody|cannot|hardly|rarely|seldom|few|little|unable|fail\w*|"
    r"refus\w*|lack\w*|without|except|unlike)\b|n't\b",
    re.I,
)
_PARTICIPLES_TEXT = """
been become begun broken brought built chosen come done drawn driven fallen found flown given gone grown held
kept known led left lost made met paid run seen sent shown sold spoken stood sung taken taught told thought won
worn written
"""
_PARTICIPLES = frozenset(_PARTICIPLES_TEXT.split())
_SUBJECTS_TEXT = """
he she it they we i you this these
"""
_SUBJECTS = frozenset(_SUBJECTS_TEXT.split())


def edits(sentence: str) -> list[Edit]:
    """Every edit that a rule finds in a sentence, in a fixed order."""
    found = [*remove_negation(sentence), *exchange_opposites(sentence)]
    denied = add_negation(sentence)
    return [*found, denied] if denied else found


def add_negation(sentence: str) -> Edit | None:
    """Deny the main clause: "He was" becomes "He was not", "She wrote" becomes "She did not write".

    ``None`` where the rules cannot tell the main verb, the sentence is negated already, or its subject is quantified
    ("all of them are" and "all of them are not" are no opposites).
    """
    if _NEGATION.search(sentence) or _QUANTIFIED.match(sentence) or "?" in sentence:
        return None
    words = list(_WORD.finditer(sentence))
    for place, word in enumerate(words[:14]):
        lower = word.group().lower()
        if place and lower in _SUBORDINATE:
            return None
        following = words[place + 1].group().lower() if place + 1 < len(words) else ""
        if (
            place
            and lower in AUXILIARIES
            and sentence[word.end() : word.end() + 1] == " "
            and _is_auxiliary(lower, following)
        ):
            changed = f"{word.group()} not" if lower != "can" else "cannot"
            rest = re.sub(r"^ (?:also|still|even|just)\b", "", sentence[word.end() :])
            return _edit(sentence[: word.start()], changed, rest, "deny", "main")
        if place and lower in past_to_base() and _is_main_verb(sentence, words, place):
            changed = f"did not {past_to_base()[lower]}"
            return _edit(sentence[: word.start()], changed, sentence[word.end() :], "deny", "main")
    return None


def _is_auxiliary(word: str, following: str) -> bool:
    if word in ("does", "did", "do"):
        return False
    if word in ("has", "have", "had"):
        return following in _PARTICIPLES or following.endswith("ed") or following in ("also", "since")
    return following not in ("to", "")


def _is_main_verb(sentence: str, words: list[re.Match[str]], place: int) -> bool:
    """Whether a simple past follows its subject: a name, a pronoun, or "The film"."""
    before = words[place - 1]
    if sentence[before.end() : words[place].start()] != " " or not words[place].group().islower():
        return False
    if before.group().lower() in _SUBJECTS and (place == 1 or sentence[: before.start()].rstrip().endswith(",")):
        return True
    if place == 2 and words[0].group() in ("The", "His", "Her", "Its", "Their"):
        return before.group().islower()
    return before.group()[0].isupper() and place <= 4 and sentence[: before.start()].count(",") == 0


_REMOVALS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"\b(?:is|are|was|were|has|have|had|could|will|would|must|should|can) (not)\b(?! only)"), ""),
    (re.compile(r"\b(?:has|have|had|is|are|was|were|will|would|could|can) (never)\b"), ""),
    (re.compile(r"\b(cannot)\b(?! only)"), "can"),
    (re.compile(r"\b(?:he|she|it|they|He|She|It|They|who|which|but|and) (never)(?= [a-z]+ed\b)"), ""),
    (re.compile(r"\b(with no)\b"), "with"),
    (re.compile(r"\b(?:is|was|are|were) (no)(?= [a-z]{4})(?! longer)"), "some"),
    (re.compile(r"\b(?:has|had|have|found|shows?|showed|received|made|gave) (no)(?= [a-z]{4})(?! longer)"), "some"),
)


def remove_negation(sentence: str) -> Iterator[Edit]:
    """Take a negation out: "was not" becomes "was", "did not write" becomes "wrote", "has no" becomes "has some"."""
    for short, long in LONG_FORMS.items():
        sentence = re.sub(rf"\b{re.escape(short)}\b", long, sentence)
    if len(_NEGATION.findall(sentence)) != 1:
        return
    for pattern, changed in _REMOVALS:
        for match in pattern.finditer(sentence):
            start, end = match.span(1)
            before, after = sentence[:start], sentence[end:]
            if not changed:
                before = before.rstrip(" ")
            if changed in ("", "can"):
                after = re.sub(r"^([^,.;]*?)\b(any|yet|either)\b", _positive_word, after)
            yield _edit(before, str(changed), after, "affirm", "main")
            return
    denied = re.search(r"\b(did|does|do) not ([a-z]+)\b", sentence)
    if denied and (verb := _inflected(denied[1], denied[2])):
        yield _edit(sentence[: denied.start()], verb, sentence[denied.end() :], "affirm", "main")


def _positive_word(match: re.Match[str]) -> str:
    return match[1] + {"any": "some", "yet": "already", "either": "both"}[match[2]]


def _inflected(auxiliary: str, base: str) -> str | None:
    if base.endswith("ly") and base not in ("apply", "rely", "reply", "supply", "fly", "comply", "imply"):
        return None  # an adverb
    if auxiliary == "do":
        return base
    if auxiliary == "did":
        return base_to_past().get(base)
    if base in ("have", "be", "do", "go"):
        return {"have": "has", "do": "does", "go": "goes"}.get(base)
    if base.endswith("y") and base[-2] not in "aeou":
        return base[:-1] + "ies"
    return base + ("es" if base.endswith(("s", "sh", "ch", "x", "z")) else "s")


# Where a word of the list does not have the meaning that its opposite denies.
_NOT_HERE = re.compile(
    r"\b(?:years? old|months? old|most of|at most|at least|more or less|no more|once more|more than one|after all|"
    r"late [12]\d{3}s?|early [12]\d{3}s?|less than|more than|same time|same year|as well as|"
    r"at first|first time|last name|first name|"
    r"the time|long as|as long|no longer|able to|unable to|high school|right-handed|none of|no one|first lady|"
    r"(?:second|third|\w+th) (?:most|least|\w+est)|with|higher schools?|higher education|to begin with|"
    r"loss function|by and large|"
    r"known as|known for|well known|best known|also known|used to|"
    r"a few|too many|how many|so many|as many|lost to|more and more|fall in|used as|used for|used by|used in|"
    r"open source|private equity|public domain|long-term|short-term|low-level|high-level|"
    r"the end|in order|end of|the following)\b",
    re.I,
)


def exchange_opposites(sentence: str) -> Iterator[Edit]:
    """Exchange one word, or group of words, for its opposite: "increased" becomes "decreased".

    Capitalised words inside a sentence are names and stay.
    """
    table = opposites()
    fixed = [match.span() for match in _NOT_HERE.finditer(sentence)]
    phrases = [m for m in re.finditer(r"\b[A-Za-z]+ (?:to|least|most|than|longer|one|of)\b", sentence)]
    found = [match for match in phrases if match.group().lower() in table]
    spans = [match.span() for match in found]
    for match in (*found, *_WORD.finditer(sentence)):
        word = match.group()
        inside = any(a <= match.start() and match.end() <= b for a, b in (*fixed, *spans))
        if word.lower() not in table or (inside and match not in found):
            continue
        if not word.islower() and (match.start() > 0 or re.match(r" [A-Z&]", sentence[match.end() :])):
            continue
        if re.search(rf"\b{re.escape(table[word.lower()])}\b", sentence, re.I):
            continue  # "advantages and disadvantages"
        if "un" + word.lower() == table[word.lower()] and not _is_state(sentence, match):
            continue
        other = table[word.lower()]
        other = other.capitalize() if word[0].isupper() else other
        before = _article(sentence[: match.start()], other)
        yield _edit(before, other, sentence[match.end() :], "opposite", min(word.lower(), other.lower()))


def _is_state(sentence: str, word: re.Match[str]) -> bool:
    """Whether a participle tells a state ("it was damaged"), not what somebody did ("was damaged by", "he damaged")."""
    before, after = sentence[: word.start()].lower().split(), sentence[word.end() :].split()
    if not word.group().endswith("ed") and word.group() not in ("known", "paid"):
        return True
    led = bool(before) and before[-1] in _BEFORE_STATES
    return led and (not after or after[0] not in _AFTER_ACTIONS)


_BEFORE_STATES_TEXT = "is are was were be been remain remains remained not still largely an a"
_BEFORE_STATES = frozenset(_BEFORE_STATES_TEXT.split())
_AFTER_ACTIONS_TEXT = "by in on as for from at to with into"
_AFTER_ACTIONS = frozenset(_AFTER_ACTIONS_TEXT.split())


def _article(before: str, word: str) -> str:
    """The text before a new word, with "a" or "an" as that word needs it."""
    vowel = word[0].lower() in "aeiou" and not word.lower().startswith(("usef", "usel", "usu", "uniq", "unif"))
    wanted = "an" if vowel else "a"
    return re.sub(r"\b([Aa])n? $", lambda match: ("A" if match[1] == "A" else "a") + wanted[1:] + " ", before)


def exchange_number(sentence: str, number: str, other: str) -> Edit | None:
    """Put another number in; ``None`` where it does not stand exactly once."""
    places = list(re.finditer(rf"(?<![\w.,-]){re.escape(number)}(?![\w%-]|[.,]\d)", sentence))
    if len(places) != 1:
        return None
    place = places[0]
    return _edit(sentence[: place.start()], other, sentence[place.end() :], "number", f"{number}>{other}")


def exchange_roles(sentence: str, one: str, other: str) -> Edit | None:
    """Let two names change places; ``None`` where they do not both stand exactly once."""
    if sentence.count(one) != 1 or sentence.count(other) != 1 or one in other or other in one:
        return None
    first, second = sorted((one, other), key=sentence.index)
    start, middle = sentence.index(first), sentence.index(second)
    changed = second + sentence[start + len(first) : middle] + first
    return _edit(sentence[:start], changed, sentence[middle + len(second) :], "roles", " > ".join(sorted((one, other))))


def _edit(before: str, changed: str, after: str, kind: str, anchor: str) -> Edit:
    return Edit(before + changed + after, kind, anchor, len(before), len(before) + len(changed))
