"""The nearest documents of a document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pipelines.render.output import visible

if TYPE_CHECKING:
    from pipelines.corpus_views.similar import SimilarDocument, SimilarDocuments

_TEXT = 240


def render_similar(console: Console, found: SimilarDocuments, *, quiet: bool) -> None:
    """One block for each document.

    Args:
        console: Where to.
        found: The documents.
        quiet: Leave the summary out.
    """
    for document in found.documents:
        console.print(_block(document, found.asked))
        console.print()
    if not found.documents:
        console.print("no other document is like it")
    if not quiet:
        asked = f"{found.asked} of its {found.passages} passages" if found.passages > 1 else "its only passage"
        name = visible(found.title) or visible(found.document_id)
        console.print(f"like {name}; {asked} asked, {found.first_stage}, {found.milliseconds:.1f} ms", style="dim")


def _block(document: SimilarDocument, asked: int) -> Group:
    head = Table.grid(expand=True, padding=(0, 1))
    head.add_column(width=3, justify="right")
    head.add_column(ratio=1, overflow="ellipsis", no_wrap=True)
    head.add_column(justify="right", no_wrap=True)
    title = visible(document.title) or visible(document.document_id)
    head.add_row(Text(f"{document.rank}", style="bold green"), Text(title, style="bold"), f"{document.score:.3f}")
    numbers = []
    if "dense" in document.arms:
        numbers.append(f"cosine {document.arms['dense'].score:.3f}")
    if "bm25" in document.arms:
        numbers.append(f"bm25 {document.arms['bm25'].score:.1f}")
    if asked > 1:
        numbers.append(f"found by {document.found_by} of {asked} passages")
    names = dict.fromkeys(visible(name) for name in (document.document_id, document.source) if name)
    where = "  ".join([*(name for name in names if name != title), ", ".join(numbers)])
    lines = [Text(where, style="dim", overflow="fold")]
    if document.shared_words:
        lines.append(Text(f"shared: {visible(', '.join(document.shared_words))}", style="cyan"))
    text = visible(document.text)
    lines.append(Text(text if len(text) <= _TEXT else f"{text[:_TEXT]}…"))
    return Group(head, *(Padding(line, (0, 0, 0, 4)) for line in lines))
