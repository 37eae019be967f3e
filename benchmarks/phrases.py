"""Do entries of several words help the first stage to tell "not broken but leaking" from "broken but not leaking"?

    python benchmarks/phrases.py --pairs DIR --beir DIR --negation DIR --teacher DIR --contexts FILE --out phrases.json

Negated and frequent phrases of the training passages become entries of the bundled static model, with vectors between
the sum of their words and what the teacher sees in them in context. Measured: retrieval on the development sets of
defaults.py and on held-out pairs, pairs of texts that differ in a negation, and the speed of encoding. ``--contexts``
keeps what the teacher said, so that a second run is short; ``--final`` adds the file that is looked at once.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from defaults import DEVELOPMENT_PAIRS, DevelopmentSet, read_collection, read_pairs, score
from train_starters import PAIRS

from retrieval.datatypes import Document
from retrieval.encoders import StaticEncoder
from retrieval.models import find_model
from retrieval.training.pairs import passages_of
from retrieval.training.pairs import read_pairs as read_training
from retrieval.training.static.phrases import PhraseContexts, add_phrases, contextual_vectors, read_phrases_in_context
from retrieval.training.static.vocabulary import NEGATIONS, PhraseSettings, find_phrases
from retrieval.training.table import StaticTable
from retrieval.training.teacher import Teacher

Quad = tuple[str, str, str, str]
"""Two queries and their texts: the first query should prefer the first text, the second query the second."""

SHARES = (0.0, 0.15, 0.3, 0.6, 1.0)
SUBJECTS = ("pipe", "engine", "device", "patient", "road", "system", "file", "server", "child", "material")


def rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def fever_quads(folder: Path) -> list[Quad]:
    """Two claims, and for each the evidence that supports it and refutes the other; the dev part."""
    evidence: dict[str, dict[str, str]] = defaultdict(dict)
    claims: dict[str, list[str]] = defaultdict(list)
    for row in rows(folder / "fever_symmetric.jsonl.gz"):
        if row["split"] == "dev":
            evidence[row["claim"]].setdefault(row["label"], row["evidence"])
            if row["label"] == "SUPPORTS":
                claims[row["evidence"]].append(row["claim"])
    quads: dict[frozenset[str], Quad] = {}
    for claim, found in evidence.items():
        for other in claims.get(found.get("REFUTES", ""), ()):
            if evidence[other].get("REFUTES") == found.get("SUPPORTS"):
                key = frozenset((claim, other))
                quads.setdefault(key, (claim, found["SUPPORTS"], other, found["REFUTES"]))
    return list(quads.values())


def antonym_quads(folder: Path) -> list[Quad]:
    texts = {row["doc_id"]: row["text"] for row in rows(folder / "scifact_antonym_corpus.jsonl.gz")}
    queries = rows(folder / "scifact_antonym_queries.jsonl.gz")
    right = "constraint_satisfying_doc_ids"
    return [
        (first["query"], texts[first[right][0]], second["query"], texts[second[right][0]])
        for first, second in zip(queries[::2], queries[1::2], strict=False)
        if first[right] == second["constraint_violating_doc_ids"]
    ]


def condaqa_quads(folder: Path, name: str) -> list[Quad]:
    """A question with each answer behind it, and the edits of a passage that give these answers."""
    if name == "condaqa_contrast_dev":
        return [
            (f"{row['question']} {row['label1']}", row["doc1"], f"{row['question']} {row['label2']}", row["doc2"])
            for row in rows(folder / f"{name}.jsonl.gz")
        ]
    groups: dict[tuple[int, str], dict[str, str]] = defaultdict(dict)
    for row in rows(folder / f"{name}.jsonl.gz"):
        groups[row["passage_id"], row["question"]].setdefault(row["label"], row["passage"])
    return [
        (f"{question} yes", found["YES"], f"{question} no", found["NO"])
        for (_, question), found in groups.items()
        if {"YES", "NO"} <= set(found)
    ]


def scope_quads(phrases: Sequence[str]) -> list[Quad]:
    """The same words in both texts: only what is negated differs. Made from the entries, so all of them are known."""
    words = sorted(phrase.split()[1] for phrase in phrases if phrase.startswith("not "))
    choice, quads = random.Random(0), []
    for subject in SUBJECTS:
        for _ in range(30):
            one, other = choice.sample(words, 2)
            first = f"The {subject} was {other}. It was not {one} at the time."
            second = f"The {subject} was {one}. It was not {other} at the time."
            quads.append((f"{subject} not {one} but {other}", first, f"{subject} not {other} but {one}", second))
    return quads


def pairwise(encoder: StaticEncoder, quads: Sequence[Quad]) -> dict[str, float]:
    """How many queries prefer their own text, and how many quads are right twice; a tie is wrong."""
    first, right, second, other = (encoder.encode_documents([quad[at] for quad in quads]) for at in range(4))
    one = ((right - other) * first).sum(axis=1) > 1e-6
    two = ((other - right) * second).sum(axis=1) > 1e-6
    return {"one": float(np.concatenate([one, two]).mean()), "both": float((one & two).mean()), "quads": len(quads)}


def ranking(encoder: StaticEncoder, development: DevelopmentSet) -> float:
    texts = [f"{document.title}\n{document.text}".strip() for document in development.documents]
    ids = [document.id for document in development.documents]
    scores = encoder.encode_queries(list(development.queries.values())) @ encoder.encode_documents(texts).T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    run = {
        query: [(ids[at], float(row[at])) for at in places]
        for query, row, places in zip(development.queries, scores, best, strict=True)
    }
    return score(development, run)


def held_out_set(pairs: Path, passages: Sequence[str], most: int) -> DevelopmentSet:
    _, held = read_training(pairs, PAIRS)
    held = random.Random(0).sample(held, min(900, len(held)))
    pool = list(dict.fromkeys([*(pair.positive for pair in held), *random.Random(1).sample(list(passages), most)]))
    ids = {text: f"p{at}" for at, text in enumerate(pool)}
    return DevelopmentSet(
        documents=[Document(name, text) for text, name in ids.items()],
        queries={f"q{at}": pair.query for at, pair in enumerate(held)},
        qrels={f"q{at}": {ids[pair.positive]: 1} for at, pair in enumerate(held)},
    )


def encoder_of(table: StaticTable) -> StaticEncoder:
    with tempfile.TemporaryDirectory() as folder:
        table.save(folder, name="measured")
        return StaticEncoder.open(Path(folder))


def seconds(encoders: Mapping[str, StaticEncoder], texts: list[str], repeats: int = 5) -> dict[str, float]:
    """Median CPU seconds with all words known, repeats interleaved."""
    runs: dict[str, list[float]] = defaultdict(list)
    for repeat in range(repeats + 1):
        for name, encoder in encoders.items():
            started = time.process_time()
            encoder.encode_documents(texts)
            if repeat:
                runs[name].append(time.process_time() - started)
    return {name: statistics.median(values) for name, values in runs.items()}


def ask_teacher(
    path: Path, teacher: Path, table: StaticTable, passages: list[str], wanted: PhraseSettings, places: int
) -> None:
    def say(done: int, of: int) -> None:
        print(f"teacher: {done} of {of} places", flush=True)

    phrases = find_phrases(passages, wanted)
    read = read_phrases_in_context(Teacher(teacher), table, passages, phrases, places=places, on_progress=say)
    with path.open("wb") as file:
        np.savez(file, **{name: np.array(getattr(read, name)) for name in PhraseContexts.__slots__})


def read_contexts(path: Path) -> PhraseContexts:
    with np.load(path) as kept:
        phrases, tokens = kept["phrases"].tolist(), kept["tokens"].tolist()
        return PhraseContexts(phrases, kept["states"], tokens, kept["token_states"], kept["seen"])


def only(contexts: PhraseContexts, *, negated: bool) -> PhraseContexts:
    kinds = [phrase.split(" ")[0] in NEGATIONS or phrase.startswith("non-") for phrase in contexts.phrases]
    keep = [at for at, kind in enumerate(kinds) if kind is negated and " " in contexts.phrases[at]]
    names = [contexts.phrases[at] for at in keep]
    return PhraseContexts(names, contexts.states[keep], contexts.tokens, contexts.token_states, contexts.seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, text in (
        ("pairs", "folder of NAME.jsonl.gz"),
        ("beir", "folder with a BEIR folder scifact"),
        ("negation", "folder with the negation files"),
        ("teacher", "folder of the sentence transformer"),
        ("contexts", "file that keeps what the teacher said; made when absent"),
        ("out", "JSON file to write"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True, help=text)
    parser.add_argument("--model", default="starter-static", help="static model that gets the entries")
    parser.add_argument("--negated", type=int, default=4, help="times that a negated phrase must occur")
    parser.add_argument("--frequent", type=int, default=40, help="times that a frequent phrase must occur")
    parser.add_argument("--places", type=int, default=4, help="places that the teacher reads of each phrase")
    parser.add_argument("--passages", type=int, default=10_000, help="passages of each development set, about")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of the teacher in the vectors")
    parser.add_argument("--final", action="store_true", help="also condaqa_contrast_dev")
    arguments = parser.parse_args()

    training, _ = read_training(arguments.pairs, PAIRS)
    passages = passages_of(training)
    random.Random(0).shuffle(passages)
    table = StaticTable.open(find_model(arguments.model))
    wanted = PhraseSettings(negated=arguments.negated, frequent=arguments.frequent, limit=6000)
    if not arguments.contexts.exists():
        ask_teacher(arguments.contexts, arguments.teacher, table, passages, wanted, arguments.places)
    contexts = read_contexts(arguments.contexts)

    development = {"scifact-train": read_collection(arguments.beir / "scifact", "train", 150)}
    for name in DEVELOPMENT_PAIRS:
        development[name] = read_pairs(arguments.pairs / f"{name}.jsonl.gz", 150, arguments.passages)
    development["held-out pairs"] = held_out_set(arguments.pairs, passages, min(12_000, arguments.passages))
    negated = only(contexts, negated=True)
    suites = {
        "fever": fever_quads(arguments.negation),
        "antonyms": antonym_quads(arguments.negation),
        "condaqa_dev": condaqa_quads(arguments.negation, "condaqa_dev"),
        "scope": scope_quads(negated.phrases),
    }
    if arguments.final:
        suites["condaqa_contrast_dev"] = condaqa_quads(arguments.negation, "condaqa_contrast_dev")
    tables = {"no entries": table}
    for kind, chosen in (("negated", negated), ("frequent", only(contexts, negated=False))):
        if chosen.phrases:
            for share in arguments.shares:
                vectors = contextual_vectors(table, chosen, share)
                tables[f"{kind} {share}"] = add_phrases(table, chosen.phrases, vectors)
    results: dict[str, Any] = {}
    timed: dict[str, StaticEncoder] = {}
    for name, one in tables.items():
        encoder = encoder_of(one)
        if name in {"no entries", "negated 0.3", "frequent 0.3"}:
            timed[name] = encoder
        sets = {title: ranking(encoder, each) for title, each in development.items()}
        ten = statistics.mean(value for title, value in sets.items() if title != "held-out pairs")
        results[name] = {
            "entries": len(one.vectors) - len(table.vectors),
            "ten": ten,
            "sets": sets,
            "suites": {title: pairwise(encoder, quads) for title, quads in suites.items()},
        }
        shown = "  ".join(f"{title} {each['both']:.3f}" for title, each in results[name]["suites"].items())
        print(f"{name:14} ten {ten:.4f}  held-out {sets['held-out pairs']:.4f}  both right: {shown}", flush=True)
    texts = [document.text for document in development["scifact-train"].documents]
    speed = seconds(timed, texts)
    print({name: round(value, 3) for name, value in speed.items()})
    content = {"results": results, "cpu_seconds": speed, "timed_texts": len(texts)}
    arguments.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
