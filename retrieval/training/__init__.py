"""Recipes that make and adapt the models: each one a function with a record of its settings.

distill -> finetune makes a static model; mine -> train_reranker -> export_reranker makes a cross-encoder.
torch, transformers and model2vec are imported when a recipe runs, not before.
"""

from retrieval.training.adapt import Adaptation, AdaptProgress, AdaptSettings, CheckRow, CorpusPassage, adapt
from retrieval.training.contrast.lists import ContrastSettings, contrast_lists
from retrieval.training.contrastive.train_data import RowSettings, read_training_pairs
from retrieval.training.contrastive.training import (
    ContrastiveResult,
    ContrastiveSettings,
    TrainingSet,
    TrainProgress,
    train_contrastive,
)
from retrieval.training.known import KnownPositives
from retrieval.training.mine import MineCounts, Miner, MineSettings
from retrieval.training.pairs import Pair, PairSettings, read_pairs, stream_pairs
from retrieval.training.reranker.ensemble import bm25_scorer, cosine_scorer, score_lists
from retrieval.training.reranker.export import ExportSettings, export_reranker
from retrieval.training.reranker.lists import RankingList, read_lists, write_lists
from retrieval.training.reranker.network import (
    NetworkShape,
    Parameters,
    load_network,
    open_network,
    save_network,
    scale_head,
)
from retrieval.training.reranker.quantize import Rounding
from retrieval.training.reranker.ranking import fit_head, ranking_accuracy
from retrieval.training.reranker.rerank import RerankProgress, RerankSettings, train_reranker
from retrieval.training.static.distill import DistillSettings, distill
from retrieval.training.static.finetune import FinetuneSettings, finetune
from retrieval.training.static.fit import FitSettings, Fitted, fit_sentences, sample_sentences
from retrieval.training.static.formats import save_model2vec, save_sentence_transformers
from retrieval.training.static.lessons import TaughtTexts
from retrieval.training.static.phrases import add_phrases
from retrieval.training.static.vocabulary import PhraseSettings, find_phrases, read_phrases
from retrieval.training.table import StaticTable, average_tables
from retrieval.training.teacher import Teacher

__all__ = [
    "AdaptProgress",
    "AdaptSettings",
    "Adaptation",
    "CheckRow",
    "ContrastSettings",
    "ContrastiveResult",
    "ContrastiveSettings",
    "CorpusPassage",
    "DistillSettings",
    "ExportSettings",
    "FinetuneSettings",
    "FitSettings",
    "Fitted",
    "KnownPositives",
    "MineCounts",
    "MineSettings",
    "Miner",
    "NetworkShape",
    "Pair",
    "PairSettings",
    "Parameters",
    "PhraseSettings",
    "RankingList",
    "RerankProgress",
    "RerankSettings",
    "Rounding",
    "RowSettings",
    "StaticTable",
    "TaughtTexts",
    "Teacher",
    "TrainProgress",
    "TrainingSet",
    "adapt",
    "add_phrases",
    "average_tables",
    "bm25_scorer",
    "contrast_lists",
    "cosine_scorer",
    "distill",
    "export_reranker",
    "find_phrases",
    "finetune",
    "fit_head",
    "fit_sentences",
    "load_network",
    "open_network",
    "ranking_accuracy",
    "read_lists",
    "read_pairs",
    "read_phrases",
    "read_training_pairs",
    "sample_sentences",
    "save_model2vec",
    "save_network",
    "save_sentence_transformers",
    "scale_head",
    "score_lists",
    "stream_pairs",
    "train_contrastive",
    "train_reranker",
    "write_lists",
]
