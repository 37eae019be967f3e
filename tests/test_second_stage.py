"""The cross-encoder that is loaded beside the opening of an index, and what a single search leaves out."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from pipelines import TwoStagePipeline
from pipelines.second_stage import begin_second_stage, open_second_stage
from retrieval.config import parse_config
from retrieval.encoders.bert import BertWords
from retrieval.errors import ModelError
from retrieval.models import find_model
from tests.store_folders import quick_folder

TEXTS = ["A rubber clamp stops a leaking pipe.", "The moon causes the tides.", ""]
AT_ITS_END = """
import atexit, gc, json, os
# Handlers run in the opposite order: what was registered first sees what the others have done.
seen = lambda: [gc.get_freeze_count() > 1000, gc.get_threshold()[0], os.environ.get("OPENBLAS_NUM_THREADS")]
atexit.register(lambda: print(json.dumps(seen())))
from pipelines.cli import main
main()
"""


def test_what_was_begun_gives_the_logits_of_what_is_opened_when_it_is_used() -> None:
    config = parse_config({})
    begun = begin_second_stage(config)
    assert begun is not None
    assert begun() is begun()
    again = begun().score("leaking pipe", TEXTS)
    assert np.array_equal(again, open_second_stage(config).score("leaking pipe", TEXTS))


@pytest.mark.parametrize("rerank", [{"enabled": False}, {"depth": 0}])
def test_nothing_is_begun_where_nobody_reads(rerank: dict[str, object]) -> None:
    before = threading.active_count()
    assert begin_second_stage(parse_config({"rerank": rerank})) is None
    assert threading.active_count() == before


def test_a_cross_encoder_that_cannot_be_opened_is_told_by_the_search_and_the_first_stage_answers(
    tmp_path: Path,
) -> None:
    config = parse_config({"rerank": {"model": str(tmp_path / "none")}})
    begun = begin_second_stage(config)
    assert begun is not None
    with pytest.raises(ModelError, match="none"):
        begun()
    with quick_folder() as folder:
        with TwoStagePipeline.open(folder / "index") as pipeline:
            pipeline.ingest([("pipe", TEXTS[0]), ("moon", TEXTS[1])])
        with TwoStagePipeline.open(folder / "index", config, second_stage=begun) as pipeline:
            results = pipeline.search("leaking pipe")
    assert results.hits[0].document_id == "pipe"
    assert results.reranked == 0
    assert "cannot be opened" in results.warnings[0]


def end_of(*arguments: str, threads: str | None = None) -> list[object]:
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    if threads is not None:
        environment["OPENBLAS_NUM_THREADS"] = threads
    command = [sys.executable, "-W", "error", "-c", AT_ITS_END, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    seen: list[object] = json.loads(done.stdout.splitlines()[-1])
    return seen


def test_a_search_leaves_out_what_pays_off_in_a_long_run_only(tmp_path: Path) -> None:
    search = ("search", "leaking pipe", "--index", str(tmp_path / "none"))
    assert end_of(*search) == [True, 100_000, "1"]
    assert end_of(*search, threads="3") == [True, 100_000, "3"]


def test_other_commands_collect_garbage_and_multiply_as_ever() -> None:
    assert end_of("info", "--help") == [True, gc.get_threshold()[0], None]


WORDS = ["pipe", "unaffordability", "x-ray's", "[SEP]", "a[UNK]b", "##ing", "a##ing", "Größe", "", "zq" * 70, "(1.5%)"]


def test_words_looked_up_one_by_one_and_in_a_copy_of_the_vocabulary_have_the_same_tokens() -> None:
    tokenizer = Tokenizer.from_file(str(find_model("starter-static") / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    few, many = BertWords(tokenizer), BertWords(tokenizer)
    many.tokenize(["word"] * 2**14)
    assert "vocabulary" in vars(many)
    found = few.tokenize(WORDS)
    assert "vocabulary" not in vars(few)
    assert found == many.tokenize(WORDS)
    assert found == [tokenizer.encode(word, add_special_tokens=False).ids for word in WORDS]
