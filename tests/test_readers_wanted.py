"""What is published while nobody reads, and while somebody does."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import TwoStagePipeline
from tests.reader_process import FACTS, first, publications, reader
from tests.store_folders import closed_index


@pytest.fixture
def index(quick_path: Path) -> Path:
    """A closed index of three documents; nothing of it is published."""
    return closed_index(quick_path, FACTS)


def test_without_readers_many_small_writes_publish_once(index: Path) -> None:
    with TwoStagePipeline.open(index) as writer:
        seen = set()
        for number in range(6):
            writer.ingest([(f"n{number}", f"harbour number {number}")])
            seen.add(tuple(publications(index)))
        assert len(seen) == 1
        with reader(index) as late:
            assert late.manifest.documents == len(FACTS) + 1


def test_who_comes_late_sees_the_next_change_and_every_one_after(index: Path) -> None:
    with TwoStagePipeline.open(index) as writer:
        writer.ingest([("a", "harbour")])
        writer.ingest([("b", "harbour")])
        with reader(index) as late:
            assert late.manifest.documents in {len(FACTS) + 1, len(FACTS) + 2}
            for number in range(3):
                writer.ingest([(f"n{number}", f"lighthouse number {number}")])
                late.refresh()
                assert late.manifest.documents == len(FACTS) + 3 + number
            assert first(late, "lighthouse").startswith("n")


def test_a_reader_that_has_gone_had_a_wish(index: Path) -> None:
    with TwoStagePipeline.open(index) as writer:
        writer.ingest([("a", "harbour")])
        with reader(index):
            pass
        writer.ingest([("b", "harbour")])
        with reader(index) as next_one:
            assert next_one.manifest.documents == len(FACTS) + 2


def test_a_write_that_stands_alone_is_published_although_nobody_is_seen(index: Path) -> None:
    with TwoStagePipeline.open(index) as writer:
        writer.ingest([("a", "harbour")])
        with reader(index) as late:
            assert late.manifest.documents == len(FACTS) + 1
