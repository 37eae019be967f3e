"""Training of cross-encoders on a tiny BERT and worlds of a few words: what each part is for, it must do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from typer.testing import CliRunner

from pipelines.cli import app
from retrieval.config import Bm25Config
from retrieval.datatypes import FloatArray
from retrieval.encoders import Bm25Encoder
from retrieval.errors import DocumentError, ModelError
from retrieval.rerankers.cross_encoder import OnnxCrossEncoder
from retrieval.training.reranker.attention import AttentionBias, attend
from retrieval.training.reranker.batches import BatchSettings, ListBatch, list_batches, tokenize_pairs
from retrieval.training.reranker.ensemble import bm25_scorer, score_lists
from retrieval.training.reranker.export import ExportSettings, export_reranker
from retrieval.training.reranker.lists import RankingList, read_lists, write_lists
from retrieval.training.reranker.losses import LossName, list_loss
from retrieval.training.reranker.network import (
    Parameters,
    chosen_layers,
    load_network,
    open_network,
    save_network,
    scale_head,
)
from retrieval.training.reranker.quantize import float_scores, graph_scores, rank_agreement
from retrieval.training.reranker.ranking import fit_head, list_scores, ranking_accuracy
from retrieval.training.reranker.rerank import RerankProgress, RerankSettings, train_reranker
from retrieval.training.reranker.smoothing import channel_ranges, smooth_graph

THINGS = ["pipe", "door", "car", "ship", "lamp", "wall", "cup", "roof"]
STATES = ["broken", "clean", "red", "open"]
WORDS = [*THINGS, *STATES, "is", "not", "the", "a", "dry", "wet", "cold", "hot", "whole", "torn"]


def word_tokenizer() -> Tokenizer:
    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with four layers over the words, as sentence transformers are saved."""
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("start")
    generator = torch.Generator().manual_seed(0)
    width, inner = 32, 64

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    tensors = {
        "embeddings.word_embeddings.weight": random(5 + len(WORDS), width),
        "embeddings.position_embeddings.weight": random(512, width),
        "embeddings.token_type_embeddings.weight": random(2, width),
    }
    shapes = {
        **{f"attention.self.{part}": (width, width) for part in ("query", "key", "value")},
        "attention.output.dense": (width, width),
        "intermediate.dense": (inner, width),
        "output.dense": (width, inner),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(4):
        for part, shape in shapes.items():
            tensors[f"encoder.layer.{layer}.{part}.weight"] = random(*shape)
            tensors[f"encoder.layer.{layer}.{part}.bias"] = torch.zeros(shape[0])
        norms += [f"encoder.layer.{layer}.{part}.LayerNorm" for part in ("attention.output", "output")]
    for norm in norms:
        tensors |= {f"{norm}.weight": torch.ones(width), f"{norm}.bias": torch.zeros(width)}
    save_file(tensors, str(folder / "model.safetensors"))
    config = {"model_type": "bert", "num_hidden_layers": 4, "num_attention_heads": 4, "layer_norm_eps": 1e-12}
    (folder / "config.json").write_text(json.dumps(config))
    word_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


# Which thing a query means cannot be seen from its words: only training tells that "dry" asks for a clean thing.
ASKED = {"dry": "clean", "wet": "broken", "cold": "open", "hot": "red"}


def toy_lists(things: Sequence[str] = THINGS) -> list[RankingList]:
    return [
        RankingList(
            f"{asked} {thing}", f"the {thing} is {state}", tuple(f"the {thing} is {s}" for s in STATES if s != state)
        )
        for thing, (asked, state) in product(things, ASKED.items())
    ]


def negation_lists(things: Sequence[str]) -> list[RankingList]:
    """A whole thing is one that is not broken."""
    lists = []
    for thing in things:
        plain, denied = f"the {thing} is broken", f"the {thing} is not broken"
        lists += [RankingList(f"torn {thing}", plain, (denied,)), RankingList(f"whole {thing}", denied, (plain,))]
    return lists


QUICK = RerankSettings(
    minutes=60.0,
    epochs=20,
    batch=BatchSettings(lists=8, negatives=3, random_negatives=0, max_tokens=24),
    learning_rate=5e-3,
    frozen=0,
    average=0.5,
    bfloat16=False,
    report_every=1e9,
)


class TestLayers:
    def test_the_first_and_the_last_are_kept(self) -> None:
        assert chosen_layers(3, 6) == (0, 2, 5)
        assert chosen_layers(4, 6) == (0, 2, 3, 5)
        assert chosen_layers(1, 6) == (5,)
        assert chosen_layers(None, 3) == (0, 1, 2)

    def test_the_weights_are_those_of_the_layers_named(self, start: Path) -> None:
        whole, _ = load_network(start)
        some, shape = load_network(start, layers=(1, 3))
        assert (shape.layers, shape.separate) == (2, 1)
        part = "intermediate.dense.weight"
        for new, old in ((0, 1), (1, 3)):
            assert (some[f"encoder.layer.{new}.{part}"] == whole[f"encoder.layer.{old}.{part}"]).all()
        assert "encoder.layer.2." + part not in some
        assert some["across.opening"].shape == (1, 4)

    @pytest.mark.parametrize(("layers", "said"), [(7, "7 cannot be kept"), ((2, 1), "not rising"), ((0, 4), "0 to 3")])
    def test_layers_that_are_not_there(self, start: Path, layers: int | tuple[int, ...], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            load_network(start, layers=layers)

    def test_a_network_is_saved_whole(self, start: Path, tmp_path: Path) -> None:
        parameters, shape = load_network(start, layers=2)
        save_network(parameters, shape, tmp_path)
        again, same = open_network(tmp_path)
        assert same == shape
        assert again.keys() == parameters.keys()
        assert all((again[name] == parameters[name]).all() for name in again)
        with pytest.raises(ModelError, match=r"network\.json"):
            open_network(tmp_path / "nothing")


class TestAttention:
    def test_the_fast_gradients_are_those_of_autograd(self) -> None:
        import torch

        torch.manual_seed(0)
        made = [torch.randn(2, 3, 5, 4) for _ in range(3)]
        across, same = (torch.rand(2, 5, 5) < 0.5).float(), (torch.rand(2, 5, 5) < 0.3).float()
        padding = torch.zeros(2, 1, 1, 5)
        padding[1, ..., 4] = -10_000.0
        opening, match, weight = torch.randn(3), torch.randn(3), torch.randn(2, 3, 5, 4)

        def gradients(*, whole: bool) -> list[torch.Tensor]:
            leaves = [tensor.clone().requires_grad_() for tensor in (*made, opening, match)]
            parts = AttentionBias(padding, across, same, leaves[3], leaves[4])
            mixed = attend(leaves[0], leaves[1], leaves[2], parts.whole() if whole else parts)
            (mixed * weight).sum().backward()  # type: ignore[no-untyped-call]
            return [mixed.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]

        ours, theirs = gradients(whole=False), gradients(whole=True)
        assert len(ours) == len(theirs) == 6
        for one, other in zip(ours, theirs, strict=True):
            assert torch.allclose(one, other, atol=1e-5)


class TestBatches:
    def read(self, batch: ListBatch, tokenizer: Tokenizer) -> list[list[str]]:
        rows = [tokenizer.decode(ids[length:-1]) for ids, length in batch.pairs]
        return [rows[several] for several in batch.lists]

    def test_a_step_depends_on_its_number_alone(self) -> None:
        tokenizer, settings = word_tokenizer(), BatchSettings(lists=3, contrast=0.25, bucket=2)
        arguments = {"epochs": 3, "seed": 5, "contrast": negation_lists(THINGS[:2])}
        whole = list(list_batches(toy_lists()[:10], tokenizer, settings, **arguments))  # type: ignore[arg-type]
        rest = list(list_batches(toy_lists()[:10], tokenizer, settings, **arguments, first=5))  # type: ignore[arg-type]
        assert len(whole) == 12
        assert [batch.pairs for batch in rest] == [batch.pairs for batch in whole[5:]]

    def test_every_epoch_reads_every_list_once(self) -> None:
        lists = toy_lists()[:10]
        settings = BatchSettings(lists=4, negatives=1, random_negatives=0, bucket=2)
        batches = list(list_batches(lists, word_tokenizer(), settings, epochs=2, seed=0))
        positives = [rows[0] for batch in batches for rows in self.read(batch, word_tokenizer())]
        assert sorted(positives[:10]) == sorted(positives[10:]) == sorted(item.positive for item in lists)

    def test_buckets_hold_texts_of_similar_length(self) -> None:
        lists = [RankingList("a", " ".join(["cup"] * (1 + n % 16)), ("lamp",)) for n in range(64)]

        def spread(bucket: int) -> float:
            settings = BatchSettings(lists=4, negatives=0, random_negatives=0, bucket=bucket)
            lengths = [
                [len(ids) for ids, _ in b.pairs]
                for b in list_batches(lists, word_tokenizer(), settings, epochs=1, seed=0)
            ]
            return float(np.mean([max(several) - min(several) for several in lengths]))

        assert spread(16) <= 1.0 < 6.0 < spread(1)

    def test_a_quarter_are_contrast_lists_and_their_twin_is_read(self) -> None:
        contrast = [RankingList("not broken", "not broken", ("broken", *THINGS[:6]))]
        settings = BatchSettings(lists=3, negatives=2, random_negatives=0, contrast=0.25)
        batches = list(list_batches(toy_lists(), word_tokenizer(), settings, epochs=1, seed=1, contrast=contrast))
        rows = [rows for batch in batches for rows in self.read(batch, word_tokenizer())]
        twins = [several for several in rows if several[0] == "not broken"]
        assert len(twins) == round(len(toy_lists()) / 3)
        assert all(several[1] == "broken" for several in twins)

    def test_scores_go_with_the_negatives_drawn(self) -> None:
        item = RankingList("a", "cup", ("lamp", "wall", "roof"), scores=(9.0, 1.0, 2.0, 3.0))
        settings = BatchSettings(lists=2, negatives=2, random_negatives=1)
        batch = next(list_batches([item, replace(item, positive="door")], word_tokenizer(), settings, epochs=1, seed=0))
        known = {"cup": 9.0, "door": 9.0, "lamp": 1.0, "wall": 2.0, "roof": 3.0}
        for rows, scores in zip(self.read(batch, word_tokenizer()), batch.scores, strict=True):
            assert [known[row] for row in rows[:3]] == scores[:3].tolist()
            assert np.isnan(scores[3])


class TestLosses:
    def loss(self, scores: Sequence[float], teacher: Sequence[float], name: str, share: float = 1.0) -> float:
        import torch

        taught = np.array(teacher, dtype=np.float32)
        return float(list_loss(torch.tensor(scores), taught, name, share))  # type: ignore[arg-type]

    def test_values_by_hand(self) -> None:
        assert self.loss([0.0, 0.0], [1.0, 0.0], "listwise") == pytest.approx(np.log(2))
        assert self.loss([3.0, 1.0, 0.0], [3.0, 1.0, 1.0], "margin") == pytest.approx((0.0 + 1.0) / 2)
        assert self.loss([1.0, 2.0], [1.0, 2.0], "distil") == pytest.approx(0.0, abs=1e-6)
        assert self.loss([0.0, 0.0], [100.0, 0.0], "distil") == pytest.approx(np.log(2))

    def test_texts_without_a_score_count_for_the_list_only(self) -> None:
        assert self.loss([3.0, 1.0, 50.0], [3.0, 1.0, np.nan], "margin") == pytest.approx(0.0)
        mixed = self.loss([0.0, 0.0], [5.0, 0.0], "margin", share=0.5)
        assert mixed == pytest.approx(0.5 * 25.0 + 0.5 * np.log(2))
        assert self.loss([0.0, 0.0], [np.nan, np.nan], "distil") == pytest.approx(np.log(2))


class TestTraining:
    def train(self, start: Path, lists: Sequence[RankingList], settings: RerankSettings, **more: object) -> Parameters:
        parameters, shape = load_network(start, layers=2, separate=0)
        return train_reranker(parameters, shape, word_tokenizer(), lists, settings, **more)  # type: ignore[arg-type]

    def accuracy(self, start: Path, parameters: Parameters, lists: Sequence[RankingList]) -> float:
        _, shape = load_network(start, layers=2, separate=0)
        return ranking_accuracy(parameters, shape, word_tokenizer(), lists)

    def test_it_learns_what_the_words_do_not_say(self, start: Path) -> None:
        parameters, _ = load_network(start, layers=2, separate=0)
        trained = self.train(start, toy_lists(THINGS[:6]), QUICK)
        held_out = toy_lists(THINGS[6:])
        assert self.accuracy(start, parameters, held_out) < 0.8
        assert self.accuracy(start, trained, held_out) > 0.95

    def test_contrast_lists_teach_negation(self, start: Path) -> None:
        lists, held_out = toy_lists(), negation_lists(THINGS[6:])
        mixed = replace(QUICK, batch=replace(QUICK.batch, contrast=0.5))
        plain = self.train(start, lists, QUICK)
        taught = self.train(start, lists, mixed, contrast=negation_lists(THINGS[:6]))
        assert self.accuracy(start, plain, held_out) < 0.9
        assert self.accuracy(start, taught, held_out) > 0.95
        assert self.accuracy(start, taught, lists) > 0.9

    @pytest.mark.parametrize("loss", ["margin", "distil"])
    def test_a_teacher_is_believed_more_than_the_labels(self, start: Path, loss: LossName) -> None:
        lists = [replace(item, scores=(0.0, 4.0, 0.0, 0.0)) for item in toy_lists()]
        settings = replace(QUICK, epochs=10, loss=loss, teacher_share=1.0, batch=replace(QUICK.batch, negatives=3))
        trained = self.train(start, lists, settings)
        _, shape = load_network(start, layers=2, separate=0)
        scores = [list_scores(trained, shape, word_tokenizer(), item, BatchSettings()) for item in lists]
        assert np.mean([values.argmax() == 1 for values in scores]) > 0.9

    def test_going_on_is_the_same_as_not_stopping(self, start: Path, tmp_path: Path) -> None:
        settings = replace(QUICK, epochs=3, report_every=0.0)
        whole = self.train(start, toy_lists(), settings)
        stop = tmp_path / "stop"

        def stop_at_five(progress: RerankProgress) -> None:
            if progress.step == 5:
                stop.touch()

        place = {"checkpoint": tmp_path / "state.pt", "stop_file": stop}
        first = self.train(start, toy_lists(), settings, on_progress=stop_at_five, **place)
        stop.unlink()
        steps: list[int] = []
        second = self.train(start, toy_lists(), settings, on_progress=lambda p: steps.append(p.step), **place)
        assert steps == list(range(6, 13))
        assert all((second[name] == whole[name]).all() for name in whole)
        assert any((first[name] != whole[name]).any() for name in whole)

    def test_a_checkpoint_of_something_else_is_refused(self, start: Path, tmp_path: Path) -> None:
        settings = replace(QUICK, epochs=1)
        state = tmp_path / "state.pt"
        self.train(start, toy_lists(), settings, checkpoint=state)
        with pytest.raises(ModelError, match="other lists, settings or sizes"):
            self.train(start, toy_lists(), replace(settings, seed=9), checkpoint=state)
        state.write_bytes(state.read_bytes()[:1000])
        with pytest.raises(ModelError, match="delete it to start anew"):
            self.train(start, toy_lists(), settings, checkpoint=state)

    def test_the_best_average_is_returned(self, start: Path) -> None:
        figures = iter([1.0, 3.0, 2.0, 0.0])
        seen: list[Parameters] = []

        def keep(progress: RerankProgress) -> None:
            seen.append({name: tensor.clone() for name, tensor in progress.parameters.items()})

        settings = replace(QUICK, epochs=1, report_every=0.0)
        best = self.train(start, toy_lists(), settings, on_progress=keep, evaluate=lambda parameters: next(figures))
        assert len(seen) == 4
        assert all((best[name] == seen[1][name]).all() for name in best)

    def test_bad_settings_and_no_lists(self, start: Path) -> None:
        with pytest.raises(ValueError, match="at least one list"):
            self.train(start, [], QUICK)
        with pytest.raises(ValueError, match="needs lists with teacher scores"):
            self.train(start, toy_lists(), replace(QUICK, loss="margin"))
        with pytest.raises(ValueError, match="one of listwise, margin, distil"):
            replace(QUICK, loss="hinge")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="share between 0 and 1"):
            replace(QUICK, batch=BatchSettings(contrast=1.5))


class TestHead:
    def test_the_sigmoid_parts_positives_from_negatives(self, start: Path) -> None:
        parameters, shape = load_network(start, layers=2)
        lists = [RankingList(f"the {thing}", f"the {thing}", ("a wet hot dry", "red open")) for thing in THINGS]
        shifted = scale_head(parameters, 0.1, 40.0)
        line = fit_head(shifted, shape, word_tokenizer(), lists)
        assert line[0] > 0
        fitted = scale_head(shifted, *line)
        scores = np.array([list_scores(fitted, shape, word_tokenizer(), item, BatchSettings()) for item in lists])
        assert (scores[:, 0] > 0).mean() > 0.9
        assert (scores[:, 1:] < 0).mean() > 0.9


class TestTeacher:
    def test_an_ensemble_weighs_what_was_brought_to_one_scale(self) -> None:
        lists = [RankingList("q", "one", ("two", "three"))]

        def tiny(query: str, texts: Sequence[str]) -> FloatArray:
            return np.array([0.001, 0.002, 0.003], dtype=np.float32)

        def huge(query: str, texts: Sequence[str]) -> FloatArray:
            return np.array([3000.0, 1000.0, 2000.0], dtype=np.float32)

        (scored,) = score_lists(lists, [(tiny, 1.0), (huge, 2.0)], spread=1.0)
        # On one scale: (-1, 0, 1) + 2 (1, -1, 0) = (1, -2, 1), whose deviation is the square root of 2.
        assert scored.scores == pytest.approx((0.7071, -1.4142, 0.7071), abs=1e-3)
        with pytest.raises(ValueError, match="weights that sum to more than 0"):
            score_lists(lists, [(tiny, 0.0)])

    def test_bm25_prefers_rare_words(self) -> None:
        texts = ["broken pipe", "broken lamp", "broken door", "clean cup"]
        score = bm25_scorer(Bm25Encoder(Bm25Config()), texts)
        one, other, none = score("broken cup", ["a broken wall", "a clean cup", "ship"])
        assert other > one > none == 0.0


class TestLists:
    def test_scores_are_written_and_read(self, tmp_path: Path) -> None:
        lists = [RankingList("q", "p", ("n",), "s", (2.0, -1.5)), RankingList("q2", "p2", ())]
        for name in ("lists.jsonl.gz", "lists.jsonl"):
            write_lists(lists, tmp_path / name)
            assert read_lists(tmp_path / name) == lists
        with pytest.raises(ValueError, match="1 scores for 2 passages"):
            RankingList("q", "p", ("n",), scores=(1.0,))
        with pytest.raises(ValueError, match="not a finite number"):
            RankingList("q", "p", ("n",), scores=(1.0, float("nan")))

    @pytest.mark.parametrize("line", ["[]", '{"query": 1, "positive": "p", "negatives": []}', '{"query": "q"}', "\x00"])
    def test_other_files_are_refused(self, tmp_path: Path, line: str) -> None:
        (tmp_path / "x.jsonl").write_text(line)
        with pytest.raises(DocumentError, match="not a file of ranking lists"):
            read_lists(tmp_path / "x.jsonl")


class TestExport:
    def test_parts_stay_in_float_until_the_ranking_agrees(self, start: Path, tmp_path: Path) -> None:
        parameters, shape = load_network(start, layers=1)
        spoilt = dict(parameters)
        name = "encoder.layer.0.output.dense.weight"
        spoilt[name] = parameters[name].clone()
        spoilt[name][:, 0] *= 3000.0  # one input so strong that 8 bits leave nothing of the others
        check = [(item.query, (item.positive, *item.negatives, *THINGS)) for item in toy_lists()[:8]]
        tried = export_reranker(spoilt, shape, word_tokenizer(), tmp_path, ExportSettings(agreement=0.99), check=check)
        assert tried[0].kept == ()
        assert tried[0].agreement < 0.99 <= tried[-1].agreement
        assert "feed-forward output" in tried[-1].kept
        # What is said of the file holds for the file, as the pipeline opens it.
        reranker = OnnxCrossEncoder(tmp_path, threads=1)
        ours = [reranker.score(query, texts) for query, texts in check]
        whole = [
            list_scores(spoilt, shape, word_tokenizer(), RankingList(q, t[0], tuple(t[1:])), BatchSettings())
            for q, t in check
        ]
        assert rank_agreement(ours, whole) == pytest.approx(tried[-1].agreement, abs=0.005)

    def test_smoothing_evens_out_the_channels_and_changes_no_score(self, start: Path, tmp_path: Path) -> None:
        parameters, shape = load_network(start, layers=1)
        spoilt = dict(parameters)
        for kind in ("weight", "bias"):  # one channel that is much larger than the others
            name = f"encoder.layer.0.attention.output.LayerNorm.{kind}"
            spoilt[name] = parameters[name].clone()
            spoilt[name][0] *= 500.0
        export_reranker(spoilt, shape, word_tokenizer(), tmp_path, ExportSettings(int8=False))
        item = toy_lists()[0]
        texts = [item.positive, *item.negatives]
        pairs = tokenize_pairs(word_tokenizer(), [item.query] * len(texts), texts, max_tokens=64, query_tokens=32)
        plain, smooth = tmp_path / "model.onnx", tmp_path / "smooth.onnx"
        smooth_graph(plain, smooth, pairs)
        before, after = (graph_scores(path, [pairs])[0][0] for path in (plain, smooth))
        np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-3)

        model = onnx.load(str(smooth))
        inputs = [node.input[0] for node in model.graph.node if node.name.endswith("_smoothing")]
        ranges = channel_ranges(model, inputs, pairs)
        evened = channel_ranges(model, [f"{name}_even" for name in inputs], pairs)
        spread = [float(values.max() / np.median(values)) for values in ranges.values()]
        smaller = [float(values.max() / np.median(values)) for values in evened.values()]
        assert max(spread) > 100
        assert max(smaller) < max(spread) / 5

    def test_agreement_by_hand(self) -> None:
        one, other = np.array([1.0, 2.0, 3.0], np.float32), np.array([1.0, 3.0, 2.0], np.float32)
        assert rank_agreement([one], [one * 7]) == pytest.approx(1.0)
        assert rank_agreement([one, one], [one, other]) == pytest.approx(0.75)
        ties = np.array([1.0, 1.0, 2.0], np.float32)
        assert rank_agreement([ties], [one]) == pytest.approx(0.8660, abs=1e-3)
        with pytest.raises(ValueError, match="at least two candidates"):
            rank_agreement([one[:1]], [one[:1]])

    def test_float_scores_are_the_networks(self, start: Path) -> None:
        parameters, shape = load_network(start, layers=2)
        item = toy_lists()[0]
        batch = next(list_batches([item], word_tokenizer(), BatchSettings(random_negatives=0), epochs=1, seed=0))
        (scores,) = float_scores(parameters, shape, [batch.pairs[:1]])
        assert scores[0] == pytest.approx(
            list_scores(parameters, shape, word_tokenizer(), item, BatchSettings())[0], abs=1e-4
        )


class TestCommand:
    def run(self, *arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["train-reranker", *arguments])
        return done.exit_code, done.output

    def lists(self, folder: Path, count: int = 32) -> Path:
        lists = [
            RankingList(f"{item.query} {n}", item.positive, item.negatives) for n in range(4) for item in toy_lists()
        ]
        write_lists(lists[: 4 * count], folder / "lists.jsonl.gz")
        return folder / "lists.jsonl.gz"

    def test_a_model_that_opens_and_ranks(self, start: Path, tmp_path: Path) -> None:
        source, out = self.lists(tmp_path), tmp_path / "model"
        given = (
            "--start",
            str(start),
            "--out",
            str(out),
            "--layers",
            "0,3",
            "--epochs",
            "2",
            "--contrast",
            "0",
            "--json",
        )
        code, output = self.run(str(source), *given)
        assert code == 0, output
        report = json.loads(output)
        assert report["layers"] == 2
        assert report["after"] >= report["before"]
        # The four candidates of a query score nearly alike here, so that rounding may swap two of them.
        assert report["roundings"][-1]["agreement"] > 0.9
        assert len(OnnxCrossEncoder(out, threads=1).score("dry pipe", ["the pipe is clean", "the pipe is red"])) == 2
        assert json.loads((out / "training.json").read_text())["steps"] == report["steps"]
        assert not (tmp_path / "model.training").exists()
        code, output = self.run(str(source), *given)
        assert (code, "is not empty" in output) == (2, True)

    def test_errors_say_what_is_wrong(self, start: Path, tmp_path: Path) -> None:
        out = ("--out", str(tmp_path / "model"), "--start", str(start))
        few = tmp_path / "few.jsonl"
        few.write_text(json.dumps({"query": "a", "positive": "b", "negatives": ["c"]}) + "\n")
        for arguments, said in (
            ((str(few), *out), "give at least 50"),
            ((str(tmp_path / "nothing.jsonl"), *out), "nothing.jsonl"),
            ((str(few), *out, "--loss", "hinge"), "--loss is listwise, margin or distil"),
            ((str(few), *out, "--layers", "x"), "such as 3 or 0,2,5"),
            ((str(few), "--out", str(tmp_path / "m"), "--start", str(tmp_path)), "not a folder with config.json"),
        ):
            code, output = self.run(*arguments)
            assert code in (1, 2), output
            assert said in " ".join(output.split())
        assert not (tmp_path / "model").exists()
