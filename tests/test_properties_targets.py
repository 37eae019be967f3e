"""Every target of `benchmarks/fuzz` takes its seeds and drawn bytes; the long run is `python -m benchmarks.fuzz`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fuzz.catalogue import MODULES, targets
from tests.properties import TIMES, budget

SLOW = ("read .docx", "read .pptx", "read .xlsx", "read .epub", "read .pdf")
"""Only in the long run: the process that converts takes seconds to start."""
TARGETS = {target.name: target for target in targets() if TIMES > 1 or target.name not in SLOW}


def test_there_are_targets_in_every_module() -> None:
    assert set(targets().values()) == set(MODULES)
    names = [target.name for target in targets()]
    assert len(set(names)) == len(names), "two targets have one name"


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_promised_holds(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    with ExitStack() as stack:
        check = target.open(tmp_path, stack)
        for seed in target.seeds():
            check(seed[: target.longest])

        @budget(25)
        @given(st.binary(max_size=target.longest))
        def some(data: bytes) -> None:
            check(data)

        some()
