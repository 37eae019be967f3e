"""The table of docs/integrations.md, made from the tests that are marked with `keeps`.

python -m tests.integration_table        # writes it anew
"""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tests.adapter_index import COLUMNS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "integrations.md"
MODULES = (
    "test_integration_langchain",
    "test_integration_llamaindex",
    "test_integration_haystack",
    "test_examples_rag",
)
FRAMEWORKS = {
    "langchain": ("LangChain", "langchain-core"),
    "llamaindex": ("LlamaIndex", "llama-index-core"),
    "haystack": ("Haystack", "haystack-ai"),
}
ADAPTERS = {
    "langchain.TwoStageRetriever": "retriever",
    "langchain.CrossEncoderCompressor": "reranker",
    "langchain.StaticEmbeddings": "embedder",
    "llamaindex.TwoStageRetriever": "retriever",
    "llamaindex.CrossEncoderPostprocessor": "reranker",
    "llamaindex.StaticEmbedding": "embedder",
    "haystack.TwoStageRetriever": "retriever",
    "haystack.CrossEncoderRanker": "reranker",
    "haystack.StaticTextEmbedder": "text embedder",
    "haystack.StaticDocumentEmbedder": "embedder",
}
NOTHING_TO_KEEP = {
    "reranker": {"streaming"},
    "embedder": {"scores", "ranks", "streaming"},
    "text embedder": {"scores", "ranks", "metadata", "streaming"},
}
"""Cells with a dash: an embedder has no scores and no ranks, a query no metadata; both return at once."""


def marked_tests() -> dict[tuple[str, str], list[str]]:
    """Test ids by adapter and column, as marked."""
    found: dict[tuple[str, str], list[str]] = {}
    for module in MODULES:
        for name, test in inspect.getmembers(importlib.import_module(f"tests.{module}"), inspect.isfunction):
            for cell in getattr(test, "keeps", ()):
                if not name.startswith("test_"):
                    raise ValueError(f"{name} in {module} is marked, and pytest does not run it")
                found.setdefault(cell, []).append(f"tests/{module}.py::{name}")
    return found


def versions() -> dict[str, tuple[str, str]]:
    """Version tested and lowest version allowed, by distribution: from constraints.txt and pyproject.toml."""
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    return {
        distribution: (pinned[distribution], extras[extra][0].removeprefix(f"{distribution}>="))
        for extra, (_, distribution) in FRAMEWORKS.items()
    }


def table() -> str:
    """The table and the list of tests below it, in Markdown."""
    return "\n".join([*_rows(), "", "The test behind each cell:", "", *_list()])


def _rows() -> Iterator[str]:
    behind, tested = marked_tests(), versions()
    yield f"| framework, version tested | adapter | {' | '.join(COLUMNS)} |"
    yield "|---|---|" + "---|" * len(COLUMNS)
    for adapter in ADAPTERS:
        framework, _, name = adapter.partition(".")
        title, distribution = FRAMEWORKS[framework]
        version, lowest = tested[distribution]
        cells = ["yes" if (adapter, column) in behind else "\u2013" for column in COLUMNS]
        yield f"| {title}: `{distribution}` {version} (from {lowest}) | `{name}` | {' | '.join(cells)} |"


def _list() -> Iterator[str]:
    for adapter in ADAPTERS:
        places: dict[str, list[str]] = {}
        for (marked, column), ids in sorted(marked_tests().items(), key=lambda item: COLUMNS.index(item[0][1])):
            if marked == adapter:
                for place in ids:
                    places.setdefault(place, []).append(column)
        yield f"* `{adapter}`"
        yield from (f"    * {', '.join(columns)}: `{place}`" for place, columns in places.items())


def written() -> str:
    """What stands between the marks on the page."""
    return _parts()[1]


def _parts() -> tuple[str, str, str]:
    """The page before, between and after the marks."""
    before, start, rest = PAGE.read_text(encoding="utf-8").partition("<!-- table -->\n\n")
    between, end, after = rest.partition("\n\n<!-- end of table -->")
    if not start or not end:
        raise ValueError(f"{PAGE} has lost the marks of its table")
    return before + start, between, end + after


if __name__ == "__main__":
    before, _, after = _parts()
    PAGE.write_text(before + table() + after, encoding="utf-8")
