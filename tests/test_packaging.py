"""What the wheel holds, and that the lists of dependencies agree with each other and with the imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

import retrieval

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Distributions whose import name is another.
# Distributions that come with another one and share its releases.
PART_OF = {"llvmlite": "numba", "pydantic_core": "pydantic", "starlette": "fastapi"}
# Faces that nothing else imports, as a whole behind an extra.
BEHIND_AN_EXTRA = {"pipelines/mcp_server/": "mcp", "pipelines/service/": "serve"}
IMPORT_NAMES = {
    "grpcio": "grpc",
    "haystack_ai": "haystack",
    "llama_index_core": "llama_index",
    "opentelemetry_sdk": "opentelemetry",
    "pyyaml": "yaml",
    "qdrant_edge_py": "qdrant_edge",
    "scikit_learn": "sklearn",
}
# What a machine that only searches does without: torch, and a compiler for bulk work.
LEFT_OUT = {"numba", "sentence-transformers"}


def _requirements(lines: list[str]) -> dict[str, str]:
    """Name to the whole line."""
    stripped = [line.partition("#")[0].strip() for line in lines]
    return {re.split(r"[\[<>=!~;]", line)[0].strip(): line for line in stripped if line}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    done = subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    assert built.name == f"two_stage_retrieval-{retrieval.__version__}-py3-none-any.whl"
    return zipfile.ZipFile(built)


def _sources(pattern: str) -> set[str]:
    paths = (path for package in ("retrieval", "pipelines") for path in (ROOT / package).glob(pattern))
    return {path.relative_to(ROOT).as_posix() for path in paths if path.is_file() and "__pycache__" not in path.parts}


def test_the_wheel_holds_both_packages_with_all_their_files_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    information = f"two_stage_retrieval-{retrieval.__version__}.dist-info/"
    names = {name for name in wheel.namelist() if not name.startswith(information)}
    assert names == _sources("**/*")
    assert {"retrieval/py.typed", "pipelines/py.typed", "retrieval/config.py", "pipelines/__init__.py"} <= names
    assert {f"pipelines/service/playground/assets/{name}" for name in ("index.html", "main.js", "style.css")} <= names
    assert {f"retrieval/models/starter-static/{name}" for name in ("model.safetensors", "tokenizer.json")} <= names


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    (entry_points,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert wheel.read(entry_points).decode().split("\n")[:2] == ["[console_scripts]", "retrieval = pipelines.cli:main"]
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    headers = HeaderParser().parsestr(wheel.read(metadata).decode())
    assert headers["Version"] == retrieval.__version__
    assert headers["Requires-Python"] == ">=3.11"
    assert headers["License-Expression"] == "Apache-2.0"
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


def test_the_lean_list_is_the_dependencies_without_torch_and_numba() -> None:
    dependencies = _requirements(PROJECT["dependencies"])
    lean = _requirements((ROOT / "requirements-lean.txt").read_text(encoding="utf-8").splitlines())
    assert lean == {name: line for name, line in dependencies.items() if name not in LEFT_OUT}


def _import_names(lines: list[str]) -> set[str]:
    names = {name.lower().replace("-", "_") for name in _requirements(lines)}
    return {IMPORT_NAMES.get(name, name) for name in names}


def _foreign_imports(*, lazy: bool) -> set[tuple[str, str]]:
    """Top-level names of imported distributions and the files that import them, lazy ones inside functions too."""
    seen: set[tuple[str, str]] = set()
    for path in _sources("**/*.py"):
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        for node in ast.walk(tree) if lazy else tree.body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            seen |= {(name.partition(".")[0], path) for name in names}
    known = {"retrieval", "pipelines", "__future__"} | sys.stdlib_module_names
    return {(PART_OF.get(name, name), path) for name, path in seen if name not in known}


def test_every_import_at_module_level_is_a_dependency() -> None:
    foreign = _foreign_imports(lazy=False)
    assert {"numpy", "pydantic", "yaml"} <= {name for name, _ in foreign}
    declared = _import_names(PROJECT["dependencies"])
    behind = {
        folder: _import_names(PROJECT["optional-dependencies"][extra]) for folder, extra in BEHIND_AN_EXTRA.items()
    }
    undeclared = {(name, path) for name, path in foreign if name not in declared}
    assert {folder for folder in behind if any(path.startswith(folder) for _, path in undeclared)} == set(behind)
    assert {
        (name, path)
        for name, path in undeclared
        if not any(path.startswith(folder) and name in names for folder, names in behind.items())
    } == set()


def test_every_import_inside_a_function_is_a_dependency_or_in_an_extra() -> None:
    foreign = _foreign_imports(lazy=True)
    assert {"numpy", "torch"} <= {name for name, _ in foreign}
    extras = [line for name, lines in PROJECT["optional-dependencies"].items() if name != "dev" for line in lines]
    declared = _import_names([*PROJECT["dependencies"], *extras])
    assert {(name, path) for name, path in foreign if name not in declared} == set()


def test_messages_about_missing_packages_name_extras_that_exist() -> None:
    named = {
        (path, node.args[1].value)
        for path in _sources("**/*.py")
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "MissingExtraError"
        if len(node.args) > 1 and isinstance(node.args[1], ast.Constant)
    }
    assert named
    assert {(path, extra) for path, extra in named if extra not in PROJECT["optional-dependencies"]} == set()


def test_the_extra_all_holds_every_extra_but_the_tools() -> None:
    extras = PROJECT["optional-dependencies"]
    (everything,) = extras["all"]
    listed = everything.partition("[")[2].rstrip("]").split(",")
    assert listed == sorted(set(extras) - {"all", "dev"})
