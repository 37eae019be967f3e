"""Parts of a two-stage retriever that runs on a cheap CPU; `pipelines` wires them together."""

from retrieval.datatypes import Document, Hit, IngestReport, Results
from retrieval.errors import RetrievalError

__version__ = "0.1.0"
__all__ = ["Document", "Hit", "IngestReport", "Results", "RetrievalError", "__version__"]
