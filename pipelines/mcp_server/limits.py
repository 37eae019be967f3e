"""How much one call may ask for and get, so that an answer fits into the context of an assistant."""

from __future__ import annotations

QUERY_CHARACTERS = 2_000
FILTER_CHARACTERS = 10_000
NAME_CHARACTERS = 2_048
PATH_CHARACTERS = 4_096
TOP_K = 50
CANDIDATES = 1_000
DEPTH = 200
BUDGET_MS = 60_000
RESULT_CHARACTERS = 40_000
"""Text of passages in one answer, all hits together: about ten thousand tokens."""
SHORTEST_HIT = 400
"""Characters that every hit keeps, however many there are."""
METADATA_CHARACTERS = 2_000
"""Metadata of one hit or document, as JSON; what is longer is left out and named."""
TITLE_CHARACTERS = 300
DOCUMENT_CHARACTERS = 20_000
DEFAULT_DOCUMENT_CHARACTERS = 8_000
PATHS = 100
REJECTIONS = 20
MESSAGE_BYTES = 4 * 2**20
"""One message of a client."""
