"""The training recipes on models and data that are small enough to check by hand."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from retrieval.datatypes import FloatArray
from retrieval.encoders import StaticEncoder
from retrieval.errors import DocumentError, ModelError
from retrieval.rerankers.cross_encoder import OnnxCrossEncoder
from retrieval.training.pairs import Pair, PairSettings, is_held_out, read_pairs
from retrieval.training.reranker.batches import BatchSettings, list_batches, pad_pairs, tokenize_pairs
from retrieval.training.reranker.export import ExportSettings, export_reranker
from retrieval.training.reranker.lists import RankingList, closest_windows, read_lists, split_windows, write_lists
from retrieval.training.reranker.network import NetworkShape, Parameters, load_network, scale_head, score_pairs
from retrieval.training.reranker.rerank import RerankProgress, RerankSettings, train_reranker
from retrieval.training.static.cloze import Cloze
from retrieval.training.static.distill import DistillSettings, distill
from retrieval.training.static.finetune import FinetuneSettings, finetune, plan_batches, plan_steps
from retrieval.training.static.lessons import TaughtTexts
from retrieval.training.table import StaticTable, average_tables

WORDS = ["cat", "feline", "dog", "canine", "car", "auto", "ship", "boat", "the", "a", "of", "red", "blue"]


def word_tokenizer() -> Tokenizer:
    """Ids 0 to 4 are the special tokens of BERT, the words follow in the order of `WORDS`."""
    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


@pytest.fixture
def table() -> StaticTable:
    """Every word has its own direction, so that at the start no two of them are alike."""
    tokenizer = word_tokenizer()
    return StaticTable(np.eye(tokenizer.get_vocab_size(), dtype=np.float32) * 2.0, tokenizer)


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with two layers over the words, as sentence transformers are saved."""
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, set_seed

    set_seed(0)
    folder = tmp_path_factory.mktemp("teacher")
    config = BertConfig(
        vocab_size=5 + len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=512,
        initializer_range=0.4,
    )
    BertModel(config).save_pretrained(folder)
    names = {f"{kind}_token": f"[{kind.upper()}]" for kind in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=word_tokenizer(), **names).save_pretrained(folder)
    return folder


def score(parameters: Parameters, shape: NetworkShape, pairs: Sequence[tuple[str, str]]) -> FloatArray:
    import torch

    tokens = tokenize_pairs(
        word_tokenizer(), [query for query, _ in pairs], [text for _, text in pairs], max_tokens=32, query_tokens=12
    )
    with torch.no_grad():
        logits = score_pairs(parameters, shape, *(torch.from_numpy(array) for array in pad_pairs(tokens)))
    return np.asarray(logits[:, 0].numpy(), dtype=np.float32)


class TestPairs:
    def write(self, folder: Path, name: str, rows: Sequence[object]) -> None:
        lines = "\n".join(json.dumps(row) for row in rows)
        if name.endswith(".gz"):
            (folder / name).write_bytes(gzip.compress(lines.encode()))
        else:
            (folder / name).write_text(lines)

    def test_reads_chosen_files_sources_and_stances(self, tmp_path: Path) -> None:
        self.write(
            tmp_path,
            "claims.jsonl.gz",
            [
                {"query": "q1", "positive": "p1", "stance": "supports"},
                {"query": "q2", "positive": "p2", "stance": "REFUTES"},
            ],
        )
        self.write(
            tmp_path,
            "docs.jsonl",
            [
                {"query": " q3 ", "positive": "p3", "source": "open", "negatives": ["n"], "answer": "p"},
                {"query": "q4", "positive": "p4", "source": "closed"},
                {"query": "q5", "positive": "  ", "source": "open"},
            ],
        )
        self.write(tmp_path, "other.jsonl", [{"query": "q6", "positive": "p6"}])
        settings = PairSettings(files=("claims", "docs"), sources={"docs": ("open",)}, dev_share=0.0)
        training, held_out = read_pairs(tmp_path, settings)
        assert training == [Pair("q1", "p1", source="claims"), Pair("q3", "p3", ("n",), "p", "docs")]
        assert held_out == []

    def test_held_out_queries_are_a_share_that_never_changes(self, tmp_path: Path) -> None:
        self.write(tmp_path, "many.jsonl", [{"query": f"q{number}", "positive": "p"} for number in range(2000)])
        training, held_out = read_pairs(tmp_path, PairSettings(dev_share=0.1))
        assert len(training) + len(held_out) == 2000
        assert 150 < len(held_out) < 250
        assert all(is_held_out(pair.query.upper(), 0.1) for pair in held_out)

    @pytest.mark.parametrize("row", [{"query": "q"}, {"query": "q", "positive": 3}, ["q", "p"]])
    def test_names_the_line_that_is_no_pair(self, tmp_path: Path, row: object) -> None:
        self.write(tmp_path, "bad.jsonl", [{"query": "q", "positive": "p"}, row])
        with pytest.raises(DocumentError, match=r"bad\.jsonl:2"):
            read_pairs(tmp_path, PairSettings(dev_share=0.0))

    def test_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(DocumentError, match="absent"):
            read_pairs(tmp_path, PairSettings(files=("absent",)))


class TestTable:
    def test_sums_known_tokens_to_unit_length(self, table: StaticTable) -> None:
        vectors = table.encode(["cat zebra dog", "zebra", ""])
        assert vectors[0, [5, 7]] == pytest.approx([0.5**0.5, 0.5**0.5])
        assert not vectors[1:].any()

    def test_saved_folder_opens_as_the_encoder(self, table: StaticTable, tmp_path: Path) -> None:
        generator = np.random.default_rng(0)
        random = StaticTable(generator.normal(size=table.vectors.shape).astype(np.float32), table.tokenizer)
        random.save(tmp_path, name="tiny", matryoshka=(4, 8))
        texts = ["the red cat", "a blue boat of dogs", "zebra"]
        encoder = StaticEncoder.open(tmp_path)
        assert encoder.fingerprint.name == "tiny"
        np.testing.assert_allclose(encoder.encode_documents(texts), random.encode(texts), atol=0.02)
        np.testing.assert_allclose(StaticTable.open(tmp_path).encode(texts), random.encode(texts), atol=0.02)
        assert json.loads((tmp_path / "config.json").read_text())["matryoshka"] == [8, 4]

    def test_average_is_the_mean_of_the_vectors(self, table: StaticTable) -> None:
        other = StaticTable(table.vectors * 3.0, table.tokenizer)
        np.testing.assert_allclose(average_tables([table, other]).vectors, table.vectors * 2.0)
        with pytest.raises(ValueError, match="one shape"):
            average_tables([table, StaticTable(table.vectors[:, :4], table.tokenizer)])


class TestDistill:
    def test_keeps_the_vocabulary_and_the_asked_dimensions(self, teacher: Path) -> None:
        static = distill(teacher, DistillSettings(dim=8))
        assert static.vectors.shape[1] == 8
        assert static.vectors.dtype == np.float32
        assert np.sqrt(np.mean(static.vectors**2)) == pytest.approx(1.0, rel=1e-4)
        vectors = static.encode(["cat", "dog", "zebra"])
        assert np.linalg.norm(vectors[:2], axis=1) == pytest.approx([1.0, 1.0], rel=1e-5)
        assert not vectors[2].any()


class TestFinetune:
    pairs = (
        Pair("the cat", "a feline"),
        Pair("red dog", "blue canine"),
        Pair("car of", "the auto"),
        Pair("a ship", "red boat"),
    )

    def test_learns_which_words_belong_together(self, table: StaticTable) -> None:
        settings = FinetuneSettings(epochs=60, batch_size=4, matryoshka=(18, 9), learning_rate=0.05)
        before = table.vectors.copy()
        seen: list[tuple[int, int, float]] = []
        trained = finetune(table, self.pairs, settings, lambda *report: seen.append(report))
        queries, passages = (
            trained.encode(["cat", "dog", "car", "ship"]),
            trained.encode(["feline", "canine", "auto", "boat"]),
        )
        assert (queries @ passages.T).argmax(axis=1).tolist() == [0, 1, 2, 3]
        np.testing.assert_array_equal(table.vectors, before)
        assert seen[-1][:2] == (60, 60)
        assert seen[-1][2] < 0.3 * seen[0][2]

    def test_is_the_same_every_time(self, table: StaticTable) -> None:
        settings = FinetuneSettings(epochs=2, batch_size=2, matryoshka=())
        first, second = (finetune(table, self.pairs, settings).vectors for _ in range(2))
        np.testing.assert_array_equal(first, second)

    def test_a_pairs_own_negatives_are_pushed_away(self, table: StaticTable) -> None:
        pairs = [Pair("cat", "feline", ("canine",)), Pair("ship", "boat", ("auto",))]
        settings = FinetuneSettings(epochs=60, batch_size=2, matryoshka=(), hard_negatives=1, learning_rate=0.1)
        vectors = finetune(table, pairs, settings).encode(["cat", "feline", "canine"])
        assert vectors[0] @ vectors[1] > 0.5 > 0.0 > vectors[0] @ vectors[2]

    def test_every_row_is_in_one_batch_and_some_batches_have_one_source(self) -> None:
        sources = np.array([0] * 40 + [1] * 25)
        settings = FinetuneSettings(batch_size=10, same_source=0.8)
        batches = plan_batches(sources, settings, np.random.default_rng(0))
        rows = np.concatenate(batches)
        assert len(rows) == len(set(rows.tolist())) >= 64
        assert sum(len(set(sources[batch])) == 1 for batch in batches) >= 3

    def test_passages_of_one_document_are_no_negatives_of_each_other(self, table: StaticTable) -> None:
        settings = FinetuneSettings(epochs=3, batch_size=2, matryoshka=())
        apart = [Pair("cat", "feline"), Pair("ship", "boat")]
        together = [Pair("cat", "feline", documents=("d",)), Pair("ship", "boat", documents=("d",))]
        assert np.abs(finetune(table, apart, settings).vectors - table.vectors).max() > 0.05
        # Nothing is left to tell apart, so nothing moves.
        np.testing.assert_array_equal(finetune(table, together, settings).vectors, table.vectors)

    def test_passages_teach_what_stands_together(self, table: StaticTable) -> None:
        passages = [
            "The cat of the cat. A feline a feline.",
            "The dog of the dog. A canine a canine.",
            "The car of the car. A auto a auto.",
            "The ship of the ship. A boat a boat.",
        ]
        pairs = [Pair("red", "red"), Pair("blue", "blue")]
        settings = FinetuneSettings(epochs=30, batch_size=4, matryoshka=(), unlabelled=0.75, learning_rate=0.05)
        trained = finetune(table, pairs, settings, passages=passages)
        queries, rests = (
            trained.encode(["cat", "dog", "car", "ship"]),
            trained.encode(["feline", "canine", "auto", "boat"]),
        )
        assert (queries @ rests.T).argmax(axis=1).tolist() == [0, 1, 2, 3]
        assert (queries * rests).sum(axis=1).min() > 0.3  # it was 0

    def test_a_teachers_neighbours_become_neighbours(self, table: StaticTable) -> None:
        texts = ["cat", "feline", "dog", "canine", "car", "auto"]
        vectors = np.repeat(np.eye(3, dtype=np.float32), 2, axis=0)
        settings = FinetuneSettings(epochs=60, batch_size=2, matryoshka=(18, 9), teacher_weight=1.0)
        pairs = [Pair("red", "red"), Pair("blue", "blue")]
        units = finetune(table, pairs, settings, taught=TaughtTexts(texts, vectors)).encode(texts)
        cosines = units @ units.T - 2.0 * np.eye(6)
        assert cosines.argmax(axis=1).tolist() == [1, 0, 3, 2, 5, 4]
        ignored = FinetuneSettings(epochs=60, batch_size=2, matryoshka=(18, 9), teacher_weight=0.0)
        plain = finetune(table, pairs, ignored, taught=TaughtTexts(texts, vectors))
        assert abs(plain.encode(["cat"])[0] @ plain.encode(["feline"])[0]) < 1e-6

    def test_steps_on_passages_have_their_share(self) -> None:
        settings = FinetuneSettings(epochs=4, batch_size=10, unlabelled=0.25)
        steps = plan_steps(np.zeros(60, np.int64), settings, np.random.default_rng(0), unlabelled=True)
        assert [rows is None for rows in steps].count(True) == 8
        assert len(steps) == 32
        steps = plan_steps(np.zeros(60, np.int64), settings, np.random.default_rng(0), unlabelled=False)
        assert all(rows is not None for rows in steps)

    def test_refuses_a_single_pair(self, table: StaticTable) -> None:
        with pytest.raises(ValueError, match="at least two pairs, got 1"):
            finetune(table, self.pairs[:1])


class TestCloze:
    def test_a_sentence_and_the_rest_of_its_passage(self, table: StaticTable) -> None:
        twice = "Red red red red. Blue blue blue cat. Dog."
        passages = [twice, "One sentence of the cat.", twice]
        cloze = Cloze(table, passages, max_tokens=100)
        assert len(cloze) == 1
        words = {id: word for word, id in table.tokenizer.get_vocab().items()}
        found = set()
        for seed in range(8):
            ((query,), (rest,)) = cloze.draw(5, np.random.default_rng(seed))
            found.add((" ".join(words[id] for id in query), " ".join(words[id] for id in rest)))
        assert found == {("red red red red", "blue blue blue cat dog"), ("blue blue blue cat", "red red red red dog")}

    def test_the_rest_is_cut(self, table: StaticTable) -> None:
        cloze = Cloze(table, ["Red red red red. Blue blue blue cat."], max_tokens=2)
        ((_,), (rest,)) = cloze.draw(1, np.random.default_rng(0))
        assert len(rest) == 2


class TestTaughtTexts:
    def test_every_text_has_a_vector(self) -> None:
        with pytest.raises(ValueError, match=r"2 texts need as many vectors, not an array of \(3, 4\)"):
            TaughtTexts(["a", "b"], np.ones((3, 4), np.float32))
        with pytest.raises(ValueError, match="at least two texts, got 1"):
            TaughtTexts(["a"], np.ones((1, 4), np.float32))


class TestLists:
    def test_windows_overlap_by_half_and_end_with_the_text(self) -> None:
        assert split_windows("a b c d e f g", 4) == ["a b c d", "c d e f", "d e f g"]
        assert split_windows("a b", 4) == ["a b"]

    def test_reads_the_window_closest_to_the_query(self, table: StaticTable, tmp_path: Path) -> None:
        table.save(tmp_path, name="tiny")
        encoder = StaticEncoder.open(tmp_path)
        text = "the red car the cat of feline blue ship"
        assert closest_windows(["cat feline", "zebra"], [text, "a dog"], encoder, 4) == ["cat of feline blue", "a dog"]

    def test_files_keep_lists(self, tmp_path: Path) -> None:
        lists = [RankingList("q\u00e9", "p", ("n1", "n2"), "s")]
        write_lists(lists, tmp_path / "lists.jsonl.gz")
        assert read_lists(tmp_path / "lists.jsonl.gz") == lists
        (tmp_path / "other").write_text("no")
        with pytest.raises(DocumentError, match="other"):
            read_lists(tmp_path / "other")

    def test_batches_put_the_positive_first_and_read_each_list_once(self) -> None:
        lists = [RankingList("cat", "feline", ("dog", "car", "ship")), RankingList("boat", "ship red", ("auto",))]
        settings = BatchSettings(lists=2, negatives=2, random_negatives=1)
        (batch,) = list_batches(lists, word_tokenizer(), settings, epochs=1, seed=0)
        ids = {word: index for index, word in enumerate(WORDS, 5)}
        first = {tuple(batch.pairs[rows.start][0]) for rows in batch.lists}
        assert first == {(2, ids["cat"], 3, ids["feline"], 3), (2, ids["boat"], 3, ids["ship"], ids["red"], 3)}
        assert sorted(rows.stop - rows.start for rows in batch.lists) == [3, 4]


class TestNetwork:
    def test_closed_layers_read_the_query_as_the_teacher_does(self, teacher: Path) -> None:
        import torch
        from transformers import BertModel

        parameters, shape = load_network(teacher, separate=2)
        parameters["head.scale"] = torch.zeros(2)
        parameters["head.pooled"] = torch.arange(32) / 10.0
        assert tokenize_pairs(word_tokenizer(), ["cat feline"], ["dog"], max_tokens=32, query_tokens=12) == [
            ([2, 5, 6, 3, 7, 3], 4)
        ]
        with torch.no_grad():
            states = BertModel.from_pretrained(teacher).eval()(input_ids=torch.tensor([[2, 5, 6, 3]])).last_hidden_state
        expected = [float(states[0, 0] @ parameters["head.pooled"])] * 2
        assert score(parameters, shape, [("cat feline", "dog"), ("cat feline", "the car")]) == pytest.approx(
            expected, abs=1e-4
        )

    def test_starts_as_a_cosine(self, teacher: Path) -> None:
        parameters, shape = load_network(teacher, separate=2)
        parameters["embeddings.position_embeddings.weight"][:] = 0.0
        logits = score(parameters, shape, [("cat", "cat"), ("cat", "dog")])
        assert 20.0 >= logits[0] > logits[1] >= -20.0

    def test_open_layers_let_the_text_reach_the_query(self, teacher: Path) -> None:
        import torch

        parameters, shape = load_network(teacher, separate=0, opening=0.0)
        parameters["head.scale"] = torch.zeros(2)
        parameters["head.pooled"] = torch.arange(32) / 10.0
        first, second = score(parameters, shape, [("cat", "dog"), ("cat", "ship")])
        assert abs(first - second) > 1e-3

    def test_padding_does_not_change_a_logit(self, teacher: Path) -> None:
        parameters, shape = load_network(teacher, separate=1)
        pairs = [("cat", "dog"), ("the red cat of", "a blue boat of the ship and car"), ("dog", "")]
        together = score(parameters, shape, pairs)
        alone = [float(score(parameters, shape, [pair])[0]) for pair in pairs]
        assert together == pytest.approx(alone, abs=1e-4)
        assert np.isfinite(together).all()

    def test_keeps_the_lower_layers(self, teacher: Path) -> None:
        parameters, shape = load_network(teacher, layers=1)
        assert shape.layers == 1
        assert not any(name.startswith("encoder.layer.1.") for name in parameters)

    def test_says_what_is_not_a_bert_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"config\.json"):
            load_network(tmp_path)


class TestRerank:
    lists = (
        RankingList("the cat", "red feline", ("red canine", "blue auto", "a boat")),
        RankingList("the dog", "red canine", ("red feline", "blue auto", "a boat")),
        RankingList("the car", "blue auto", ("red canine", "red feline", "a boat")),
        RankingList("the ship", "a boat", ("red canine", "blue auto", "red feline")),
    )

    @pytest.fixture(scope="class")
    @staticmethod
    def trained(teacher: Path) -> tuple[Parameters, NetworkShape, list[RerankProgress]]:
        parameters, shape = load_network(teacher, separate=0, opening=0.0)
        settings = RerankSettings(
            minutes=2.0,
            epochs=60,
            batch=BatchSettings(lists=4, negatives=3, random_negatives=0),
            learning_rate=3e-3,
            frozen=0,
            average=0.8,
            bfloat16=False,
            report_every=0.0,
        )
        reports: list[RerankProgress] = []
        result = train_reranker(parameters, shape, word_tokenizer(), TestRerank.lists, settings, reports.append)
        return result, shape, reports

    def test_puts_the_positive_first(self, trained: tuple[Parameters, NetworkShape, list[RerankProgress]]) -> None:
        parameters, shape, reports = trained
        for item in self.lists:
            logits = score(parameters, shape, [(item.query, text) for text in (item.positive, *item.negatives)])
            assert logits.argmax() == 0
        assert reports[-1].loss < 0.3 * reports[0].loss
        assert reports[-1].share == 1.0
        assert not any(tensor.requires_grad for tensor in parameters.values())

    def test_scaled_head_scales_and_shifts_every_logit(self, teacher: Path) -> None:
        parameters, shape = load_network(teacher)
        pairs = [("the cat", "red feline"), ("the dog", "a boat")]
        expected = score(parameters, shape, pairs) * 0.5 - 3.0
        assert score(scale_head(parameters, 0.5, -3.0), shape, pairs) == pytest.approx(expected, abs=1e-5)

    def test_frozen_layers_stay(self, teacher: Path) -> None:
        parameters, shape = load_network(teacher, separate=1)
        settings = RerankSettings(minutes=1.0, epochs=1, frozen=1, average=0.0, bfloat16=False)
        trained = train_reranker(parameters, shape, word_tokenizer(), self.lists, settings)
        changed = {name for name, tensor in parameters.items() if not bool((tensor == trained[name]).all())}
        assert changed
        assert all(name.startswith(("encoder.layer.1.", "head.", "across.")) for name in changed)

    def test_needs_lists(self, teacher: Path) -> None:
        parameters, shape = load_network(teacher)
        with pytest.raises(ValueError, match="at least one list"):
            train_reranker(parameters, shape, word_tokenizer(), [])

    @pytest.mark.parametrize(("int8", "tolerance"), [(False, 1e-3), (True, 0.5)])
    def test_exported_folder_scores_like_the_network(
        self,
        trained: tuple[Parameters, NetworkShape, list[RerankProgress]],
        tmp_path: Path,
        int8: bool,
        tolerance: float,
    ) -> None:
        parameters, shape, _ = trained
        settings = ExportSettings(name="tiny", max_length=32, int8=int8)
        export_reranker(parameters, shape, word_tokenizer(), tmp_path, settings)
        assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "tokenizer.json", "config.json"}
        assert b"export.py" not in (tmp_path / "model.onnx").read_bytes()
        reranker = OnnxCrossEncoder(tmp_path)
        assert reranker.name == "tiny"
        texts = [text for item in self.lists for text in (item.positive, *item.negatives)]
        expected = score(parameters, shape, [("the cat", text) for text in texts])
        spread = float(np.ptp(expected))
        assert reranker.score("the cat", texts) == pytest.approx(expected, abs=tolerance * max(1.0, spread / 10.0))
