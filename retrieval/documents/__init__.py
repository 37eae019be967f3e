"""Readers: files, folders and Python values into a stream of documents."""

from retrieval.documents.folders import open_documents
from retrieval.documents.values import from_python

__all__ = ["from_python", "open_documents"]
