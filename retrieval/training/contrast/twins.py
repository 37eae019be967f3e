"""Two texts that differ in one edit, each with the statement that it answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from retrieval.training.contrast.edits import (
    add_negation,
    edits,
    exchange_number,
    exchange_opposites,
    exchange_roles,
    remove_negation,
)
from retrieval.training.contrast.queries import as_question, shorten
from retrieval.training.pairs import Pair

_SENTENCE = re.compile(
    r"(?<=[a-z0-9)\]\"'%][.!?])(?<!\bRev\.)(?<!\bMr\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\bJr\.)(?<!\bvs\.)(?<!\bNo\.)\s+(?=[A-Z\"'(])"
)
_NUMBER = re.compile(r"(?<![\w.,-])\d{1,3}(?:,\d{3})+(?![\w,-])|(?<![\w.,-])\d+(?:\.\d+)?(?![\w-]|[.,]\d)")
_NAME = re.compile(r"(?<![\w'-])[A-Z][a-z]+(?: [A-Z][a-z]+)+(?![\w'-])")
_WORD = re.compile(r"[A-Za-z]+|\d+")
_EMPTY_TEXT = """
the a an of in on at to by for from with and or but is are was were be been has have had it its he she they his
her their this that these those as not no did does do who which
"""
_EMPTY = frozenset(_EMPTY_TEXT.split())
# Relations that hold in both directions: changing the roles changes nothing.
_MUTUAL = re.compile(
    r"\b(?:and|or|with|between|both|same|married|marr\w+|wife|husband|spouse|divorced|friends?|partners?|met|sibling\w*|"
    r"brothers?|sisters?|relationship|together|alongside|near|border\w*|co-\w+|each other|starring|stars|,)(?!\w)",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Twins:
    """Two texts that differ in one edit, each with the statement that it answers."""

    statements: tuple[str, str]
    texts: tuple[str, str]
    kind: str


def answering_twins(pair: Pair, words: int, overlap: float) -> Iterator[Twins]:
    """Edits of the sentence that answers a statement, made in the statement too; else edits of any sentence.

    Args:
        pair: A query and the passage that answers it.
        words: Longest text.
        overlap: Share of the content words of a statement that a sentence must have to answer it.
    """
    sentences = split_sentences(pair.positive)
    if is_statement(pair.query) and (place := _closest(pair.query, sentences, overlap)) is not None:
        for change in _parallel_edits(pair.query, sentences[place]):
            yield from _in_window(change, sentences, place, words)
    if not is_statement(pair.query) or len(pair.query.split()) > 12:
        for place, sentence in enumerate(sentences):
            for change in _own_edits(sentence):
                yield from _in_window(change, sentences, place, words)


def agreeing_twins(pair: Pair, words: int, overlap: float) -> Iterator[Twins]:
    """Edits that make a passage agree with the statement that it contradicts; arguments as in `answering_twins`."""
    sentences = split_sentences(pair.positive)
    place = _closest(pair.query, sentences, overlap)
    if place is None:
        return
    sentence = sentences[place]
    for edit in exchange_opposites(sentence):
        word = edit.text[edit.start : edit.end].lower()
        if any(
            back.anchor == edit.anchor and back.text[back.start : back.end].lower() != word
            for back in exchange_opposites(pair.query)
        ):
            denied = next(b.text for b in exchange_opposites(pair.query) if b.anchor == edit.anchor)
            change = _Change((denied, pair.query), (sentence, edit.text), "opposite")
            yield from _in_window(change, sentences, place, words)
    said, stands = _NUMBER.findall(pair.query), _NUMBER.findall(sentence)
    if len(said) == 1 and len(stands) == 1 and said[0] != stands[0] and len(said[0]) == len(stands[0]):
        changed, corrected = (
            exchange_number(sentence, stands[0], said[0]),
            exchange_number(pair.query, said[0], stands[0]),
        )
        if changed and corrected:
            change = _Change((corrected.text, pair.query), (sentence, changed.text), "number")
            yield from _in_window(change, sentences, place, words)


@dataclass(frozen=True, slots=True)
class _Change:
    """A statement and a sentence before and after the same edit."""

    statements: tuple[str, str]
    sentences: tuple[str, str]
    kind: str


def _parallel_edits(statement: str, sentence: str) -> Iterator[_Change]:
    """Edits that can be made in both, so that the changed sentence answers the changed statement."""
    for edit in exchange_opposites(sentence):
        word = sentence[edit.start :].split(" ")[0].strip(".,;:").lower()
        for same in exchange_opposites(statement):
            if same.anchor == edit.anchor and statement[same.start :].lower().startswith(word):
                yield _Change((statement, same.text), (sentence, edit.text), "opposite")
    for number in _NUMBER.findall(statement):
        other = _another_number(number)
        here, there = exchange_number(statement, number, other), exchange_number(sentence, number, other)
        if here and there:
            yield _Change((statement, here.text), (sentence, there.text), "number")
    yield from _parallel_negations(statement, sentence)
    names = [name for name in dict.fromkeys(_NAME.findall(statement)) if name in sentence]
    if (
        len(names) == 2
        and not _MUTUAL.search(_between(statement, *names))
        and not _MUTUAL.search(_between(sentence, *names))
    ):
        here_roles, there_roles = exchange_roles(statement, *names), exchange_roles(sentence, *names)
        if here_roles and there_roles:
            yield _Change((statement, here_roles.text), (sentence, there_roles.text), "roles")


def _parallel_negations(statement: str, sentence: str) -> Iterator[_Change]:
    here, there = add_negation(statement), add_negation(sentence)
    if here and there and _same_predicate(statement[here.start :], sentence[there.start :]):
        yield _Change((statement, here.text), (sentence, there.text), "negation")
    removed_here, removed_there = next(remove_negation(statement), None), next(remove_negation(sentence), None)
    if removed_here and removed_there and _same_predicate(removed_here.text, removed_there.text):
        yield _Change((statement, removed_here.text), (sentence, removed_there.text), "negation")


def _own_edits(sentence: str) -> Iterator[_Change]:
    """Edits of a sentence that can stand alone as a statement."""
    if not 6 <= len(sentence.split()) <= 36 or _NOT_ALONE.match(shorten(sentence)) or _ODD.search(sentence):
        return
    for edit in edits(sentence):
        kind = "negation" if edit.kind in ("deny", "affirm") else edit.kind
        end = _clause_end(edit.text, edit.end)
        statements = (sentence[: len(sentence) - len(edit.text) + end], edit.text[:end])
        if 5 <= len(statements[0].split()) <= 24 and as_question(shorten(statements[0])):
            yield _Change(statements, (sentence, edit.text), kind)


_NOT_ALONE = re.compile(
    r"(?:He|She|It|They|This|These|Those|That|His|Her|Their|Its|We|I|You|Our|Your|My|But|And|Or|If|When|While|Although|"
    r"As|Since|Because|See|Note|Such|Here|There|What|How|Why|Who|Where|To|So|Then|Nor|[A-Z][a-z]+ing|Both|Some|One|Also)\b"
)
# Short forms are spelt out before an edit, which would be a second difference; mark-up and code are no sentences.
_ODD = re.compile(r"n't\b|[$\\{}|=<>#*_`?:]|[^.]$|\.\.")


def _clause_end(text: str, position: int) -> int:
    """Where the clause ends that holds ``position``, when at least three words follow it in that clause."""
    for match in re.finditer(r"[,;:]|\s(?:but|although|while|because|which|and)\b", text[position:]):
        part = text[: position + match.start()]
        if len(part[position:].split()) >= 3 and part.count("(") == part.count(")") and part.count('"') % 2 == 0:
            return len(part)
    return len(text)


def _in_window(change: _Change, sentences: Sequence[str], place: int, words: int) -> Iterator[Twins]:
    one, other = (_window(sentences, place, text, words) for text in change.sentences)
    if one and other and one != other:
        statements = (change.statements[0].strip(), change.statements[1].strip())
        yield Twins(statements, (one, other), change.kind)


def _window(sentences: Sequence[str], place: int, changed: str, words: int) -> str:
    """The changed sentence with the sentences around it that fit; empty where it alone is too long."""
    parts, room = [changed], words - 2 - len(sentences[place].split())
    if room < 0:
        return ""
    before, after = place - 1, place + 1
    while before >= 0 or after < len(sentences):
        if before >= 0 and len(sentences[before].split()) <= room:
            room -= len(sentences[before].split())
            parts.insert(0, sentences[before])
            before -= 1
        else:
            before = -1
        if after < len(sentences) and len(sentences[after].split()) <= room:
            room -= len(sentences[after].split())
            parts.append(sentences[after])
            after += 1
        else:
            after = len(sentences)
    return " ".join(parts)


def split_sentences(text: str) -> list[str]:
    """Sentences of a text in which every white space is one space."""
    return [part for part in _SENTENCE.split(" ".join(text.split())) if part]


def is_statement(query: str) -> bool:
    """Whether a query states something: a sentence with a full stop, or one with a verb the rules know."""
    if query.rstrip().endswith("?") or len(query.split()) < 4 or _ASKS.match(query):
        return False
    return query.rstrip().endswith(".") or add_negation(query) is not None


_ASKS = re.compile(
    r"(?:what|who|whose|where|when|why|how|which|is|are|was|were|do|does|did|can|could|has|have)\b", re.I
)


def _closest(statement: str, sentences: Sequence[str], overlap: float) -> int | None:
    asked = _stems(statement)
    shares = [len(asked & _stems(sentence)) / max(1, len(asked)) for sentence in sentences]
    best = max(range(len(shares)), key=lambda index: (shares[index], -index), default=None)
    return best if best is not None and shares[best] >= overlap else None


def _stems(text: str) -> set[str]:
    return {word.lower()[:5] for word in _WORD.findall(text) if word.lower() not in _EMPTY}


def _same_predicate(statement: str, sentence: str) -> bool:
    """Whether the clauses after the edited verbs speak of the same thing."""
    clauses = [re.split(r"[,;.]| and | but ", text)[0] for text in (statement, sentence)]
    said, stands = (_stems(clause) for clause in clauses)
    first = [word.lower()[:5] for word in _WORD.findall(clauses[0]) if word.lower() not in _EMPTY][:1]
    return bool(said) and first[0] in stands and len(said & stands) >= len(said) / 2


def _between(text: str, one: str, other: str) -> str:
    first, second = sorted((text.index(one), text.index(other)))
    return text[first + 1 : second]


def _another_number(number: str) -> str:
    """A number of the same length that differs in one digit."""
    is_round = len(number) > 2 and number.endswith("0") and not re.fullmatch(r"[12]\d{3}", number)
    place = 0 if is_round else len(number) - 1
    digit = str((int(number[place]) + 4) % 9 + 1)
    return number[:place] + digit + number[place + 1 :]
