"""The section of the service: its file, its refusals, and that the pipeline passes it over."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.service import ServiceConfig, load_service_config
from retrieval.config import Config, load_config
from retrieval.errors import ConfigError

FILE = Path(__file__).parents[1] / "configs" / "service.yaml"


def test_the_file_shows_every_key_with_its_default() -> None:
    assert load_service_config(FILE) == ServiceConfig()
    shown = yaml.safe_load(FILE.read_text(encoding="utf-8"))["service"]
    assert shown.keys() == ServiceConfig().model_dump().keys()
    for section in ("limits", "timeouts", "jobs"):
        assert shown[section].keys() == ServiceConfig().model_dump()[section].keys()


def test_the_pipeline_passes_the_section_over(tmp_path: Path) -> None:
    path = tmp_path / "both.yaml"
    path.write_text("search: {top_k: 7}\nservice: {port: 9}\n", encoding="utf-8")
    assert load_config(path).search.top_k == 7
    assert load_service_config(path).port == 9
    assert load_config(FILE) == Config()


def test_overrides_reach_the_section_they_name() -> None:
    overrides = ["service.limits.top_k=20", "search.top_k=3", "service.keys=[{env: A_KEY, tenant: t}]"]
    service = load_service_config(None, overrides)
    assert service.limits.top_k == 20
    assert [(key.env, key.scopes, key.tenant) for key in service.keys] == [("A_KEY", ("read",), "t")]
    assert load_config(None, overrides).search.top_k == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("service.prt=1", "unknown key prt; allowed here: .*port"),
        ("service.limits.topk=1", r"unknown key limits\.topk; allowed here: .*top_k"),
        ("service.port=70000", "port"),
        ("service.queue=-1", "queue"),
        ("service.timeouts.request=0", r"timeouts\.request"),
        ("service.timeouts.request=.inf", r"timeouts\.request"),
        ("service.keys=[{env: 'not a name'}]", r"keys\.0\.env"),
        ("service.keys=[{env: A, scopes: []}]", r"keys\.0\.scopes"),
        ("service.keys=[{env: A, scopes: [root]}]", r"keys\.0\.scopes"),
        ("service.cors_origins=['*']", "an origin is"),
        ("service.cors_origins=['https://a.example/']", "an origin is"),
        ("service=5", "section"),
    ],
)
def test_what_cannot_be_used_is_told_by_name(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_service_config(None, [override])


@pytest.mark.parametrize("package", ["fastapi", "orjson"])
def test_a_missing_package_is_told_with_its_pip_line(package: str) -> None:
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from pipelines.cli import main\nsys.argv = ['retrieval', 'serve', '--port', '0']\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"needs the package '{package}': pip install 'two-stage-retrieval[serve]'" in " ".join(done.stderr.split())
