"""The index that hard negatives are taken from: one that is there, or one that is made for this."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.two_stage import Source, TwoStagePipeline
from retrieval.config import ChunkingConfig, Config, EdgeStoreConfig, QuantizationConfig
from retrieval.errors import ConfigError, DocumentError
from retrieval.training.pairs import Pair


@contextmanager
def open_candidates(
    pairs: Iterable[Pair],
    config: Config | None,
    index: str | Path | None,
    corpus: Source | None,
    folder: Path,
    on_indexed: Callable[[int], None],
) -> Iterator[TwoStagePipeline]:
    """The index to mine, open; one that is made for this is filled first.

    Args:
        pairs: Their passages are the candidates when there is neither index nor corpus.
        config: Models and settings; ``None`` for those of the index, or the defaults.
        index: Folder of an index.
        corpus: What to put into an index that is made for this.
        folder: Where to make it; one that is there already is completed.
        on_indexed: Told how many passages are in.

    Raises:
        ConfigError: The index is empty.
        DocumentError: There is nothing that can be searched.
        RetrievalError: As for `TwoStagePipeline.open` and its ``ingest``.
    """
    if index is not None:
        with TwoStagePipeline.open(index, config) as pipeline:
            if not pipeline.manifest.passages:
                raise ConfigError(f"the index {pipeline.store.location} is empty; ingest documents first")
            yield pipeline
        return

    source = pair_passages(pairs) if corpus is None else corpus
    # What a run that was stopped has put in may have vanished from the corpus since.
    sync = isinstance(source, str | Path) and folder.exists()
    with TwoStagePipeline.open(folder, mining_config(config or Config(), whole=corpus is None)) as pipeline:
        report = pipeline.ingest(source, sync=sync, on_progress=lambda progress: on_indexed(progress.passages))
        if not pipeline.manifest.passages:
            reason = f": {report.rejected[0].source}: {report.rejected[0].reason}" if report.rejected else ""
            raise DocumentError(f"nothing of {'the pairs' if corpus is None else corpus} can be searched{reason}")
        yield pipeline


def mining_config(config: Config, *, whole: bool) -> Config:
    """Settings of an embedded index that is made to be mined.

    Vectors are compressed to two bits and scored again in full: over a million passages four times as fast as exact
    search, and there is no graph to build first.

    Args:
        config: Models and everything else.
        whole: Whether texts stay whole, as passages of pairs must to be told apart; or are cut as ``config`` says.
    """
    changes: dict[str, Any] = {"store": EdgeStoreConfig(), "quantization": QuantizationConfig(kind="turbo", bits=2)}
    if whole:
        changes["chunking"] = ChunkingConfig(max_tokens=8192, overlap_tokens=0)
    return config.model_copy(update=changes)


def pair_passages(pairs: Iterable[Pair]) -> Iterator[tuple[str, str]]:
    """Every different passage of the pairs with an id, as `TwoStagePipeline.ingest` takes it."""
    seen: set[bytes] = set()
    for pair in pairs:
        for text in (pair.positive, *pair.negatives):
            digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            if digest not in seen and text.strip():
                seen.add(digest)
                yield digest.hex(), text
