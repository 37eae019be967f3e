"""What docs/service.md and the README of the example say holds."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from pipelines import TwoStagePipeline
from pipelines.cli import app
from pipelines.service import ServiceConfig
from retrieval.config import Config, MemoryStoreConfig
from tests.service_thread import running

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "service.md"
TEXT = PAGE.read_text(encoding="utf-8")
PAGES = (PAGE, ROOT / "examples" / "rag_app" / "README.md", ROOT / "benchmarks" / "calibration.md")
KEYS = {scope: f"{scope}-key-of-the-tests" for scope in ("read", "write", "admin")}


def documented_routes() -> dict[tuple[str, str], str]:
    """Method and path to scope, as the table of routes says."""
    found = {}
    for cells in re.findall(r"^\| (`(?:GET|POST|DELETE) .*?) \| (\w+) \|", TEXT, flags=re.MULTILINE):
        for method, path in re.findall(r"`(GET|POST|DELETE) (/[^`]*)`", cells[0]):
            found[method, path] = cells[1]
    return found


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """Of a service with one key for each scope."""
    pipeline = TwoStagePipeline.open(config=Config(store=MemoryStoreConfig()))
    keys = [{"env": f"TEST_{scope.upper()}_KEY", "scopes": [scope]} for scope in KEYS]
    config = ServiceConfig.model_validate({"keys": keys, "access_log": False})
    with pytest.MonkeyPatch.context() as patch:
        for scope, key in KEYS.items():
            patch.setenv(f"TEST_{scope.upper()}_KEY", key)
        with running(pipeline, config) as address, httpx.Client(base_url=address) as client:
            yield client


def ask(client: httpx.Client, method: str, path: str, scope: str | None) -> httpx.Response:
    headers = {} if scope is None else {"Authorization": f"Bearer {KEYS[scope]}"}
    return client.request(method, path, headers=headers, json={} if method == "POST" else None)


def test_every_route_is_documented_and_every_documented_route_exists(client: httpx.Client) -> None:
    paths = ask(client, "GET", "/openapi.json", None).json()["paths"]
    real = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    # One model is documented with the list of them, and the description does not list itself.
    assert real - {("GET", "/v1/models/{name}")} | {("GET", "/openapi.json")} == set(documented_routes())


def test_scopes_are_as_documented(client: httpx.Client) -> None:
    for (method, path), needed in documented_routes().items():
        url = re.sub(r"\{\w+\}", "0" * 32, path)
        without = ask(client, method, url, None).status_code
        assert (without == 401) is (needed != "none"), (method, path)
        for scope in KEYS:
            status = ask(client, method, url, scope).status_code
            assert (status == 403) is (needed not in {scope, "none"}), (method, path, scope, status)


def test_every_metric_that_is_named_exists(client: httpx.Client) -> None:
    told = ask(client, "GET", "/metrics", "read").text
    real = set(re.findall(r"^# TYPE (\S+)", told, flags=re.MULTILINE))
    named = set(re.findall(r"`(retrieval_\w+)`", TEXT))
    assert len(named) > 8
    assert named <= real


def test_the_settings_shown_are_settings() -> None:
    (shown,) = [block for block in re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)]
    config = ServiceConfig.model_validate(yaml.safe_load(shown)["service"])
    assert [key.tenant for key in config.keys] == [None, None, "acme"]
    for section in re.findall(r"`service\.([\w.]+)`", TEXT):
        part: object = config
        for name in section.split("."):
            assert hasattr(part, name), section
            part = getattr(part, name)


def test_commands_exist_with_their_options() -> None:
    commands = re.findall(r"^\$ (retrieval .*)$", TEXT, flags=re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        words = shlex.split(command)[1:]
        name = [word for word in words[:2] if not word.startswith("-") and word != "index"]
        shown = CliRunner().invoke(app, [*name[: 2 if name[0] == "snapshot" else 1], "--help"], env={"COLUMNS": "200"})
        assert shown.exit_code == 0, command
        assert all(word in shown.output for word in words if word.startswith("--")), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]
    headings = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    }
    assert links
    for link in links:
        target, _, anchor = link.partition("#")
        assert (page.parent / target).exists(), link
        assert target or anchor in headings, link
