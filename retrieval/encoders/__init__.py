"""Texts to vectors: a static token table for meaning, BM25 for words."""

from retrieval.encoders.bm25 import Bm25Encoder
from retrieval.encoders.cache import CacheStatistics
from retrieval.encoders.compiled import CompiledStatus, compiled_status, find_compiled, prepare_compiled
from retrieval.encoders.passages import EncodedPassages, encode_passages
from retrieval.encoders.static import StaticEncoder

__all__ = [
    "Bm25Encoder",
    "CacheStatistics",
    "CompiledStatus",
    "EncodedPassages",
    "StaticEncoder",
    "compiled_status",
    "encode_passages",
    "find_compiled",
    "prepare_compiled",
]
