"""What is killed. Each operation has an index to begin with, and changes it in a process of its own."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.reliability.checks import Rules
from benchmarks.reliability.corpus import (
    ADDED,
    DOCUMENTS,
    documents,
    long_documents,
    name,
    short_documents,
    write_folder,
)
from pipelines import TwoStagePipeline
from retrieval.config import Config, parse_config
from retrieval.datatypes import IngestProgress, Quantization

Tell = Callable[..., None]
"""Called with keywords: a stage, what was acknowledged."""

ADAPT_STEPS = 6
_SMALL = {"encoder": {"dimensions": 64}}
_GRAPH = {"hnsw": {"threshold": 100}}
_PADDING = 32_000
_OTHERS = 120


@dataclass(frozen=True, slots=True)
class Operation:
    """One kind of change.

    Args:
        name: What it is called.
        says: What it does, for the page.
        prepare: Makes what is there before in a room: ``index`` and ``documents``.
        run: Carries it out on an index; the room has the documents.
        share: How many of 240 kills it gets.
        second: Whether it starts other processes.
        repeats: Whether a run that has come to its end is repeated like any other; else that would undo it.
        whole: Whether it takes place at once: all passages are as before it, or all as after it.
        mends: Whether the index is damaged before.
        several: Whether it is several changes, so that readers may see states between.
    """

    name: str
    says: str
    prepare: Callable[[Path], None]
    run: Callable[[Path, Path, Tell], None]
    share: int
    second: bool = False
    repeats: bool = True
    whole: bool = False
    mends: bool = False
    several: bool = False

    @property
    def rules(self) -> Rules:
        """What may be seen after a kill."""
        return Rules(self.whole, self.mends, self.several)


def opened(index: Path, tell: Tell, **sections: Any) -> TwoStagePipeline:
    """The pipeline that is going to be killed."""
    pipeline = TwoStagePipeline.open(index, parse_config(sections) if sections else None)
    tell(begun=True)
    return pipeline


def _ingest(**sections: Any) -> Callable[[Path, Path, Tell], None]:
    def run(index: Path, room: Path, tell: Tell) -> None:
        with opened(index, tell, **sections) as pipeline:
            pipeline.ingest(room / "documents", on_progress=_shown(tell))
            tell(done=True)

    return run


def _shown(tell: Tell) -> Callable[[IngestProgress], None]:
    def show(progress: IngestProgress) -> None:
        if progress.stage == "reweighting":
            tell(stage=progress.stage)
        else:
            tell(stage=progress.stage, written=progress.passages)

    return show


def _nothing(padding: int = 0) -> Callable[[Path], None]:
    return lambda room: void(write_folder(room / "documents", documents(), padding=padding))


def void(_: object) -> None:
    """Forget a value."""


def base(room: Path, *, second_edition: bool = False, **sections: Any) -> None:
    """An index of the first edition, whose documents may have changed since."""
    write_folder(room / "documents", documents())
    with TwoStagePipeline.open(room / "index", parse_config(sections)) as pipeline:
        pipeline.ingest(room / "documents")
    if second_edition:
        write_folder(room / "documents", documents(2))


def _sync(**sections: Any) -> Callable[[Path, Path, Tell], None]:
    def run(index: Path, room: Path, tell: Tell) -> None:
        with opened(index, tell, **sections) as pipeline:
            pipeline.ingest(room / "documents", sync=True, on_progress=_shown(tell))
            tell(done=True)

    return run


def _short(room: Path) -> None:
    write_folder(room / "documents", short_documents())
    with TwoStagePipeline.open(room / "index") as pipeline:
        pipeline.ingest(room / "documents")
    write_folder(room / "documents", [*short_documents(), *long_documents()])


def _other(room: Path) -> None:
    """An index of documents that `_calls` removes some of."""
    room.mkdir(exist_ok=True)
    with TwoStagePipeline.open(room / "index") as pipeline:
        pipeline.ingest([dict(record) for record in documents(count=_OTHERS, first=DOCUMENTS)])


def _calls(index: Path, room: Path, tell: Tell) -> None:
    """What a service does: many small writes, each acknowledged as it returns."""
    records = documents(count=120)
    with opened(index, tell) as pipeline:
        for start in range(0, len(records), 10):
            batch = records[start : start + 10]
            pipeline.ingest([dict(record) for record in batch])
            tell(stored=[record["id"] for record in batch])
            if start % 30 == 20:
                gone = [name(DOCUMENTS + start + number) for number in range(10)]
                pipeline.delete(gone)
                tell(removed=gone)
        tell(done=True)


def _delete_ids(index: Path, room: Path, tell: Tell) -> None:
    with opened(index, tell) as pipeline:
        pipeline.delete([name(number) for number in range(0, DOCUMENTS, 2)])
        tell(done=True)


def _delete_filter(index: Path, room: Path, tell: Tell) -> None:
    with opened(index, tell) as pipeline:
        pipeline.delete_where({"must": [{"key": "metadata.kind", "match": {"any": ["kind-0", "kind-3"]}}]})
        tell(done=True)


def _adapt(index: Path, room: Path, tell: Tell) -> None:
    with opened(index, tell) as pipeline:
        report = pipeline.adapt(
            steps=ADAPT_STEPS, seed=1, force=True, on_progress=lambda progress: tell(stage=progress.stage)
        )
        assert report.switched
        tell(done=True)


def adapted(room: Path) -> None:
    """An index with two generations."""
    base(room, **_SMALL)
    _adapt(room / "index", room, lambda **_: None)


def _grown(room: Path) -> None:
    adapted(room)
    with TwoStagePipeline.open(room / "index") as pipeline:
        pipeline.ingest([dict(record) for record in documents(count=ADDED, first=1000)])


def _rollback(index: Path, room: Path, tell: Tell) -> None:
    with opened(index, tell) as pipeline:
        pipeline.rollback(on_progress=lambda progress: tell(stage=progress.stage))
        tell(done=True)


def _quantize(index: Path, room: Path, tell: Tell) -> None:
    with opened(index, tell) as pipeline:
        pipeline.quantize(
            Quantization("turbo", 2), sample=10, max_loss=1.0, on_progress=lambda stage, done, of: tell(stage=stage)
        )
        tell(done=True)


def _compressed(room: Path) -> None:
    base(room)
    _quantize(room / "index", room, lambda **_: None)


def _uncompress(index: Path, room: Path, tell: Tell) -> None:
    with opened(index, tell) as pipeline:
        pipeline.quantize(Quantization(), on_progress=lambda stage, done, of: tell(stage=stage))
        tell(done=True)


def _with_holes(room: Path) -> None:
    base(room)
    with TwoStagePipeline.open(room / "index") as pipeline:
        pipeline.delete([name(number) for number in range(0, DOCUMENTS, 4)])


def _optimize(**sections: Any) -> Callable[[Path, Path, Tell], None]:
    def run(index: Path, room: Path, tell: Tell) -> None:
        with opened(index, tell, **sections) as pipeline:
            pipeline.store.optimize()
            tell(done=True)

    return run


def _with_graph(room: Path) -> None:
    base(room, second_edition=True, **_GRAPH)
    with TwoStagePipeline.open(room / "index", parse_config(_GRAPH)) as pipeline:
        pipeline.store.optimize()


def _rebuild(index: Path, room: Path, tell: Tell) -> None:
    from pipelines.rebuild import rebuild_index

    tell(begun=True)
    rebuild_index(
        index,
        Config(),
        lambda pipeline: pipeline.ingest(room / "documents", on_progress=lambda progress: tell(stage=progress.stage)),
    )
    tell(done=True)


def _publish(index: Path, room: Path, tell: Tell) -> None:
    with opened(index, tell) as pipeline:
        pipeline.publish()
        tell(done=True)


def _damaged(room: Path) -> None:
    """An index with some numbers of some vectors overwritten."""
    base(room)
    for path in (room / "index").rglob("vector_storage-dense/vectors/chunk_0.mmap"):
        with path.open("r+b") as file:
            for place in (4_096, 40_960, 204_800):
                file.seek(place)
                file.write(struct.pack("<16f", *[0.25] * 16))


def _repair(index: Path, room: Path, tell: Tell) -> None:
    from pipelines.repair import repair_index

    tell(begun=True)
    repair_index(index, on_progress=lambda stage, done, of: tell(stage=stage))
    tell(done=True)


_SECOND = {"documents": {"second_process": True}}
OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation(
            "ingest", "a folder into an empty index", _nothing(), _ingest(documents={"second_process": False}), 20
        ),
        Operation(
            "ingest-2",
            "the same with a second process that reads and encodes",
            _nothing(),
            _ingest(**_SECOND),
            24,
            True,
        ),
        Operation(
            "ingest-large",
            "10 MB of files, which starts the second process by itself",
            _nothing(_PADDING),
            _ingest(),
            12,
            True,
        ),
        Operation(
            "calls", "12 small ingests and 4 deletes, one call after the other", _other, _calls, 20, several=True
        ),
        Operation(
            "sync",
            "a folder again with --sync: changed, removed and new files",
            lambda room: base(room, second_edition=True),
            _sync(),
            24,
        ),
        Operation("sync-graph", "the same where there is a graph", _with_graph, _sync(**_GRAPH), 10),
        Operation("reweigh", "long documents, after which BM25 weighs all passages anew", _short, _ingest(), 14),
        Operation(
            "rebuild", "ingest --rebuild", lambda room: base(room, second_edition=True), _rebuild, 14, whole=True
        ),
        Operation("delete-ids", "150 documents by their ids", base, _delete_ids, 18),
        Operation("delete-filter", "120 documents by a filter", base, _delete_filter, 12),
        Operation(
            "adapt",
            "training, new vectors, switch",
            lambda room: base(room, **_SMALL),
            _adapt,
            20,
            repeats=False,
            whole=True,
        ),
        Operation("rollback", "back to the generation before", adapted, _rollback, 12, repeats=False, whole=True),
        Operation(
            "rollback-2",
            "the same after documents came, so that vectors are made anew",
            _grown,
            _rollback,
            10,
            repeats=False,
            whole=True,
        ),
        Operation("quantize", "TurboQuant, 2 bits", base, _quantize, 20, True, whole=True),
        Operation("quantize-off", "and no more", _compressed, _uncompress, 8, True, whole=True),
        Operation(
            "optimize", "one segment of all points, after deletions", _with_holes, _optimize(), 20, True, whole=True
        ),
        Operation(
            "optimize-graph", "the same with a graph and codes", _with_holes, _optimize(**_GRAPH), 12, True, whole=True
        ),
        Operation("publish", "a copy for readers", base, _publish, 10, whole=True),
        Operation("repair", "damaged vectors made again", _damaged, _repair, 12, True, whole=True, mends=True),
    )
}


def copied(source: Path, target: Path) -> Path:
    """A copy of an index that keeps the holes in its files; of none where there is none."""
    from retrieval.stores.published_files import copy_folder

    shutil.rmtree(target, ignore_errors=True)
    if source.exists():
        copy_folder(source, target, lambda path: False)
    return target
