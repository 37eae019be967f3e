"""Readers: files, folders and Python values into a stream of documents."""

from retrieval.documents.folders import open_documents
from retrieval.documents.parts import Part, list_parts, read_part
from retrieval.documents.samples import sample_documents
from retrieval.documents.values import from_python

__all__ = ["Part", "from_python", "list_parts", "open_documents", "read_part", "sample_documents"]
