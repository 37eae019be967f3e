from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements-lean.lock").read_text(encoding="utf-8")
PINS = re.compile(
    r"^([A-Za-z0-9._-]+)==(\S+?)(?: ; [^\\\n]+)? \\\n"
    r"((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n?)+)",
    re.MULTILINE,
)


def pins() -> dict[str, str]:
    return {canonicalize_name(name): version for name, version, _ in PINS.findall(LOCK)}


def asked() -> list[Requirement]:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    lean = (ROOT / "requirements-lean.txt").read_text(encoding="utf-8").splitlines()
    lines = [*lean, *extras["serve"], *extras["tracing"]]
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_every_line_of_the_lock_is_a_pin_with_hashes_or_a_comment() -> None:
    rest = PINS.sub("", LOCK)
    assert [line for line in rest.splitlines() if line and not line.startswith("#")] == []
    assert len(pins()) > 40


@pytest.mark.parametrize("requirement", asked(), ids=lambda requirement: requirement.name)
def test_the_lock_has_what_the_container_needs(requirement: Requirement) -> None:
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)], prereleases=True)


@pytest.mark.parametrize("heavy", ["torch", "transformers", "sentence-transformers", "numba"])
def test_the_lock_is_lean(heavy: str) -> None:
    assert heavy not in pins()


def test_the_lock_names_no_other_index() -> None:
    assert "--index-url" not in LOCK
    assert "--find-links" not in LOCK
    assert "://" not in LOCK


def test_the_image_takes_nothing_without_its_hash() -> None:
    image = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert image.index("--require-hashes -r requirements-lean.lock") < image.index("-r requirements-lean.txt")
