"""Distillation: a tiny real teacher becomes static models, whose vectors are the same in three libraries."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from typer.testing import CliRunner

from pipelines.cli import app
from retrieval.encoders import StaticEncoder
from retrieval.errors import DocumentError, ModelError
from retrieval.training.static.distill import DistillSettings, distill, distill_vocabulary
from retrieval.training.static.fit import FitSettings, fit_sentences, sample_sentences
from retrieval.training.static.formats import save_model2vec, save_sentence_transformers
from retrieval.training.static.phrases import (
    PhraseContexts,
    add_phrases,
    contextual_vectors,
    read_phrases_in_context,
    split_phrases,
)
from retrieval.training.static.vocabulary import (
    PhraseSettings,
    count_words,
    find_phrases,
    frequent_words,
    keep_tokens,
    read_phrases,
)
from retrieval.training.table import StaticTable
from retrieval.training.teacher import Teacher
from tests import static_models

SPECIAL = static_models.SPECIAL
NOUNS = ["pipe", "engine", "server", "road", "patient", "bread", "star", "whale"]
WORDS = ["the", "is", "was", "not", "but", "and", "broken", "leak", "clean", "old", "new", "near", "with", *NOUNS]
PIECES = ["##ing", *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]


def bert_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(
        models.WordPiece({word: at for at, word in enumerate([*SPECIAL, *WORDS, *PIECES])}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def write_teacher(folder: Path, pooling: str = "mean") -> Path:
    """A random BERT of two layers as sentence-transformers lays it out."""
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, set_seed

    set_seed(0)
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS) + len(PIECES),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(folder)
    names = {f"{kind}_token": f"[{kind.upper()}]" for kind in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=bert_tokenizer(), **names).save_pretrained(folder)
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    listed = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(listed), encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    mode = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}[pooling]
    modes = {f"pooling_mode_{name}": name == mode for name in ("cls_token", "mean_tokens", "max_tokens")}
    content = {"word_embedding_dimension": 32, **modes}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def teacher(teacher_folder: Path) -> Teacher:
    return Teacher(teacher_folder)


def sentences(number: int, seed: int = 0) -> list[str]:
    choice = random.Random(seed)
    states = ["broken", "clean", "old", "new", "leaky", "not broken", "unbroken"]
    return [
        f"The {choice.choice(NOUNS)} {choice.choice(['is', 'was'])} {choice.choice(states)} "
        f"{choice.choice(['but', 'and'])} the {choice.choice(NOUNS)} with a {choice.choice(NOUNS)} is "
        f"{choice.choice(states)}."
        for _ in range(number)
    ]


TEXTS = sentences(200)


class TestVocabulary:
    def test_counts_and_orders_words(self) -> None:
        counts = count_words(["Pipe, pipe and don't 42", "the PIPE and"])
        assert counts == Counter({"pipe": 3, "and": 2, "don't": 1, "the": 1})
        assert frequent_words(counts, least=1, limit=3, known={"and"}) == ["pipe", "don't", "the"]
        assert frequent_words(counts, least=2, limit=9) == ["pipe", "and"]

    def test_finds_negated_then_frequent_phrases(self) -> None:
        texts = [
            "Not broken, not broken; no  pain. A heart attack\nattack without warning.",
            "It is not broken. Not the end. Never say heart attack. non-smoking heart attack non-smoking",
            "know broken; not, broken; not-broken; heart, attack; heart  attack",
        ]
        settings = PhraseSettings(negated=2, frequent=3, association=0.0)
        assert find_phrases(texts, settings) == ["not broken", "non-smoking", "heart attack"]
        assert find_phrases(texts, PhraseSettings(negated=1, frequent=0, limit=4)) == [
            *("not broken", "non-smoking", "never say", "without warning"),
        ]
        assert find_phrases(texts, PhraseSettings(negated=0, frequent=3, association=0.99)) == []

    def test_words_that_are_everywhere_make_no_phrase(self) -> None:
        common = ["people eat bread", "people bake bread", "people sell bread", "people make bread", "bread people"]
        texts = [*common * 5, *["solar flare"] * 5]
        assert find_phrases(texts, PhraseSettings(frequent=5, association=0.6)) == ["solar flare"]

    def test_reads_a_file_of_phrases(self, tmp_path: Path) -> None:
        path = tmp_path / "phrases.txt"
        path.write_text("\ufeffnot broken\n\n# comment\n not   broken \nheart attack\n", encoding="utf-8")
        assert read_phrases(path) == ["not broken", "heart attack"]
        path.write_text("# nothing\n", encoding="utf-8")
        with pytest.raises(DocumentError, match="holds no phrases"):
            read_phrases(path)
        path.write_bytes(b"\xff\xfe\xff")
        with pytest.raises(DocumentError, match="cannot be read"):
            read_phrases(path)
        with pytest.raises(DocumentError, match="cannot be read"):
            read_phrases(tmp_path / "missing")

    def test_keeps_used_tokens_and_single_characters(self) -> None:
        tokenizer = bert_tokenizer()
        smaller, old = keep_tokens(tokenizer, [tokenizer.token_to_id("pipe"), tokenizer.token_to_id("##ing")])
        assert smaller.encode("pipe leaking").tokens == ["pipe", "l", "##e", "##a", "##k", "##ing"]
        assert [tokenizer.id_to_token(at) for at in old[:3]] == ["[UNK]", "pipe", "##ing"]
        assert smaller.encode("\u4e2d pipe").ids == [0, 1]
        unigram = Tokenizer(models.Unigram([("<unk>", 0.0)], unk_id=0))
        with pytest.raises(ModelError, match="WordPiece, not Unigram"):
            keep_tokens(unigram, [])


class TestDistill:
    def test_all_dimensions_keep_the_teachers_geometry(self, teacher: Teacher) -> None:
        """PCA to full width turns the space and moves its origin: distances stay."""
        table = distill(teacher, DistillSettings(dim=32, sif_coefficient=1e9, normalize=False))
        raw, tokenizer = teacher.embed_vocabulary([])
        assert tokenizer.get_vocab() == table.tokenizer.get_vocab()
        first, second = tokenizer.token_to_id("pipe"), tokenizer.token_to_id("whale")
        expected = np.linalg.norm(raw[first] - raw[second])
        assert np.linalg.norm(table.vectors[first] - table.vectors[second]) == pytest.approx(expected, rel=1e-3)

    def test_a_token_is_run_between_the_special_tokens(self, teacher: Teacher) -> None:
        raw, tokenizer = teacher.embed_vocabulary(["leaky pipe"])
        for word in ("pipe", "leaky pipe"):
            vector = raw[tokenizer.token_to_id(word)]
            np.testing.assert_allclose(vector / np.linalg.norm(vector), teacher.encode([word])[0], atol=1e-5)

    def test_fewer_dimensions_are_the_first_of_more(self, teacher: Teacher) -> None:
        wide, narrow = (distill(teacher, DistillSettings(dim=dim, normalize=False)) for dim in (16, 4))
        np.testing.assert_allclose(narrow.vectors, wide.vectors[:, :4], atol=1e-5)
        spread = wide.vectors.std(axis=0)
        assert spread[0] == spread.max()

    @pytest.mark.parametrize("dim", [1, 33])
    def test_impossible_dimensions_name_the_possible_ones(self, teacher: Teacher, dim: int) -> None:
        with pytest.raises(ValueError, match=rf"dim is {dim}.*have 32 dimensions; take 2 to 32"):
            distill(teacher, DistillSettings(dim=dim))

    def test_words_and_phrases_of_the_corpus_get_entries(self, teacher: Teacher) -> None:
        settings = DistillSettings(dim=8, vocabulary="both", least=20)
        made = distill_vocabulary(teacher, settings, corpus=lambda: TEXTS, phrases=["not broken"])
        assert (made.words, made.phrases) == (2, 1)
        tokens = made.table.tokenizer.encode("Unbroken, leaky, not\nbroken and knot broken").tokens
        assert tokens[:5] == ["unbroken", "[UNK]", "leaky", "[UNK]", "not broken"]
        assert tokens[-1] == "broken"
        assert made.table.vectors[made.table.tokenizer.token_to_id("not broken")].any()

    def test_a_vocabulary_of_the_corpus_alone_is_smaller_and_reads_everything(self, teacher: Teacher) -> None:
        settings = DistillSettings(dim=8, vocabulary="corpus", least=20, weighting="corpus")
        made = distill_vocabulary(teacher, settings, corpus=lambda: TEXTS)
        whole = distill(teacher, DistillSettings(dim=8))
        assert len(made.table.vectors) == made.table.tokenizer.get_vocab_size() < len(whole.vectors)
        for text in TEXTS[:20]:
            assert "[UNK]" not in made.table.tokenizer.encode(text.rstrip(".")).tokens
        assert made.table.tokenizer.encode("zebra").tokens == ["z", "##e", "##b", "##r", "##a"]

    def test_weights_follow_the_corpus(self, teacher: Teacher) -> None:
        even = distill(teacher, DistillSettings(dim=8, sif_coefficient=1e9, normalize=False))
        settings = DistillSettings(dim=8, sif_coefficient=0.01, normalize=False, weighting="corpus")
        weighted = distill(teacher, settings, corpus=lambda: ["the the the pipe"])
        tokens = len(even.vectors)
        for word, count in (("the", 3), ("pipe", 1), ("whale", 0)):
            at = even.tokenizer.token_to_id(word)
            ratio = weighted.vectors[at] / even.vectors[at]
            expected = 0.01 / (0.01 + (count + 1) / (4 + tokens))
            np.testing.assert_allclose(ratio, expected, rtol=1e-3)

    def test_a_corpus_is_asked_for_where_one_is_needed(self, teacher: Teacher) -> None:
        with pytest.raises(ValueError, match="need a corpus"):
            distill(teacher, DistillSettings(dim=8, vocabulary="both"))

    def test_dense_layers_behind_pooling_are_applied(self, tmp_path: Path) -> None:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

        try:
            from sentence_transformers.base.modules import Dense
        except ImportError:
            from sentence_transformers.models import Dense
        from torch import nn

        inner = Transformer(str(write_teacher(tmp_path / "plain")))
        dense = Dense(32, 12, activation_function=nn.Tanh())
        model = SentenceTransformer(modules=[inner, Pooling(32, "mean"), dense], device="cpu")
        model.save(str(tmp_path / "dense"), create_model_card=False)
        teacher = Teacher(tmp_path / "dense")
        raw, tokenizer = teacher.embed_vocabulary([])
        assert teacher.dim == raw.shape[1] == 12
        vector = raw[tokenizer.token_to_id("pipe")]
        np.testing.assert_allclose(vector / np.linalg.norm(vector), teacher.encode(["pipe"])[0], atol=1e-5)


class TestTeacher:
    def test_what_is_not_a_teacher_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"no modules\.json or config\.json"):
            Teacher(tmp_path)
        table = StaticTable(np.eye(9, dtype=np.float32)[:, :4].copy(), static_models.word_tokenizer(list("abcdefgh")))
        save_sentence_transformers(table, tmp_path / "static")
        with pytest.raises(ModelError, match="begins with StaticEmbedding"):
            Teacher(tmp_path / "static")
        (tmp_path / "config.json").write_text("{}", encoding="utf-8")
        with pytest.raises(ModelError, match="cannot be opened as a sentence transformer"):
            Teacher(tmp_path)
        with pytest.raises(ModelError, match="pools tokens by max"):
            Teacher(write_teacher(tmp_path / "max", "max"))

    def test_first_token_pooling_gives_other_vectors(self, teacher: Teacher, tmp_path: Path) -> None:
        first = Teacher(write_teacher(tmp_path / "cls", "cls"))
        assert (teacher.pooling, first.pooling) == ("mean", "first")
        raw, tokenizer = first.embed_vocabulary([])
        vector = raw[tokenizer.token_to_id("pipe")]
        np.testing.assert_allclose(vector / np.linalg.norm(vector), first.encode(["pipe"])[0], atol=1e-5)

    def test_a_tokenizer_that_fills_up_texts_changes_nothing(self, teacher: Teacher, tmp_path: Path) -> None:
        # As that of all-MiniLM-L6-v2, which fills every text up to 128 tokens.
        padded = write_teacher(tmp_path / "teacher")
        path = padded / "tokenizer.json"
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.enable_padding(length=32, pad_id=0, pad_token="[PAD]")
        tokenizer.save(str(path))
        words = ["broken pipe", "engineer"]
        (expected, _), (found, kept) = teacher.embed_vocabulary(words), Teacher(padded).embed_vocabulary(words)
        assert kept.token_to_id("broken pipe") is not None
        np.testing.assert_allclose(found, expected, atol=1e-5)


class TestFit:
    def test_sentences_are_a_sample_of_all(self) -> None:
        texts = [f"Sentence number {number} here. Too short. And a second one {number}!" for number in range(500)]
        sample = sample_sentences(iter(texts), 100, seed=3)
        assert len(sample) == len(set(sample)) == 100
        assert sample == sample_sentences(iter(texts), 100, seed=3) != sample_sentences(iter(texts), 100, seed=4)
        numbers = [int(word) for one in sample for word in one.strip("!.").split() if word.isdigit()]
        assert 150 < np.mean(numbers) < 350
        assert len(sample_sentences(texts, 5000)) == 1000
        assert sample_sentences(["one two " * 40], 9) == [" ".join(["one two"] * 30)]

    def test_held_out_sentences_come_closer_to_the_teacher(self, teacher: Teacher) -> None:
        made = distill_vocabulary(teacher, DistillSettings(dim=16))
        texts = list(dict.fromkeys(sentences(800, seed=1)))
        targets = (teacher.encode(texts) - teacher.encode(texts).mean(axis=0)) @ made.components
        start = made.table.vectors.copy()
        seen: list[tuple[int, int, float]] = []
        settings = FitSettings(passes=5, batch_size=32)
        fitted = fit_sentences(made.table, texts, targets, settings, lambda *report: seen.append(report))
        assert fitted.after > fitted.before + 0.1
        assert fitted.held_out + fitted.sentences == len(texts)
        cosines = [cosine for _, _, cosine in seen]
        assert fitted.after == max(cosines)
        held = targets[: fitted.held_out] / np.linalg.norm(targets[: fitted.held_out], axis=1, keepdims=True)
        measured = (fitted.table.encode(texts[: fitted.held_out]) * held).sum(axis=1).mean()
        assert measured == pytest.approx(fitted.after, abs=1e-4)
        np.testing.assert_array_equal(made.table.vectors, start)
        again = fit_sentences(made.table, texts, targets, settings)
        np.testing.assert_array_equal(again.table.vectors, fitted.table.vectors)

    def test_what_does_not_help_is_not_kept(self, teacher: Teacher) -> None:
        table = distill(teacher, DistillSettings(dim=16))
        texts = list(dict.fromkeys(sentences(300, seed=2)))
        fitted = fit_sentences(table, texts, table.encode(texts), FitSettings(passes=2, learning_rate=0.5))
        assert fitted.before == fitted.after == pytest.approx(1.0)
        np.testing.assert_array_equal(fitted.table.vectors, table.vectors)

    def test_needs_a_hundred_sentences(self, teacher: Teacher) -> None:
        table = distill(teacher, DistillSettings(dim=4))
        with pytest.raises(ValueError, match=r"at least 100 different sentences.*has 3"):
            fit_sentences(table, TEXTS[:3], np.zeros((3, 4), np.float32))


SAME = [
    *TEXTS[:5],
    *static_models.NASTY[:-1],  # its last one adds up so much that float32 shows the order
    "not broken but leaking",
    "Not\nBROKEN, not  broken; knot broken unbroken not brokenly",
    "zebra \u4e2d \u16a0",
    "\u16a0\u16b1",
    "not broken and the pipe " * 500,
]


def phrase_table(dim: int = 256) -> StaticTable:
    tokenizer = static_models.bert_tokenizer()
    table = StaticTable(static_models.random_table(tokenizer, dim), tokenizer)
    vectors = np.random.default_rng(1).normal(size=(2, dim)).astype(np.float32)
    return add_phrases(table, ["not broken", "Not Broken And"], vectors)


def same(ours: NDArray[np.float32], theirs: NDArray[Any], tolerance: float) -> None:
    theirs = np.nan_to_num(np.asarray(theirs, np.float64))
    norms = np.linalg.norm(theirs, axis=1, keepdims=True)
    np.testing.assert_allclose(ours, theirs / np.where(norms > 0, norms, 1), atol=tolerance)


class TestFormats:
    def test_three_libraries_give_the_same_vectors(self, tmp_path: Path) -> None:
        from model2vec import StaticModel
        from sentence_transformers import SentenceTransformer

        table = phrase_table()
        table.save(tmp_path / "int8", name="x")
        table.save(tmp_path / "float", name="x", precision="float32")
        save_model2vec(table, tmp_path / "m2v")
        save_sentence_transformers(table, tmp_path / "st")
        ours = StaticEncoder.open(tmp_path / "float").encode_documents(SAME)
        assert ours[0].any()
        assert not ours[SAME.index("")].any()
        same(ours, table.encode(SAME), 1e-5)
        rounded = StaticEncoder.open(tmp_path / "int8").encode_documents(SAME)
        same(rounded, ours, 2e-3)
        assert (rounded * ours).sum(axis=1)[ours.any(axis=1)].min() > 0.9999
        same(StaticEncoder.open(tmp_path / "m2v").encode_documents(SAME), ours, 1e-5)
        same(StaticEncoder.open(tmp_path / "st").encode_documents(SAME), ours, 1e-5)
        texts = [text.encode("utf-8", "replace").decode() for text in SAME]
        same(ours, StaticModel.from_pretrained(tmp_path / "m2v").encode(texts), 1e-5)
        same(ours, SentenceTransformer(str(tmp_path / "st"), device="cpu").encode(texts), 1e-5)
        phrase = table.vectors[table.tokenizer.token_to_id("not broken")]
        same(StaticEncoder.open(tmp_path / "float").encode_documents(["not broken"]), phrase[None], 1e-6)

    @pytest.mark.parametrize("kind", ["model2vec", "st", "st-left", "own"])
    def test_a_table_keeps_the_rules_of_its_folder(self, kind: str, tmp_path: Path) -> None:
        tokenizer = static_models.bert_tokenizer()
        vectors = static_models.random_table(tokenizer)
        if kind == "model2vec":
            from model2vec import StaticModel

            StaticModel(vectors, tokenizer, normalize=True, max_length=7).save_pretrained(tmp_path / "in")
        elif kind.startswith("st"):
            from sentence_transformers import SentenceTransformer
            from sentence_transformers.sentence_transformer.modules import StaticEmbedding

            cut = Tokenizer.from_str(tokenizer.to_str())
            cut.enable_truncation(7, direction="left" if kind == "st-left" else "right")
            SentenceTransformer(modules=[StaticEmbedding(cut, embedding_weights=vectors)], device="cpu").save(
                str(tmp_path / "in"), create_model_card=False
            )
        else:
            static_models.write_own(tmp_path / "in", tokenizer, {"embeddings": vectors}, unknown="keep", max_tokens=7)
        expected = StaticEncoder.open(tmp_path / "in").encode_documents(SAME)
        table = StaticTable.from_encoder_folder(tmp_path / "in")
        same(expected, table.encode(SAME), 1e-5)
        table.with_vectors(table.vectors * 2).save(tmp_path / "out", name="x", precision="float32")
        same(expected, StaticEncoder.open(tmp_path / "out").encode_documents(SAME), 1e-5)

    def test_rules_that_a_library_does_not_have_are_refused(self, tmp_path: Path) -> None:
        tokenizer = static_models.bert_tokenizer()
        tensors = {"embeddings": static_models.random_table(tokenizer)}
        static_models.write_own(tmp_path / "keep", tokenizer, tensors, unknown="keep")
        with pytest.raises(ValueError, match="unknown tokens"):
            save_model2vec(StaticTable.open(tmp_path / "keep"), tmp_path / "x")
        static_models.write_own(tmp_path / "cut", tokenizer, tensors, max_tokens=3)
        with pytest.raises(ValueError, match="to 3 tokens"):
            save_model2vec(StaticTable.open(tmp_path / "cut"), tmp_path / "x")
        static_models.write_own(tmp_path / "short", tokenizer, tensors, max_characters=30)
        with pytest.raises(ValueError, match="30 characters"):
            save_sentence_transformers(StaticTable.open(tmp_path / "short"), tmp_path / "x")
        assert not (tmp_path / "x").exists()


class TestPhrases:
    table = StaticTable(np.eye(4, dtype=np.float32), static_models.word_tokenizer(["red", "not", "blue"]))

    def test_a_phrase_is_one_token_with_its_own_vector(self) -> None:
        grown = add_phrases(self.table, ["not red", "red blue"], np.array([[0, 0, 0, 9], [9, 0, 0, 0]], np.float32))
        assert grown.tokenize(["not red blue", "red blue", "blue not", "knot red"]) == [[4, 3], [5], [3, 2], [1]]
        np.testing.assert_allclose(
            grown.encode(["Not red", "not red red"]), [[0, 0, 0, 1], [0, 1 / 82**0.5, 0, 9 / 82**0.5]]
        )
        assert len(self.table.vectors) == self.table.tokenizer.get_vocab_size() == 4
        again = add_phrases(grown, ["not  red"], np.array([[0, 0, 5, 0]], np.float32))
        assert len(again.vectors) == 6
        np.testing.assert_allclose(again.encode(["not red"]), [[0, 0, 1, 0]])

    def test_the_order_of_the_same_words_is_seen(self) -> None:
        """The phrase has a dimension of its own beside those of its words; texts of four words, two of them shared."""
        tokenizer = static_models.word_tokenizer(["not", "red", "but", "blue"])
        table = StaticTable(np.eye(5, 6, dtype=np.float32), tokenizer)
        texts = ["not red but blue", "blue but not red", "red but not blue"]
        np.testing.assert_allclose(table.encode(texts)[0] @ table.encode(texts).T, [1, 1, 1], rtol=1e-6)
        grown = add_phrases(table, ["not red"], np.array([[0, 1, 1, 0, 0, 2]], np.float32)).encode(texts)
        # (1, 1, 1, 1, 2) with (1, 1, 1, 1, 0): 4 / (8 ** 0.5 * 2)
        np.testing.assert_allclose(grown[0] @ grown.T, [1, 1, 4 / 32**0.5], rtol=1e-6)

    def test_words_of_phrases_are_told_apart(self) -> None:
        grown = add_phrases(self.table, ["not red"], np.zeros((1, 4), np.float32))
        assert split_phrases(grown, ["not red", "blue not green"]) == [[2, 1], [3, 2]]

    @pytest.mark.parametrize(
        ("phrases", "message"),
        [
            (["red"], "'red' is a token already"),
            (["not red", "not  red"], "occurs twice"),
            ([" "], "is empty"),
        ],
    )
    def test_unusable_phrases_are_refused(self, phrases: list[str], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            add_phrases(self.table, phrases, np.ones((len(phrases), 4), np.float32))

    def test_vectors_must_fit(self) -> None:
        with pytest.raises(ValueError, match="finite vectors of shape"):
            add_phrases(self.table, ["not red"], np.ones((1, 3), np.float32))
        with pytest.raises(ValueError, match="finite vectors"):
            add_phrases(self.table, ["not red"], np.full((1, 4), np.nan, np.float32))
        with pytest.raises(ValueError, match="5 rows for 4 tokens"):
            add_phrases(self.table.with_vectors(np.eye(5, 4, dtype=np.float32)), [], np.zeros((0, 4), np.float32))


class TestPhrasesInContext:
    phrases = ("not broken", "is clean", "never seen")

    @pytest.fixture(scope="class")
    @staticmethod
    def table(teacher: Teacher) -> StaticTable:
        return distill(teacher, DistillSettings(dim=16))

    @pytest.fixture(scope="class")
    @staticmethod
    def contexts(teacher: Teacher, table: StaticTable) -> PhraseContexts:
        return read_phrases_in_context(teacher, table, TEXTS, TestPhrasesInContext.phrases, places=5)

    def test_reads_phrases_where_they_stand(
        self, teacher: Teacher, table: StaticTable, contexts: PhraseContexts
    ) -> None:
        assert contexts.phrases == ["not broken", "is clean"]
        assert "pipe" in contexts.tokens
        text = "the pipe is not broken with bread"
        single = read_phrases_in_context(teacher, table, [text], ["not broken"])
        [read] = teacher.states([text])
        assert [text[start:end] for start, end in read.spans] == text.split()
        np.testing.assert_allclose(single.states[0], read.states[3:5].mean(axis=0), atol=1e-5)
        other = read_phrases_in_context(teacher, table, ["star not broken near whale"], ["not broken"])
        assert np.abs(other.states - single.states).max() > 1e-3

    def test_a_share_of_nothing_changes_no_text(self, table: StaticTable, contexts: PhraseContexts) -> None:
        grown = add_phrases(table, contexts.phrases, contextual_vectors(table, contexts, 0.0))
        assert len(grown.vectors) == len(table.vectors) + 2
        assert grown.tokenize(["not broken"]) != table.tokenize(["not broken"])
        np.testing.assert_allclose(grown.encode(TEXTS), table.encode(TEXTS), atol=1e-5)

    def test_the_teachers_space_is_turned_into_the_tables(self, teacher: Teacher, contexts: PhraseContexts) -> None:
        """A table whose rows are a linear image of the states gets the same image of the phrases."""
        turn = np.random.default_rng(0).normal(size=(32, 6))
        tokenizer = bert_tokenizer()
        rows = np.random.default_rng(1).normal(size=(tokenizer.get_vocab_size(), 6)).astype(np.float32)
        for token, state in zip(contexts.tokens, contexts.token_states, strict=True):
            rows[tokenizer.token_to_id(token)] = state @ turn
        vectors = contextual_vectors(StaticTable(rows, tokenizer), contexts, 1.0)
        expected = contexts.states @ turn
        cosines = (vectors * expected).sum(axis=1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(expected, axis=1)
        assert cosines.min() > 0.8

    def test_refuses_what_cannot_be_mapped(self, contexts: PhraseContexts, table: StaticTable) -> None:
        strange = StaticTable(np.eye(2, dtype=np.float32), static_models.word_tokenizer(["xylophone"]))
        with pytest.raises(ValueError, match="no token in common"):
            contextual_vectors(strange, contexts)
        with pytest.raises(ValueError, match="0 to 1, not 2"):
            contextual_vectors(table, contexts, 2.0)


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["distill", *map(str, arguments)], env={"COLUMNS": "80"})
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    rows = [json.dumps({"id": str(at), "title": "Note", "text": text}) for at, text in enumerate(sentences(400, 7))]
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


class TestCommand:
    def test_makes_a_model_that_follows_the_teacher(self, teacher_folder: Path, corpus: Path, tmp_path: Path) -> None:
        out = tmp_path / "model"
        arguments = (teacher_folder, out, "--corpus", corpus, "--find-phrases", "--minutes", 1)
        code, text, errors = run(*arguments, "--json", "--dim", 16)
        assert (code, errors) == (0, "")
        report = json.loads(text)
        assert (report["dim"], report["texts"], report["teacher_dim"], report["words"]) == (16, 400, 32, 3)
        assert report["phrases"] >= 1
        assert report["after"] > report["before"] + 0.05
        assert report["sentences"] + report["held_out"] > 300
        encoder = StaticEncoder.open(out)
        assert encoder.fingerprint.name == "model"
        assert encoder.count_tokens("not broken") == 1
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
        assert run(*arguments)[0] == 2

    @pytest.mark.parametrize("kind", ["model2vec", "sentence-transformers"])
    def test_other_formats_open_in_their_library_and_here(
        self, kind: str, teacher_folder: Path, tmp_path: Path
    ) -> None:
        code, text, errors = run(teacher_folder, tmp_path / "model", "--format", kind)
        assert (code, errors) == (0, "")
        assert "32 dimensions" in text
        assert "--set encoder.model=" in text
        ours = StaticEncoder.open(tmp_path / "model").encode_documents(SAME[:5])
        if kind == "model2vec":
            from model2vec import StaticModel

            theirs = StaticModel.from_pretrained(tmp_path / "model").encode(SAME[:5])
        else:
            from sentence_transformers import SentenceTransformer

            theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(SAME[:5])
        same(ours, theirs, 1e-5)

    def test_reads_the_corpus_of_an_index(self, teacher_folder: Path, corpus: Path, tmp_path: Path) -> None:
        index = tmp_path / "index"
        assert CliRunner().invoke(app, ["ingest", str(corpus), "--index", str(index), "--quiet"]).exit_code == 0
        code, text, errors = run(teacher_folder, tmp_path / "model", "--index", index, "--json", "--sentences", 0)
        assert (code, errors) == (0, "")
        report = json.loads(text)
        assert (report["texts"], report["words"], report["after"]) == (400, 3, None)

    def test_a_folder_with_something_in_it_stays(self, teacher_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "model"
        assert run(teacher_folder, out, "--dim", 4)[0] == 0
        code, _, errors = run(teacher_folder, out, "--dim", 8)
        assert (code, StaticEncoder.open(out).dim) == (2, 4)
        assert "--overwrite" in errors
        assert run(teacher_folder, out, "--dim", 8, "--overwrite", "--format", "sentence-transformers")[0] == 0
        assert StaticEncoder.open(out).dim == 8
        other = tmp_path / "other"
        other.mkdir()
        (other / "thesis.txt").write_text("years of work", encoding="utf-8")
        code, _, errors = run(teacher_folder, other, "--overwrite")
        assert (code, [path.name for path in other.iterdir()]) == (2, ["thesis.txt"])
        assert "thesis.txt" in errors
        assert run(teacher_folder, other / "thesis.txt", "--overwrite")[0] == 2

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["--dim", "33"], 2, "take 2 to 32"),
            (["--dim", "1"], 2, "at least 2"),
            (["--vocabulary", "corpus"], 2, "--corpus PATH"),
            (["--vocabulary", "mine"], 2, "teacher, both or corpus, not 'mine'"),
            (["--sentences", "7"], 2, "at least 100, not 7"),
            (["--corpus", "nowhere"], 1, "no file or folder nowhere"),
            (["--phrases", "nowhere"], 1, "nowhere cannot be read"),
        ],
    )
    def test_bad_requests(
        self, arguments: list[str], code: int, message: str, teacher_folder: Path, tmp_path: Path
    ) -> None:
        done = run(teacher_folder, tmp_path / "model", *arguments)
        assert done[0] == code
        assert message in done[2]
        assert not list(tmp_path.iterdir())

    def test_too_little_to_learn_from(self, teacher_folder: Path, tmp_path: Path) -> None:
        few = tmp_path / "few.jsonl"
        few.write_text('{"text": "one pipe is broken"}\n' * 3, encoding="utf-8")
        code, _, errors = run(teacher_folder, tmp_path / "model", "--corpus", few)
        assert code == 1
        assert "holds 3 texts, too few" in errors
        short = tmp_path / "short.jsonl"
        short.write_text("\n".join(json.dumps({"text": f"pipe {at} leak"}) for at in range(50)), encoding="utf-8")
        code, _, errors = run(teacher_folder, tmp_path / "model", "--corpus", short)
        assert code == 1
        assert "--sentences 0" in errors
        assert run(teacher_folder, tmp_path / "model", "--corpus", short, "--sentences", 0)[0] == 0

    def test_teachers_that_cannot_be_used(self, tmp_path: Path) -> None:
        code, _, errors = run("owner/model", tmp_path / "model")
        assert code == 1
        assert "HF_HUB_OFFLINE" in errors
        code, _, errors = run("starter-static", tmp_path / "model")
        assert code == 1
        assert "sentence transformer" in errors
        code, _, errors = run("no such teacher", tmp_path / "model")
        assert code == 1
        assert "no such teacher" in errors
        assert not (tmp_path / "model").exists()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
