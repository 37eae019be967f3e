"""Every kind of file of an index damaged in every way: is it noticed, and is the index made again as it was?

An index of each variant is copied, one file of the copy is damaged, and then: does opening it refuse, does
``retrieval doctor --deep`` find it, does ``retrieval repair`` bring back the same passages, vectors and answers, bit by
bit? What is found is written after every case, and a run that was stopped goes on with the next one.

python -m benchmarks.damage --out benchmarks/damage.json
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.damage_cases import DAMAGES, Case, cases
from benchmarks.damage_report import LAST_DIGITS, page
from pipelines import TwoStagePipeline
from pipelines.deep import deep_check
from pipelines.deep.passages import ROUNDING
from pipelines.generations import fill_generation
from pipelines.repair import repair_index
from retrieval.config import parse_config
from retrieval.datatypes import Quantization
from retrieval.encoders import StaticEncoder
from retrieval.errors import RetrievalError
from retrieval.manifest import manifest_to_json
from retrieval.models import find_model
from retrieval.training.table import StaticTable

_WORDS = "tides bread guitars whales primes rain moon dough sea string number copper pipe leak star comet oven salt"
_QUERIES = ("copper pipe", "whales and the sea", "number 7", "bread dough oven", "comet star moon", "page 17")
_DOCUMENTS = 240

Answers = tuple[dict[str, Any], list[list[tuple[str, float]]], list[Any]]


def write_documents(folder: Path, count: int = _DOCUMENTS) -> Path:
    """Text files of words drawn with a fixed seed, of which every tenth is longer."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen, words = random.Random(5), _WORDS.split()
    for number in range(count):
        parts = range(3 if number % 10 == 0 else 1)
        text = "\n\n".join(f"Page {number} part {part}. " + " ".join(chosen.choices(words, k=90)) for part in parts)
        (folder / f"{number:04}.txt").write_text(f"{text}\n", encoding="utf-8")
    return folder


def build_plain(index: Path, documents: Path) -> None:
    """As an ingest leaves it."""
    with TwoStagePipeline.open(index) as pipeline:
        pipeline.ingest(documents)


def build_changed(index: Path, documents: Path) -> None:
    """In order, then changed: two segments, removed passages, journals that were put in order."""
    build_plain(index, documents)
    with TwoStagePipeline.open(index) as pipeline:
        pipeline.store.optimize()
    with TwoStagePipeline.open(index) as pipeline:
        pipeline.delete([f"{number:04}.txt" for number in range(0, 40, 4)])
        pipeline.ingest([{"id": f"new {number}", "text": f"a new text {number} about copper"} for number in range(20)])


def build_graph(index: Path, documents: Path) -> None:
    """With a graph."""
    with TwoStagePipeline.open(index, parse_config({"hnsw": {"threshold": 100}})) as pipeline:
        pipeline.ingest(documents)
        pipeline.store.optimize()


def build_quantized(index: Path, documents: Path) -> None:
    """Compressed to two bits."""
    build_plain(index, documents)
    with TwoStagePipeline.open(index) as pipeline:
        pipeline.store.set_quantization(Quantization("turbo", 2))


def build_adapted(index: Path, documents: Path) -> None:
    """With an encoder of its own: the starter with vectors turned a little, as an adaptation would turn them."""
    build_plain(index, documents)
    with TwoStagePipeline.open(index) as pipeline:
        table = StaticTable.from_encoder_folder(find_model(pipeline.config.encoder.model))
        turned = table.vectors + np.random.default_rng(3).normal(0.0, 0.01, table.vectors.shape).astype(np.float32)
        store = pipeline.store.start_generation(pipeline.encoder.dim)
        table.with_vectors(turned).save(store.encoder_folder(), name="turned", matryoshka=(pipeline.encoder.dim,))
        adapted = StaticEncoder.open(store.encoder_folder())
        fill_generation(pipeline.store, store, adapted, pipeline.manifest, lambda done, of: None, graph=False)
        base = pipeline.manifest.encoder
        changed = replace(pipeline.manifest, generation=2, encoder=adapted.fingerprint, adapted_from=base)
        store.make_live(manifest_to_json(changed))
        store.close()
    TwoStagePipeline.open(index).close()  # which erases the generation before


def build_published(index: Path, documents: Path) -> None:
    """With the copy that readers have, of the state as it is."""
    build_changed(index, documents)
    with TwoStagePipeline.open(index) as pipeline:
        pipeline.publish()


def build_unsealed(index: Path, documents: Path) -> None:
    """Without a seal, as a writer leaves it that was killed."""
    build_changed(index, documents)
    (index / "generations" / "1" / "seal.json").unlink()


@dataclass(frozen=True, slots=True)
class Variant:
    """A state of an index.

    Args:
        build: Makes it, from documents.
        kinds: Kinds of files that are damaged; empty for all. What variants have in common is damaged in one of them.
        damages: What is done to them.
        published: Whether the copy for readers stays, from which a repair takes files.
    """

    build: Callable[[Path, Path], None]
    kinds: tuple[str, ...] = ()
    damages: tuple[str, ...] = tuple(DAMAGES)
    published: bool = False

    def make(self, index: Path, documents: Path) -> None:
        """Make an index of this variant."""
        self.build(index, documents)
        if not self.published:
            shutil.rmtree(index / "published", ignore_errors=True)


VARIANTS = {
    "changed": Variant(build_changed),
    "graph": Variant(build_graph, ("graph", "BM25 index", "codes")),
    "quantized": Variant(build_quantized, ("codes", "dense vectors", "their state")),
    "adapted": Variant(build_adapted, ("encoder", "manifest", "payload pages", "payload tracker", "id tracker")),
    "plain": Variant(build_plain, (), ("delete", "flip in the middle")),
    "published": Variant(
        build_published,
        ("copy for readers", "payload pages", "payload tracker", "dense vectors", "BM25 rows", "id tracker"),
        ("delete", "cut in half", "flip in the middle"),
        published=True,
    ),
    "no seal": Variant(build_unsealed, (), ("delete", "cut in half", "flip in the middle")),
}


def copy_index(source: Path, target: Path) -> Path:
    """A copy with its holes."""
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", "--sparse=always", str(source), str(target)], check=True)
    return target


def answers(index: Path, *, read_only: bool = False) -> Answers:
    """Everything an index says: points with their vectors, results of searches, facets."""
    with TwoStagePipeline.open(index, read_only=read_only) as pipeline:
        points = {
            point.id: (
                {name: value for name, value in point.payload.items() if name != "run"},
                None if point.dense is None else point.dense.tobytes(),
                None if point.sparse is None else (point.sparse.indices.tobytes(), point.sparse.values.tobytes()),
            )
            for point in pipeline.store.scan(vectors=True)
        }
        found = [
            [(hit.passage_id, hit.score) for hit in pipeline.search(query, 10, rerank=False, first_stage=arm)]
            for query in _QUERIES
            for arm in ("hybrid", "dense", "bm25")
        ]
        facets = [pipeline.store.facet(field, 1000) for field in ("document", "document_id", "source")]
    return points, found, facets


def differences(found: Answers, expected: Answers) -> list[str]:
    """Which parts of the answers differ.

    Scores may do so by 1e-5: the engine adds the terms of BM25 in an order that is not always the same.
    """
    wrong = [] if found[0] == expected[0] else [_difference_of_points(found[0], expected[0])]
    for one, other in zip(found[1], expected[1], strict=True):
        same_order = [name for name, _ in one] == [name for name, _ in other]
        if not (same_order and np.allclose([score for _, score in one], [score for _, score in other], atol=1e-5)):
            wrong.append("results")
            break
    return wrong if found[2] == expected[2] else [*wrong, "facets"]


def _difference_of_points(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """Whether more differs than what rounding may do to a vector, which is what a deep check allows for."""
    if found.keys() != expected.keys():
        return "passages"
    for name, (payload, dense, sparse) in found.items():
        was_payload, was_dense, was_sparse = expected[name]
        if (payload, sparse) != (was_payload, was_sparse) or (dense is None) != (was_dense is None):
            return "passages"
        if dense is not None and dense != was_dense:
            one, other = (np.frombuffer(row, np.float32) for row in (dense, was_dense))
            if not np.allclose(one, other, rtol=0.0, atol=ROUNDING):
                return "passages"
    return LAST_DIGITS


def run_case(built: Path, documents: Path, case: Case, expected: Answers, scratch: Path) -> dict[str, Any]:
    """Damage a copy and tell what is noticed, and whether a repair brings everything back."""
    record: dict[str, Any] = {"kind": case.kind, "file": case.file, "damage": case.damage}
    index = copy_index(built, scratch / "index")
    damage = DAMAGES[case.damage]
    damage(index / case.file)
    record |= _in_use(index, expected, read_only=case.kind == "copy for readers")
    index = copy_index(built, scratch / "index")
    damage(index / case.file)
    found = deep_check(index).damage
    record["deep"] = [check.name for check in found]
    record["named"] = any(case.file == finding.name for check in found for finding in check.findings)
    record["repaired"] = _repaired(index, documents, expected, record)
    return record


def _in_use(index: Path, expected: Answers, *, read_only: bool) -> dict[str, Any]:
    """What somebody sees who opens a damaged index and uses it."""
    try:
        TwoStagePipeline.open(index, read_only=read_only).close()
    except RetrievalError as error:
        return {"open": str(error).replace(str(index), "INDEX"), "use": "", "same_answers": False}
    try:
        changed = differences(answers(index, read_only=read_only), expected)
        return {"open": "", "use": "", "same_answers": not changed, "changed": changed}
    except Exception as error:  # whatever the engine makes of it
        said = str(error).replace(str(index), "INDEX")
        return {"open": "", "use": f"{type(error).__name__}: {said}", "same_answers": False}


def _repaired(index: Path, documents: Path, expected: Answers, record: dict[str, Any]) -> bool:
    try:
        report = repair_index(index, sources=[documents])
        lost = sum(one.lost for one in report.lost)
        record["repair"] = {"done": report.done, "lost": lost, "reread": report.reread, "complete": report.complete}
        record["notes"] = [note.replace(str(index), "INDEX") for note in report.notes]
        record["differs"] = differences(answers(index), expected)
        if record["kind"] == "copy for readers":
            record["differs"] += differences(answers(index, read_only=True), expected)
        return not record["differs"]
    except RetrievalError as error:
        record["repair"] = {"error": str(error).replace(str(index), "INDEX")}
        return False


def run_variant(
    name: str, place: Path, done: Mapping[str, Any], keep: Callable[[str, dict[str, Any]], None], deadline: float
) -> bool:
    """All cases of a variant that are not done yet; false where time ran out."""
    documents = write_documents(place / "documents")
    built = place / name
    variant = VARIANTS[name]
    if not built.exists():
        variant.make(built, documents)
    expected = answers(copy_index(built, place / "work" / "index"))
    for case in cases(built, damages=variant.damages):
        if case.name in done or (variant.kinds and case.kind not in variant.kinds):
            continue
        if time.monotonic() > deadline:
            return False
        keep(case.name, run_case(built, documents, case, expected, place / "work"))
    return True


def _as_json(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A line for each case."""
    variants = (
        f"{json.dumps(name)}: {{\n" + ",\n".join(f" {json.dumps(case)}: {json.dumps(of[case])}" for case in of) + "\n}"
        for name, of in results.items()
    )
    return "{" + ",\n".join(variants) + "}\n"


def main() -> None:
    """Run what is missing, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.damage", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file; the page stands beside it")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "damage", help="folder for indexes")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many; another run goes on")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    deadline = time.monotonic() + 60 * arguments.minutes
    results: dict[str, dict[str, Any]] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    (arguments.work / "work").mkdir(parents=True, exist_ok=True)
    for name in arguments.variants:

        def keep(case: str, record: dict[str, Any], name: str = name) -> None:
            results.setdefault(name, {})[case] = record
            arguments.out.write_text(_as_json(results), encoding="utf-8")

        if not run_variant(name, arguments.work, results.get(name, {}), keep, deadline):
            print(f"stopped in {name}; the same command goes on")
            break
    arguments.out.with_suffix(".md").write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
