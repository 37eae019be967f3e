"""Minimal edits by hand: what each rule makes of a sentence, and what it leaves alone."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.datatypes import FloatArray
from retrieval.errors import DocumentError
from retrieval.evaluation.contrast import (
    ContrastPair,
    contrast_accuracy,
    read_claim_contrasts,
    read_constraint_contrasts,
    read_question_contrasts,
)
from retrieval.opposites import complements, opposites
from retrieval.training.contrast.edits import (
    Edit,
    add_negation,
    edits,
    exchange_number,
    exchange_opposites,
    exchange_roles,
    remove_negation,
)
from retrieval.training.contrast.lists import ContrastSettings, contrast_lists, judged_lists
from retrieval.training.contrast.queries import as_question, contract, keywords, move_negation, rephrase, shorten
from retrieval.training.pairs import Pair

ENGLISH = ["The", "pipe", "is", "not", "was", "broken", "old", "never", "has", "no", "more", "it", "They", "won"]


class TestAddingNegation:
    @pytest.mark.parametrize(
        ("sentence", "denied"),
        [
            ("The pipe is broken.", "The pipe is not broken."),
            ("He was also known for his work.", "He was not known for his work."),
            ("Cells can divide.", "Cells cannot divide."),
            ("The city has been rebuilt.", "The city has not been rebuilt."),
            ("Drake Bell released an EP in 2011.", "Drake Bell did not release an EP in 2011."),
            ("The film won two prizes.", "The film did not win two prizes."),
            ("She wrote novels.", "She did not write novels."),
        ],
    )
    def test_the_main_verb_is_denied(self, sentence: str, denied: str) -> None:
        edit = add_negation(sentence)
        assert edit is not None
        assert edit.text == denied

    @pytest.mark.parametrize(
        "sentence",
        [
            "The pipe is not broken.",  # denied already
            "All pipes are broken.",  # "all are not" is no opposite
            "The man who is old sleeps.",  # the first verb is not the main one
            "Is the pipe broken?",
            "The army has two tanks.",  # "has" is no auxiliary here
            "It contains lead, which was released.",
            "",
        ],
    )
    def test_where_the_main_verb_is_not_plain_nothing_is_done(self, sentence: str) -> None:
        assert add_negation(sentence) is None


class TestRemovingNegation:
    @pytest.mark.parametrize(
        ("sentence", "affirmed"),
        [
            ("The pipe is not broken but leaking.", "The pipe is broken but leaking."),
            ("She did not win the race.", "She won the race."),
            ("It does not carry any load.", "It carries any load."),
            ("It cannot be used in any way.", "It can be used in some way."),
            ("They have never been there.", "They have been there."),
            ("The drug had no effect.", "The drug had some effect."),
            ("It isn't sold.", "It is sold."),
        ],
    )
    def test_the_opposite_is_said(self, sentence: str, affirmed: str) -> None:
        assert [edit.text for edit in remove_negation(sentence)] == [affirmed]

    @pytest.mark.parametrize(
        "sentence", ["It is not only old but not dry.", "Without it he was not well.", "It is old."]
    )
    def test_two_negations_or_none_are_left(self, sentence: str) -> None:
        assert list(remove_negation(sentence)) == []


class TestOpposites:
    def texts(self, sentence: str) -> list[str]:
        return [edit.text for edit in exchange_opposites(sentence)]

    def test_one_word_at_a_time(self) -> None:
        assert self.texts("Aspirin increases the risk before lunch.") == [
            "Aspirin decreases the risk before lunch.",
            "Aspirin increases the risk after lunch.",
        ]

    def test_forms_articles_and_capitals_fit(self) -> None:
        assert self.texts("Most had an early lunch.") == ["Least had an early lunch.", "Most had a late lunch."]
        assert self.texts("The team won.") == ["The team lost."]
        assert self.texts("They stopped it.") == ["They started it."]

    @pytest.mark.parametrize(
        "sentence",
        [
            "He is 30 years old.",
            "They live in West London.",  # a name
            "The tenth most populous city.",
            "It has advantages and disadvantages.",
            "The song was released by them.",  # not the opposite of "unreleased"
        ],
    )
    def test_words_with_another_meaning_stay(self, sentence: str) -> None:
        assert self.texts(sentence) == []

    def test_groups_of_words_go_together(self) -> None:
        assert self.texts("At least ten came.") == ["At most ten came."]
        assert self.texts("They were able to pay.") == ["They were unable to pay."]

    def test_going_back_gives_the_sentence_again(self) -> None:
        for sentence in ("A strong increase helps.", "It is possible inside the house.", "Prices rose after the war."):
            for edit in exchange_opposites(sentence):
                assert sentence in self.texts(edit.text)

    def test_the_list_is_sound(self) -> None:
        assert len(opposites()) > 600
        assert all(word != other for word, other in opposites().items())
        assert complements() <= opposites().keys()


class TestNumbersAndRoles:
    def test_a_number_that_stands_once(self) -> None:
        edit = exchange_number("Built in 1987 for 19 people.", "1987", "1983")
        assert edit is not None
        assert edit.text == "Built in 1983 for 19 people."
        assert exchange_number("From 5 to 5.5 or 15.", "5", "6") is not None
        assert exchange_number("5 or 5", "5", "6") is None

    def test_names_change_places(self) -> None:
        edit = exchange_roles("Ann Lee beat Bob Ray in 1990.", "Ann Lee", "Bob Ray")
        assert edit is not None
        assert edit.text == "Bob Ray beat Ann Lee in 1990."
        assert exchange_roles("Ann Lee beat Ann Lee.", "Ann Lee", "Bob Ray") is None


class TestOtherWords:
    def test_questions(self) -> None:
        assert as_question("The pipe was not sold.") == "Was the pipe not sold?"
        assert as_question("Drake Bell released an EP.") == "Did Drake Bell release an EP?"
        assert as_question("It cannot float.") == "Can It not float?"
        assert as_question("If it was sold.") is None
        assert as_question("Nothing here.") is None

    def test_the_negation_moves(self) -> None:
        assert move_negation("It is not possible here.") == "It is impossible here."
        assert move_negation("The cause is unknown.") == "The cause is not known."
        assert move_negation("It is not red.") == "It is not red."

    def test_short_forms_keywords_and_openings(self) -> None:
        assert contract("It is not red.") == "It isn't red."
        assert contract("It isn't red.") == "It is not red."
        assert keywords("The pipe is not broken but leaking.") == "pipe not broken leaking"
        assert keywords("Rinse before the meal.") == "rinse before meal"
        assert shorten("However, the pipe (1990) is old.") == "The pipe is old."

    def test_no_wording_loses_or_adds_a_negation(self) -> None:
        for seed in range(40):
            text = rephrase("The pipe is not broken.", random.Random(seed)).lower()
            assert ("not" in text) or ("n't" in text), text
            assert "not" not in rephrase("The pipe is broken.", random.Random(seed)).lower()


CLAIM = Pair("Drake Bell put out an EP in 2011.", "Bell is a singer. Bell put out an EP in 2011, called A Reminder.")


class TestLists:
    def test_both_directions_of_every_edit(self) -> None:
        lists = contrast_lists([CLAIM], ContrastSettings(per_pair=8, negatives=0))
        numbers = [item for item in lists if item.source == "contrast-number"]
        assert len(numbers) == 2
        true, false = numbers
        assert "2011" in true.query
        assert "2011" in true.positive
        assert "2011" not in true.negatives[0]
        assert (false.positive, false.negatives[0]) == (true.negatives[0], true.positive)
        year = false.query.rstrip(".?").split()[-1]
        assert year != "2011"
        assert year in false.positive

    def test_a_denied_statement_is_answered_by_the_denied_passage(self) -> None:
        pair = Pair(
            "The old bridge was rebuilt in stone.", "It is long. The old bridge was rebuilt in stone by the town."
        )
        lists = contrast_lists([pair], ContrastSettings(per_pair=2, negatives=0, seed=1))
        assert len(lists) == 2
        (plain, denied) = lists if "not" not in lists[0].positive else lists[::-1]
        assert "was not rebuilt" in denied.positive
        assert plain.negatives[0] == denied.positive
        assert any(cue in denied.query.lower() for cue in ("not", "n't"))
        assert not any(cue in plain.query.lower() for cue in ("not", "n't"))

    def test_a_refuted_statement_is_answered_by_the_corrected_passage(self) -> None:
        refuted = Pair("The old bridge was rebuilt in 1950.", "The old bridge was rebuilt in 1930 by the town.")
        lists = contrast_lists([], ContrastSettings(negatives=0), refuted=[refuted])
        answers = {item.query.rstrip(".?").split()[-1]: item.positive for item in lists}
        assert "1950" in answers["1950"]
        assert "1930" in answers["1930"]

    def test_windows_hold_the_edit_and_are_short(self) -> None:
        filler = " ".join(f"Sentence {n} says little about it." for n in range(60))
        pair = Pair("what", f"{filler} The old bridge was rebuilt in stone by the town. {filler}")
        lists = contrast_lists([pair], ContrastSettings(window_words=40, negatives=0))
        assert lists
        for item in lists:
            assert "old bridge" in item.positive or "new bridge" in item.positive
            assert all(len(text.split()) <= 42 for text in (item.positive, *item.negatives))

    def test_ordinary_negatives_follow_the_twin(self) -> None:
        given = {CLAIM.query: ("Something else.", "Another thing.")}
        for item in contrast_lists([CLAIM], ContrastSettings(negatives=2), ordinary=given):
            assert set(item.negatives[1:]) == set(given[CLAIM.query])

    def test_the_seed_decides(self) -> None:
        pairs = [CLAIM, Pair("what", "The old bridge was rebuilt in stone by the town before the war.")]
        one, same, *others = (contrast_lists(pairs, ContrastSettings(seed=seed)) for seed in (1, 1, 2, 3, 4))
        assert one == same
        assert any(one != other for other in others)

    def test_judged_texts(self) -> None:
        rows = [("q", "it is so", True), ("q", "it is not so", False), ("r", "alone", True)]
        (item,) = judged_lists(rows, ContrastSettings(window_words=3), "here")
        assert (item.query, item.source) == ("q", "here")
        assert item.positive != item.negatives[0]

    @settings(max_examples=60, deadline=None)
    @given(st.text(max_size=120), st.text(max_size=400))
    def test_any_text_is_taken(self, query: str, passage: str) -> None:
        for item in contrast_lists([Pair(query, passage), CLAIM], refuted=[Pair(query, passage)]):
            assert item.positive != item.negatives[0]
            assert item.query

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.sampled_from(ENGLISH), max_size=12))
    def test_an_edit_changes_one_place(self, words: list[str]) -> None:
        sentence = " ".join(words)
        for edit in edits(sentence):
            assert isinstance(edit, Edit)
            assert edit.text != sentence
            assert sentence.startswith(edit.text[: edit.start].rsplit(" ", 1)[0][:5])


def words_in_common(query: str, texts: Sequence[str]) -> FloatArray:
    """Sees words, but not "not"."""
    seen = set(query.split()) - {"not"}
    return np.array([len(seen & set(text.split())) for text in texts], dtype=np.float32)


class TestEvaluation:
    PAIRS = (
        ContrastPair("dry cup", "cup is dry", "cup is wet", "cup"),
        ContrastPair("wet cup", "cup is wet", "cup is dry", "cup"),
        ContrastPair("not dry lamp", "lamp is not dry", "lamp is dry", "lamp"),
        ContrastPair("dry lamp", "lamp is dry", "lamp is not dry", "lamp"),
    )

    def test_by_hand(self) -> None:
        result = contrast_accuracy(self.PAIRS, words_in_common)
        assert (result.pairs, result.accuracy) == (4, 0.5)  # both lamps are ties, and a tie is wrong
        assert (result.both, result.both_accuracy) == (2, 0.5)
        assert result.accuracy_interval == (0.0, 1.0)

    def test_one_order_for_both_queries_gets_half_and_nothing(self) -> None:
        def first_wins(query: str, texts: Sequence[str]) -> FloatArray:
            return np.array([float("not" in text or "wet" in text) for text in texts], dtype=np.float32)

        result = contrast_accuracy(self.PAIRS, first_wins)
        assert (result.accuracy, result.both_accuracy) == (0.5, 0.0)
        with pytest.raises(ValueError, match="no contrast pairs"):
            contrast_accuracy([], first_wins)

    def test_files(self, tmp_path: Path) -> None:
        def write(name: str, rows: Sequence[object]) -> Path:
            content = "\n".join(json.dumps(row) for row in rows).encode()
            (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
            return tmp_path / name

        row = {"question": "q", "doc1": "a", "doc2": "b", "passage_id": 7}
        labels = [("NO", "YES"), ("YES", "NO"), ("YES", "DON'T KNOW")]
        questions = write("q.jsonl.gz", [row | {"label1": one, "label2": other} for one, other in labels])
        assert read_question_contrasts(questions) == [
            ContrastPair("q", "b", "a", "7"),
            ContrastPair("q", "a", "b", "7"),
        ]
        claims = [
            {"claim": "c", "evidence": e, "label": label, "split": split}
            for e, label, split in (("yes", "SUPPORTS", "test"), ("no", "REFUTES", "test"), ("x", "REFUTES", "dev"))
        ]
        assert read_claim_contrasts(write("c.jsonl", claims), "test") == [ContrastPair("c", "yes", "no")]
        assert len(read_claim_contrasts(tmp_path / "c.jsonl")) == 2
        ids = {"query": "q", "constraint_satisfying_doc_ids": ["1"], "constraint_violating_doc_ids": ["2"]}
        corpus = write("d.jsonl", [{"doc_id": "1", "text": "one"}, {"doc_id": "2", "text": "two"}])
        assert read_constraint_contrasts(write("a.jsonl", [ids]), corpus) == [ContrastPair("q", "one", "two")]
        for path, said in ((tmp_path / "none.jsonl", "cannot be read"), (corpus, "a row needs question")):
            with pytest.raises(DocumentError, match=said):
                read_question_contrasts(path)
        with pytest.raises(DocumentError, match="not in"):
            read_constraint_contrasts(tmp_path / "a.jsonl", write("e.jsonl", [{"doc_id": "1", "text": "one"}]))
