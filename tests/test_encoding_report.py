"""The page about encoding speed says what the numbers say."""

from __future__ import annotations

from typing import Any

from benchmarks.encoding_report import report


def run(seconds: dict[str, list[float]]) -> dict[str, Any]:
    return {
        "settings": {"sentence-transformers": "batch_size=32", "model2vec": "one process"},
        "dense": seconds,
        "both": {"this, words known": [0.5], "this, no word known": [1.0, 2.0, 4.0]},
        "fidelity": {
            "texts": 100,
            "smallest_cosine": {"sentence-transformers": 0.9999999, "model2vec": 1.0},
            "different_token_ids": 0,
            "different_token_counts": 3,
            "different_without_kernels": 0,
        },
        "cache": {"words": 1234, "bytes": 3 * 2**19},
    }


CONTENT = {
    "setting": {
        "date": "2026-01-02",
        "python": "3.11.0",
        "machine": "x86_64",
        "processor": "a processor",
        "cores": 2,
        "load": 0.25,
        "packages": {"numpy": "2.0"},
        "corpus": "small",
        "model": "starter-static",
        "texts": 200,
        "characters": 3_000_000,
        "words": 1234,
        "repeats": 3,
    },
    "threads": {
        "1": run(
            {
                "this, words known": [0.1, 0.3, 0.2],
                "this, no word known": [1.0, 1.0, 1.0],
                "sentence-transformers": [10.0, 6.0, 8.0],
                "model2vec": [4.0, 4.0, 5.0],
                "this, first call of a process": [2.0, 2.0, 2.0],
            }
        ),
    },
}


def test_ratios_are_those_of_the_medians() -> None:
    lines = report(CONTENT).splitlines()
    assert "| times as fast as | 1 thread | at least | aim |" in lines
    assert "| sentence-transformers, warm (words known) | **40.0** | 20 | 50 |" in lines
    assert "| model2vec, warm (words known) | **20.0** | 12 | 30 |" in lines
    assert "| sentence-transformers, cold (no word known) | **8.0** | 3 | 8 |" in lines
    assert "| model2vec, cold (no word known) | **4.0** | 2 | 5 |" in lines
    assert "| this, words known | 0.200 (0.100 to 0.300) | 1,000 | 40.0 | 20.0 |" in lines
    assert "| this, first call of a process | 2.000 (2.000 to 2.000) | 100 | 4.0 | 2.0 |" in lines


def test_both_arms_are_measured_over_half_of_the_texts() -> None:
    assert "| this, no word known | 2.000 (1.000 to 4.000) | 50 |" in report(CONTENT).splitlines()


def test_what_differs_is_counted() -> None:
    page = report(CONTENT)
    assert "| texts whose number of tokens is not that of `tokenizers` | 3 of 100 |" in page
    assert "| smallest cosine with sentence-transformers, which opened the same folder | 0.99999990 |" in page
    assert "held 1,234 words in 1.5 MiB" in page
    assert "0.2 at the start" in page.replace("\n", " ")
    assert "sentence-transformers with batch_size=32" in page.replace("\n", " ")
