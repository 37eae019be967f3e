"""Adaptation on corpora that are small enough to reason about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from retrieval.config import Bm25Config
from retrieval.datatypes import EncoderFingerprint, FloatArray
from retrieval.encoders import Bm25Encoder
from retrieval.training.adapt import Adaptation, AdaptProgress, AdaptSettings, CorpusPassage, adapt
from retrieval.training.adaptation.check import Pool, balanced_change
from retrieval.training.adaptation.corpus import SENTENCE, TITLE, split_sentences, tokenize_corpus
from retrieval.training.adaptation.fusion import WEIGHTS, choose_weight
from retrieval.training.adaptation.loss import contrast
from retrieval.training.adaptation.pairs import PairShares, draw_pairs
from retrieval.training.adaptation.queries import PseudoQuery, pseudo_queries
from retrieval.training.adaptation.sums import pack
from retrieval.training.adaptation.trainer import Rates, Trainer
from retrieval.training.table import StaticTable

DIM = 32
TOPICS = 12
# Topic 3 is about "left3a … left3f" and "right3a … right3f": two vocabularies that share no word and no vector at the
# start, and occur in the same passages, as a term and its explanation do.
LEFT = [[f"left{topic}{letter}" for letter in "abcdef"] for topic in range(TOPICS)]
RIGHT = [[f"right{topic}{letter}" for letter in "abcdef"] for topic in range(TOPICS)]
COMMON = ["the", "of", "and", "is", "what", "how", "does", "work", "why", "when", "was", "who", "which"]
ABSENT = ["zebra", "quartz"]
WORDS = [*chain(*LEFT), *chain(*RIGHT), *COMMON, *ABSENT]
SETTINGS = AdaptSettings(steps=40, dimensions=(16,), batch_size=64)


@pytest.fixture(scope="module")
def table() -> StaticTable:
    vocabulary = {word: number for number, word in enumerate(["[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    vectors = np.random.default_rng(5).normal(size=(len(vocabulary), DIM)).astype(np.float32)
    return StaticTable(vectors, tokenizer)


@pytest.fixture(scope="module")
def passages() -> list[CorpusPassage]:
    """Fifteen passages of each topic: sentences of its left words and sentences of its right words."""
    generator = np.random.default_rng(1)

    def sentence(words: Sequence[str]) -> str:
        chosen = generator.permutation(words)[:4]
        return " ".join(["The", *chosen, *generator.choice(COMMON[1:4], 1)]) + "."

    found = []
    for number in range(TOPICS * 15):
        topic = number % TOPICS
        sides = (LEFT[topic], RIGHT[topic])
        text = " ".join(sentence(sides[place % 2]) for place in range(4))
        found.append(CorpusPassage(text, "", (), f"document {number}"))
    return found


@pytest.fixture(scope="module")
def sparse() -> Bm25Encoder:
    return Bm25Encoder(Bm25Config())


@pytest.fixture(scope="module")
def adapted(table: StaticTable, passages: list[CorpusPassage], sparse: Bm25Encoder) -> Adaptation:
    return adapt(table, passages, SETTINGS, sparse=sparse)


def mean_rank(table: StaticTable) -> float:
    """Labelled queries: two left words ask for a text of their topic's right words, among those of all topics."""
    queries = table.encode([" ".join(words[:2]) for words in LEFT])
    texts = table.encode([" ".join(words) for words in RIGHT])
    scores = queries @ texts.T
    return float((scores >= np.diag(scores)[:, None]).sum(axis=1).mean())


class TestAdapt:
    def test_words_that_share_passages_find_each_other(self, table: StaticTable, adapted: Adaptation) -> None:
        # By chance the right text of twelve is at place 6.5.
        assert mean_rank(table) > 4
        assert adapted.accepted
        assert mean_rank(adapted.table) < 1.5

    def test_words_that_the_corpus_does_not_have_stay_to_the_last_bit(
        self, table: StaticTable, adapted: Adaptation
    ) -> None:
        absent = [table.tokenizer.token_to_id(word) for word in ("[UNK]", *ABSENT)]
        np.testing.assert_array_equal(adapted.table.vectors[absent], table.vectors[absent])
        moved = (adapted.table.vectors != table.vectors).any(axis=1)
        assert moved[table.tokenizer.token_to_id("left0a")]

    def test_the_check_reports_every_kind_in_both_arms(self, adapted: Adaptation) -> None:
        rows = {row.kind: row for row in adapted.rows}
        assert {"sentence, static", "question, static", "sentence, hybrid", "question, hybrid"} <= set(rows)
        row = rows["sentence, static"]
        assert row.queries == 50  # a third of 180 is more, an eighth less: 50 are held out
        assert row.low > 0
        assert row.low <= row.after - row.before <= row.high

    def test_the_start_is_not_changed_and_the_seed_decides(
        self, table: StaticTable, passages: list[CorpusPassage], sparse: Bm25Encoder, adapted: Adaptation
    ) -> None:
        before = table.vectors.copy()
        again = adapt(table, passages, SETTINGS, sparse=sparse)
        other = adapt(table, passages, replace(SETTINGS, seed=1), sparse=sparse)
        np.testing.assert_array_equal(again.table.vectors, adapted.table.vectors)
        assert again.rows == adapted.rows
        assert (other.table.vectors != adapted.table.vectors).any()
        np.testing.assert_array_equal(table.vectors, before)

    def test_a_harmful_run_is_refused(self, table: StaticTable, sparse: Bm25Encoder) -> None:
        """One sentence of random words each: there is nothing to learn, and huge steps forget which word is which."""
        generator = np.random.default_rng(3)
        words = [*chain(*LEFT), *chain(*RIGHT)]
        passages = [CorpusPassage(" ".join(generator.permutation(words)[:9]), "", (), str(n)) for n in range(400)]
        knows_words = table.with_vectors(np.eye(len(table.vectors), dtype=np.float32))
        refused = adapt(knows_words, passages, replace(SETTINGS, learning_rate=1.0), sparse=sparse)
        assert not refused.accepted
        assert (refused.table.vectors != knows_words.vectors).any()  # for those who want it nevertheless
        assert "loss" in refused.reason
        rows = {row.kind: row for row in refused.rows}
        assert rows["question, static"].high < 0
        assert refused.start_weight <= 0.4

    def test_progress_has_stages_in_order_a_falling_loss_and_the_check(
        self, table: StaticTable, passages: list[CorpusPassage], sparse: Bm25Encoder
    ) -> None:
        seen: list[AdaptProgress] = []
        result = adapt(table, passages, SETTINGS, sparse=sparse, on_progress=seen.append)
        assert list(dict.fromkeys(one.stage for one in seen)) == ["reading", "training", "checking"]
        losses = [one.loss for one in seen if one.loss is not None]
        assert losses[-1] < 0.7 * losses[0]
        assert [(one.done, one.of) for one in seen if one.stage == "training"] == [(n, 40) for n in (10, 20, 30, 40)]
        assert seen[-1].check is not None
        assert seen[-1].check > 0
        assert (result.steps, result.passages) == (40, len(passages))

    def test_the_time_limit_ends_the_training(
        self, table: StaticTable, passages: list[CorpusPassage], sparse: Bm25Encoder
    ) -> None:
        result = adapt(table, passages, replace(SETTINGS, steps=None, seconds=0.001), sparse=sparse)
        assert result.steps == 1

    def test_too_few_passages(self, table: StaticTable, passages: list[CorpusPassage], sparse: Bm25Encoder) -> None:
        with pytest.raises(ValueError, match="at least 50 passages with four known tokens, got 49 of 49"):
            adapt(table, passages[:49], SETTINGS, sparse=sparse)
        unknown = [CorpusPassage("nothing of this is known here", "", (), str(n)) for n in range(60)]
        with pytest.raises(ValueError, match="got 0 of 60"):
            adapt(table, unknown, SETTINGS, sparse=sparse)

    def test_a_table_that_is_not_finite(
        self, table: StaticTable, passages: list[CorpusPassage], sparse: Bm25Encoder
    ) -> None:
        broken = StaticTable(np.full_like(table.vectors, np.nan), table.tokenizer)
        with pytest.raises(ValueError, match="not finite"):
            adapt(broken, passages, SETTINGS, sparse=sparse)

    def test_odd_passages_do_no_harm(
        self, table: StaticTable, passages: list[CorpusPassage], sparse: Bm25Encoder
    ) -> None:
        odd = [
            CorpusPassage(text, "", (), f"odd {text[:9]!r}") for text in ("", " \n", "\x00\ufffd", "the", "the " * 999)
        ]
        result = adapt(table, [*odd, *passages], SETTINGS, sparse=sparse)
        assert np.isfinite(result.table.vectors).all()
        assert mean_rank(result.table) < 1.5

    @pytest.mark.parametrize(
        ("name", "value"), [("seconds", 0.0), ("steps", 0), ("batch_size", 1), ("temperature", 0.001)]
    )
    def test_settings_out_of_range(self, name: str, value: float) -> None:
        with pytest.raises(ValueError, match=name):
            replace(SETTINGS, **{name: value})


class TeacherOfSides:
    """Knows that left and right words of a topic mean the same, and nothing else."""

    dim = TOPICS
    fingerprint = EncoderFingerprint("teacher", "0" * 12, "two-stage", "skip", None, TOPICS, True)

    def encode_queries(self, texts: Sequence[str]) -> FloatArray:
        sides = [[*left, *right] for left, right in zip(LEFT, RIGHT, strict=True)]
        counts = [[sum(text.lower().count(word) for word in words) for words in sides] for text in texts]
        vectors = np.array(counts, np.float32).reshape(len(texts), TOPICS)
        return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9), np.float32)

    encode_documents = encode_queries

    def count_tokens(self, text: str) -> int:
        return len(text.split())


def test_a_teacher_is_listened_to(table: StaticTable, sparse: Bm25Encoder) -> None:
    """Passages have one side only, so that the corpus alone cannot tell which sides belong together."""
    generator = np.random.default_rng(2)
    passages = []
    for number in range(TOPICS * 16):
        words = (LEFT if number % 2 else RIGHT)[number // 2 % TOPICS]
        text = " ".join(" ".join(generator.permutation(words)[:4]) + "." for _ in range(3))
        passages.append(CorpusPassage(text, "", (), str(number)))
    settings = replace(SETTINGS, steps=90)
    alone = adapt(table, passages, settings, sparse=sparse)
    taught = adapt(table, passages, settings, sparse=sparse, teacher=TeacherOfSides())
    assert mean_rank(alone.table) > 3.5
    assert mean_rank(taught.table) < mean_rank(alone.table) - 1.5


class TestPairs:
    def test_pieces_are_titles_and_sentences(self, table: StaticTable) -> None:
        passage = CorpusPassage("left0a is left0b. Left0c.\nleft0d", "left1a", ("left1b", "left1a"), "x")
        corpus = tokenize_corpus(table, [passage])
        words = [table.tokenizer.id_to_token(token) for token in corpus.tokens[corpus.tokens > 0]]
        assert words == ["left1a", "left1b", "left0a", "is", "left0b", "left0c", "left0d"]
        assert corpus.kinds.tolist() == [TITLE, 1, SENTENCE, SENTENCE, SENTENCE]

    def test_sentences_end_in_other_scripts_too(self) -> None:
        assert split_sentences("One (two). Three?\n\nfour. five") == ["One (two).", "Three?", "four. five"]
        assert split_sentences("\u4e00\u3002\u4e8c\uff01") == ["\u4e00\u3002", "\u4e8c\uff01"]

    def test_a_long_text_in_lower_case_has_sentences(self) -> None:
        sentence = "the flow over a wing was measured at many angles and speeds ."
        assert split_sentences(" ".join([sentence] * 6)) == [sentence] * 6

    def test_the_anchor_is_taken_out_of_its_positive(self, table: StaticTable) -> None:
        text = f"{' '.join(LEFT[0][:3])}. The {' '.join(RIGHT[0][:3])}."
        corpus = tokenize_corpus(table, [CorpusPassage(text, "", (), str(number)) for number in range(40)])
        shares = PairShares(titles=0.0, keywords=0.0, keep=0.0, dropout=0.0)
        rarity = np.zeros(len(table.vectors), np.float32)
        anchors, positives = draw_pairs(corpus, np.arange(40), rarity, shares, np.random.default_rng(0))
        middle, end = corpus.pieces[1:3]
        sentences = {tuple(corpus.tokens[:middle]), tuple(corpus.tokens[middle:end])}
        asked = set()
        for row in range(40):
            anchor, positive = (tuple(one.ids[one.offsets[row] : one.offsets[row + 1]]) for one in (anchors, positives))
            assert {anchor, positive} == sentences
            asked.add(anchor)
        assert asked == sentences

    def test_a_single_sentence_is_split_in_two_parts(self, table: StaticTable) -> None:
        corpus = tokenize_corpus(table, [CorpusPassage(" ".join(LEFT[0]), "", (), "x")])
        shares = PairShares(titles=0.0, keywords=0.0, keep=0.0, dropout=0.0)
        rarity = np.zeros(len(table.vectors), np.float32)
        anchors, positives = draw_pairs(corpus, np.array([0]), rarity, shares, np.random.default_rng(0))
        assert sorted([*anchors.ids, *positives.ids]) == sorted(corpus.tokens)
        assert len(anchors.ids) > 0 < len(positives.ids)


class TestLoss:
    def test_gradient_is_that_of_finite_differences(self) -> None:
        generator = np.random.default_rng(0)
        left, right = generator.normal(size=(2, 4, 6)).astype(np.float32)
        same = np.zeros((4, 4), bool)
        same[0, 2] = same[2, 0] = True
        targets = generator.dirichlet(np.ones(4), size=4).astype(np.float32)
        for wanted in (None, targets):
            _, slope, other = contrast(left, right, same, (6, 3), 0.5, wanted)
            for array, found in ((left, slope), (right, other)):
                for place in ((0, 0), (2, 4), (3, 1)):
                    kept, losses = array[place], []
                    for step in (1e-2, -1e-2):
                        array[place] = kept + step
                        losses.append(contrast(left, right, same, (6, 3), 0.5, wanted)[0])
                    array[place] = kept
                    assert (losses[0] - losses[1]) / 2e-2 == pytest.approx(found[place], abs=2e-3)

    def test_two_pairs_by_hand(self) -> None:
        # Cosines are 1 on the diagonal and 0 beside it: -log(e / (e + 1)) at temperature 1, both ways.
        vectors = np.eye(2, dtype=np.float32)
        loss, _, _ = contrast(vectors, vectors, np.zeros((2, 2), bool), (2,), 1.0)
        assert loss == pytest.approx(np.log(1 + np.exp(-1)), rel=1e-5)

    def test_passages_of_one_document_are_no_negatives(self, table: StaticTable) -> None:
        """All of one document: there is nothing to be told apart from, the loss is 0; of two documents, it is not."""
        first, second = pack([[1], [2]]), pack([[3], [4]])
        one, two = (
            Trainer(table.vectors, Rates(), (DIM,)).step(first, second, np.array(documents), 1.0)
            for documents in ([7, 7], [7, 8])
        )
        assert one == pytest.approx(0.0, abs=1e-5)
        assert two > 0.01


class TestPool:
    @pytest.fixture
    def pool(self, table: StaticTable, sparse: Bm25Encoder) -> Pool:
        texts = ["left0a left0b", "left0a left0c", "right0a right0b", "right1a right1b"]
        queries = [
            PseudoQuery("sentence", "left0a", 1, "left0c"),  # without the word, the source is behind passage 0
            PseudoQuery("question", "left0c", 1, None),
            PseudoQuery("sentence", "right0a", 3, None),  # passage 2 is of the same document and does not compete
        ]
        return Pool(table, texts, np.array([0, 1, 2, 2]), queries, sparse)

    def test_gains_by_hand(self, pool: Pool, table: StaticTable) -> None:
        vectors = np.zeros_like(table.vectors)
        for axis, word in enumerate(["left0a", "left0b", "left0c", "right0a", "right0b", "right1a", "right1b"]):
            vectors[table.tokenizer.token_to_id(word), axis] = 1.0
        gains = pool.gains(pool.sums(vectors), (0.0, 1.0))
        # BM25 finds nothing for the third, so the static arm alone is asked: every score is 0, and a tie is shared.
        assert gains[:2].tolist() == [[0.0, pytest.approx(1 / np.log2(3))], [1.0, 1.0]]

    def test_half_way_is_the_mean_of_the_vectors(self, pool: Pool, table: StaticTable) -> None:
        other = np.random.default_rng(0).normal(size=table.vectors.shape).astype(np.float32)
        mixed = pool.sums(table.vectors).mix(pool.sums(other), 0.5)
        np.testing.assert_allclose(mixed.passages, pool.sums((table.vectors + other) / 2).passages, atol=1e-5)


class TestVerdict:
    def test_questions_count_as_much_as_all_other_kinds(self) -> None:
        questions = np.array([True] + [False] * 9)
        after = np.where(questions, -0.5, 0.1).astype(np.float32)
        assert balanced_change(np.zeros(10, np.float32), after, questions)[0] == pytest.approx(-0.2)

    def test_weight_follows_evidence_and_stays_without(self) -> None:
        generator = np.random.default_rng(0)
        questions = np.arange(400) % 2 == 0
        flat = generator.uniform(0.4, 0.6, size=(400, 1)).astype(np.float32) * np.ones(len(WEIGHTS), np.float32)
        rising = flat + np.array(WEIGHTS, np.float32) * 0.2
        assert choose_weight(flat, questions) == 0.4
        assert choose_weight(rising, questions) == 0.6
        assert choose_weight(flat - np.array(WEIGHTS, np.float32) * 0.2, questions) == 0.1
        noise = generator.normal(scale=0.3, size=(6, len(WEIGHTS))).astype(np.float32)
        assert choose_weight(noise, questions[:6]) == 0.4

    def test_pseudo_queries_hide_the_words_of_their_passage(self) -> None:
        text = "Alpha beta gamma delta epsilon. Beta zeta eta theta iota."
        passages = [CorpusPassage(text, "", (), "x")]
        queries = pseudo_queries(passages, [0], {}, seed=3)
        found = {query.kind: query for query in queries}
        assert set(found) == {"sentence", "other words", "question"}
        assert found["sentence"].rest is not None
        assert found["sentence"].text not in found["sentence"].rest
        assert "beta" not in found["other words"].text
        assert found["question"].rest is None
