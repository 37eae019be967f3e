"""Tables of token vectors and the folders that they come in: below what encodes with them and what trains them."""

from retrieval.token_tables.formats import FORMAT, Rules, StaticModel, open_static_model, unknown_id
from retrieval.token_tables.portable import Portable, Precision, write_portable
from retrieval.token_tables.table import RowSums, TokenTable

__all__ = [
    "FORMAT",
    "Portable",
    "Precision",
    "RowSums",
    "Rules",
    "StaticModel",
    "TokenTable",
    "open_static_model",
    "unknown_id",
    "write_portable",
]
