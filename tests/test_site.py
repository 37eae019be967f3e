"""The documentation builds without a warning, is complete, and what it shows works."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pipelines.cli import app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GENERATED = {"cli.md", "configuration.md"}
PAGES = sorted(page for page in DOCS.rglob("*.md") if page.name not in GENERATED)


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of a language; those inside a list are taken out of it."""
    found = re.findall(
        rf"^( *)```{language}\n(.*?)^\1```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


class Links(HTMLParser):
    """Every address that a page loads something from or leads to."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.classes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.classes |= set((values.get("class") or "").split())
        address = {"script": "src", "img": "src", "link": "href", "iframe": "src"}.get(tag)
        relation = values.get("rel") or ""
        if address and values.get(address) and relation not in {"next", "prev", "search", "index", "genindex"}:
            self.loaded.append(str(values[address]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as ``make docs`` does, with warnings as errors."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-c", "docs"]
    built = subprocess.run(
        [*command, "-d", str(out / "trees"), ".", str(out / "site")], cwd=ROOT, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return out / "site"


def test_the_site_builds_without_a_warning_and_has_every_page(site: Path) -> None:
    for page in PAGES:
        assert (site / page.relative_to(ROOT).with_suffix(".html")).is_file(), page
    assert (site / "docs/reference/cli.html").is_file()
    assert 'url=docs/index.html"' in (site / "index.html").read_text(encoding="utf-8")


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        links = Links()
        links.feed(page.read_text(encoding="utf-8"))
        assert not [link for link in links.loaded if re.match(r"(https?:)?//", link)], page


def test_the_reference_has_every_command_and_its_options(site: Path) -> None:
    text = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")

    def commands(group: object, path: str) -> Iterator[tuple[str, list[str]]]:
        for name, command in group.commands.items():  # type: ignore[attr-defined]
            if hasattr(command, "commands"):
                yield from commands(command, f"{path} {name}")
            else:
                yield f"{path} {name}", [option for one in command.params for option in one.opts if option[0] == "-"]

    found = list(commands(typer.main.get_command(app), "retrieval"))
    assert len(found) > 15
    for name, options in found:
        section = text.split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0] + text.split("\n## ", 2)[1]
        for option in options:
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", section) or option in {"--help", "-h"}, (name, option)


def test_the_reference_has_every_key_and_says_what_it_does(site: Path) -> None:
    text = (DOCS / "reference" / "configuration.md").read_text(encoding="utf-8")
    for row in (
        "| `budget_ms` | float > 0.0 or null | `null` | stop reading",
        "| `port` | int ≥ 0, ≤ 65535 | `8000` |",
    ):
        assert row in text
    for section in ("encoder", "store (server).optimizers", "rerank", "service.limits", "train.training"):
        assert f"\n## {section}\n" in text
    silent = re.findall(r"^\| `(\w+)` .*\|  \|$", text, flags=re.MULTILINE)
    assert not silent, f"no comment in configs/ and no description: {silent}"


def test_the_reference_describes_the_public_names(site: Path) -> None:
    text = (site / "docs/reference/api.html").read_text(encoding="utf-8")
    for name in (
        "pipelines.two_stage.TwoStagePipeline.search",
        "retrieval.datatypes.Hit",
        "retrieval.errors.StoreBusyError",
        "retrieval.protocols.Store.upsert",
        "retrieval.encoders.StaticEncoder",
    ):
        assert f'id="{name}"' in text, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_commands_of_the_documentation_exist_with_their_options(page: Path) -> None:
    shown = [line[2:] for block in blocks(page, "console") for line in block.splitlines() if line.startswith("$ ")]
    for line in (line for line in shown if line.startswith("retrieval ")):
        words = shlex.split(line.split(" | ")[0].partition(" #")[0])
        names = words[1:3] if words[1] == "snapshot" else words[1:2]
        help_text = CliRunner().invoke(app, [*names, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
        assert help_text.exit_code == 0, line
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert option in help_text.output, line


OWN = {"how-to", "recipes", "migrate"}
RUN = [page for page in PAGES if (page.parent.name in OWN or page.name == "tour.md") and blocks(page, "python")]


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(DOCS)))
def test_the_python_of_how_tos_and_recipes_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Blocks marked ``py`` need what is not here (another package, a service) and are not run."""
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), {})
    assert capsys.readouterr().out.strip(), "an example shows something"
