"""A judged collection that needs no download: the docstrings of this Python.

The first sentence of a docstring is the query, the rest of it the document that should be found. That is easier than
real search, since both come from one author, but the judgements are real and there are thousands of them.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

from pipelines.python_docs import python_documents

_SENTENCE = re.compile(r"(.{20,200}?[.!?])\s+(.{80,})", flags=re.DOTALL)


def split_docstrings() -> list[tuple[str, str, str]]:
    """Name, first sentence and rest of every docstring that has both; a sentence that several share is left out."""
    found: dict[str, tuple[str, str, str]] = {}
    shared = set()
    for document in python_documents():
        parts = _SENTENCE.match(document.text.strip())
        if parts is None:
            continue
        query = " ".join(parts[1].split())
        shared |= {query} if query in found else set()
        found[query] = (document.id, query, parts[2].strip())
    return [one for query, one in found.items() if query not in shared]


def write_collection(folder: Path, queries: int = 100, seed: int = 1) -> Path:
    """Write all rests as ``corpus.jsonl`` and a sample of the sentences as queries of a BEIR folder.

    Args:
        folder: Made when absent.
        queries: How many; drawn by ``seed``.
        seed: Of the sample.

    Returns:
        The folder.
    """
    rows = split_docstrings()
    asked = random.Random(seed).sample(rows, min(queries, len(rows)))
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    corpus = [json.dumps({"_id": name, "title": "", "text": rest}) for name, _, rest in rows]
    (folder / "corpus.jsonl").write_text("\n".join(corpus), encoding="utf-8")
    texts = [json.dumps({"_id": f"q-{name}", "text": query}) for name, query, _ in asked]
    (folder / "queries.jsonl").write_text("\n".join(texts), encoding="utf-8")
    judged = [f"q-{name}\t{name}\t1" for name, _, _ in asked]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]), encoding="utf-8")
    return folder
