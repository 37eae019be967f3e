"""A uniform sample of what an index holds."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from retrieval.datatypes import IndexManifest
from retrieval.protocols import Store

if TYPE_CHECKING:
    from retrieval.training.adapt import CorpusPassage

_FEW_DOCUMENTS = 50
_NEIGHBOURS = 8


def sample_passages(store: Store, manifest: IndexManifest, limit: int, seed: int) -> list[CorpusPassage]:
    """A uniform sample of the passages of an index, read in one pass with memory for the sample alone.

    In an index of few documents, neighbouring passages stand for one document: passages of one document are not told
    apart in training, and there would be nothing to learn from.

    Args:
        store: Open store.
        manifest: Its manifest.
        limit: How many passages at most.
        seed: Of the choice.

    Source:
        Vitter 1985, "Random sampling with a reservoir", algorithm R.
    """
    from retrieval.training.adapt import CorpusPassage

    chosen = random.Random(seed)
    few = manifest.documents < _FEW_DOCUMENTS
    sample: list[CorpusPassage] = []
    fields = ["text", "title", "headings", "document", "index"]
    for number, point in enumerate(store.scan(payload=fields)):
        place = number if number < limit else chosen.randrange(number + 1)
        if place >= limit:
            continue
        values = point.payload
        document = f"{values['document']}#{values['index'] // _NEIGHBOURS}" if few else values["document"]
        passage = CorpusPassage(values["text"], values["title"], tuple(values.get("headings", ())), document)
        if number < limit:
            sample.append(passage)
        else:
            sample[place] = passage
    return sample
