"""Statements said in other words: as a question, as keywords, shortened, or with the negation moved."""

from __future__ import annotations

import random
import re

from retrieval.opposites import AUXILIARIES, LONG_FORMS, SHORT_FORMS, complements, opposites, past_to_base

_OPENING = re.compile(
    r"^(?:However|Moreover|Furthermore|Therefore|Thus|Hence|Also|Additionally|Consequently|Nevertheless|For example|"
    r"For instance|In addition|In fact|As a result|In contrast|On the other hand|Similarly|Instead|Finally|Indeed|"
    r"In \d{4}|In this paper|In this work|Here|Interestingly|Unfortunately|Later), (?=\w)"
)
_ASIDE = re.compile(r"\s*[(\[][^()\[\]]*[)\]]")
_UNSTRESSED_TEXT = """
the a an of in on at to by for from with and or but is are was were be been being has have had it its he she
they his her their this that these those as does did do will would so such also there we our which who
"""
_UNSTRESSED = frozenset(_UNSTRESSED_TEXT.split())
_LOWER_START_TEXT = """
the a an this these his her its their there in on at some most many all both one our
"""
_LOWER_START = frozenset(_LOWER_START_TEXT.split())


def rephrase(statement: str, generator: random.Random) -> str:
    """The statement in other words with the same meaning; the choice is the generator's."""
    text = shorten(statement)
    if generator.random() < 0.6:
        text = move_negation(text)
    if generator.random() < 0.3:
        text = contract(text)
    draw = generator.random()
    if draw < 0.5 and (question := as_question(text)):
        return question
    return keywords(text) if draw > 0.85 else text


def shorten(statement: str) -> str:
    """Without an opening such as "However," and without what stands in brackets."""
    text = _OPENING.sub("", _ASIDE.sub("", statement.strip())).strip()
    return text[:1].upper() + text[1:]


def contract(statement: str) -> str:
    """Put "isn't" for "is not"; a statement with a short form gets the long one."""
    for short, long in LONG_FORMS.items():
        if re.search(rf"\b{re.escape(short)}\b", statement):
            return re.sub(rf"\b{re.escape(short)}\b", long, statement)
    for long, short in SHORT_FORMS.items():
        statement = re.sub(rf"\b{long}\b", short, statement)
    return statement


def move_negation(statement: str) -> str:
    """Put "impossible" for "not possible" and the other way round; other statements stay as they are."""
    for match in re.finditer(r"\bnot ([a-z]+(?: to)?)\b", statement):
        for word in (match[1], match[1].split()[0]):
            if word in complements():
                return statement[: match.start()] + opposites()[word] + statement[match.start() + 4 + len(word) :]
    for match in re.finditer(r"\b(is|are|was|were) ([a-z]+)\b", statement):
        if match[2] in complements() and (other := opposites()[match[2]]) and match[2].startswith(("un", "in", "im")):
            return f"{statement[: match.start()]}{match[1]} not {other}{statement[match.end() :]}"
    return statement


def as_question(statement: str) -> str | None:
    """Ask "Was it not sold?" for "It was not sold."; ``None`` where the subject cannot be told."""
    words = statement.rstrip(" .").split()
    if not words or words[0].lower() in (
        "if",
        "since",
        "when",
        "while",
        "although",
        "as",
        "because",
        "after",
        "before",
    ):
        return None
    for place, word in enumerate(words[1:9], 1):
        if words[place - 1].endswith((",", ";", ":")) or word.lower() in (
            "which",
            "that",
            "who",
            "when",
            "if",
            "while",
        ):
            return None
        subject = " ".join(words[:place])
        if subject.split()[0].lower() in _LOWER_START:
            subject = subject[0].lower() + subject[1:]
        rest = " ".join(words[place + 1 :])
        if word == "cannot":
            return f"Can {subject} not {rest}?"
        if word in LONG_FORMS:
            auxiliary = LONG_FORMS[word].removesuffix(" not").removesuffix("not")
            return f"{auxiliary.capitalize()} {subject} not {rest}?"
        follows = words[place + 1] if place + 1 < len(words) else ""
        if word in AUXILIARIES and (word not in ("has", "have", "had", "do", "does", "did") or _verbal(follows)):
            return f"{word.capitalize()} {subject} {rest}?"
        if word in past_to_base() and (words[place - 1][0].isupper() or (place == 2 and words[0] == "The")):
            return f"Did {subject} {past_to_base()[word]} {rest}?"
    return None


def _verbal(word: str) -> bool:
    return word.endswith("ed") or word in ("not", "never", "been", "become", "made", "shown", "won", "written")


def keywords(statement: str) -> str:
    """Only the words that carry meaning, in lower case; negations stay."""
    words = [word.strip(".-'").lower() for word in re.findall(r"[\w'%.-]+", statement)]
    return " ".join(word for word in words if word and (word in opposites() or word not in _UNSTRESSED))
