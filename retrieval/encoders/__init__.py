"""Texts to vectors: a static token table for meaning, BM25 for words."""

from retrieval.encoders.bm25 import Bm25Encoder
from retrieval.encoders.static import StaticEncoder

__all__ = ["Bm25Encoder", "StaticEncoder"]
