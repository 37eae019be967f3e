"""How many of the queries of the suite that negate or exclude something have a cue, and how many others do.

Run ``python benchmarks/negation_cues.py``; it takes no options.
"""

from __future__ import annotations

from retrieval.evaluation import open_suite
from retrieval.negation import negation_cues


def main() -> None:
    """Print precision and recall for each kind, and every query that is taken wrongly."""
    suite = open_suite("negation")
    for kind in suite.kinds:
        counts = {(said, found): 0 for said in (True, False) for found in (True, False)}
        for pair, side in suite.queries:
            if pair.kind == kind and pair.negated is not None:
                query, said = str(pair.queries[side]), pair.negated[side]
                counts[said, bool(negation_cues(query))] += 1
                if said is not bool(negation_cues(query)):
                    print(f"  {'missed' if said else 'too much'}: {query}")
        hits, extra, missed = counts[True, True], counts[False, True], counts[True, False]
        precision, recall = (f"{hits / of:.3f}" if of else "-" for of in (hits + extra, hits + missed))
        print(f"{kind}: {hits + missed} of {sum(counts.values())} negate; precision {precision}, recall {recall}")


if __name__ == "__main__":
    main()
