"""Recipes that make and adapt the models: each one a function with a record of its settings.

distill -> finetune makes a static model; mine -> train_reranker -> export_reranker makes a cross-encoder.
torch, transformers and model2vec are imported when a recipe runs, not before.
"""

from retrieval.training.distill import DistillSettings, distill
from retrieval.training.export import ExportSettings, export_reranker
from retrieval.training.finetune import FinetuneSettings, finetune
from retrieval.training.lists import RankingList, read_lists, write_lists
from retrieval.training.mine import MineSettings, mine
from retrieval.training.network import NetworkShape, Parameters, load_network, scale_head
from retrieval.training.pairs import Pair, PairSettings, read_pairs, sentence_pairs
from retrieval.training.rerank import RerankProgress, RerankSettings, train_reranker
from retrieval.training.table import StaticTable, average_tables

__all__ = [
    "DistillSettings",
    "ExportSettings",
    "FinetuneSettings",
    "MineSettings",
    "NetworkShape",
    "Pair",
    "PairSettings",
    "Parameters",
    "RankingList",
    "RerankProgress",
    "RerankSettings",
    "StaticTable",
    "average_tables",
    "distill",
    "export_reranker",
    "finetune",
    "load_network",
    "mine",
    "read_lists",
    "read_pairs",
    "scale_head",
    "sentence_pairs",
    "train_reranker",
    "write_lists",
]
