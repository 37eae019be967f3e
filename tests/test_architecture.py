"""The rules of the house: who may import whom, who may print, what an import may cost."""

from __future__ import annotations

import ast
import importlib
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("retrieval", "pipelines")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# From the bottom up; rooms of one storey do not know each other.
STOREYS = (
    {"errors"},
    {"datatypes", "model_files", "yaml_text"},
    {"protocols"},
    {"config"},
    {"checked_json", "opposites"},
    {"headings", "manifest", "negation", "ordering", "polarity", "telemetry", "token_counts", "token_tables"},
    {"documents", "chunking", "encoders", "stores", "rerankers", "evaluation", "training"},
)
STOREY_OF = {room: number for number, rooms in enumerate(STOREYS) for room in rooms}
# These know rooms (the factory of models opens encoders), and no room knows them.
ABOVE_ROOMS = {"models", "integrations"}
# What people see, at the top of the pipelines: the rest of them does not know it, and only it prints.
FACES = {"cli", "__main__", "commands", "render", "service", "mcp_server", "terminal"}

ONLY_HERE = {
    "qdrant_edge": ("retrieval/stores/edge*.py", "retrieval/encoders/bm25.py"),
    "qdrant_client": ("retrieval/stores/server/*.py",),
}
NEVER_AT_MODULE_LEVEL = {"torch", "transformers", "sentence_transformers", "model2vec"}


@dataclass(frozen=True)
class Import:
    """One imported module, ``from a.b import c`` as ``a.b.c``; lazy inside a function, typing under TYPE_CHECKING."""

    module: str
    lazy: bool
    typing: bool

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


def imports_of(path: Path) -> list[Import]:
    return list(_walk(ast.parse(path.read_text(encoding="utf-8")), _package_of(path), lazy=False, typing=False))


def _walk(node: ast.AST, package: str, *, lazy: bool, typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, lazy, typing) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - child.level + 1] if child.level else []
            base = ".".join([*parents, *([child.module] if child.module else [])])
            yield from (Import(f"{base}.{alias.name}", lazy, typing) for alias in child.names)
        elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from _walk(ast.Module(child.body, []), package, lazy=lazy, typing=True)
            yield from _walk(ast.Module(child.orelse, []), package, lazy=lazy, typing=typing)
        else:
            inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _walk(child, package, lazy=lazy or inner, typing=typing)


def _package_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parent.parts)


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _is_face(path: Path) -> bool:
    package, room = path.relative_to(ROOT).with_suffix("").parts[:2]
    return package == "pipelines" and room in FACES


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


each_source = pytest.mark.parametrize("path", SOURCES, ids=_name)


def test_the_walk_sees_the_sources() -> None:
    names = {_name(path) for path in SOURCES}
    assert {"retrieval/config.py", "retrieval/datatypes.py", "pipelines/__init__.py"} <= names
    assert len(names) >= 10
    seen = {entry.module for path in SOURCES for entry in imports_of(path)}
    assert {"retrieval.errors.RetrievalError", "numpy", "yaml"} <= seen


def test_the_walk_tells_kinds_of_imports_apart() -> None:
    text = (
        "import a.b\nfrom c import d\nfrom . import e\nfrom ..f import g\n"
        "if TYPE_CHECKING:\n    import h\ntry:\n    import i\nexcept ImportError:\n    pass\n"
        "def run():\n    import j\nclass K:\n    import k\n    def m(self):\n        from n import o\n"
    )
    found = list(_walk(ast.parse(text), "retrieval.stores", lazy=False, typing=False))
    assert [entry.module for entry in found] == [
        *("a.b", "c.d", "retrieval.stores.e", "retrieval.f.g", "h", "i", "j", "k", "n.o"),
    ]
    assert [entry.module for entry in found if entry.lazy] == ["j", "n.o"]
    assert [entry.module for entry in found if entry.typing] == ["h"]


@each_source
def test_imports_point_down(path: Path) -> None:
    package, room = path.relative_to(ROOT).with_suffix("").parts[:2]
    assert package == "pipelines" or room in STOREY_OF | dict.fromkeys(ABOVE_ROOMS | {"__init__"}), (
        f"retrieval/{room} has no storey in this test: give it one"
    )
    upward = [entry.module for entry in imports_of(path) if entry.top in PACKAGES and not _allowed(path, entry.module)]
    assert not upward, f"{_name(path)} imports {upward}: of the same storey or from above"


def _allowed(path: Path, module: str) -> bool:
    package, room = path.relative_to(ROOT).with_suffix("").parts[:2]
    target_package, target = module.split(".")[0], _room(module)
    if package == "pipelines":
        return target_package == "retrieval" or _is_face(path) or target not in FACES
    if target_package == "pipelines":
        return False
    if room in ABOVE_ROOMS | {"__init__"} or target == room:
        return True
    return target in STOREY_OF and STOREY_OF[target] < STOREY_OF[room]


@pytest.mark.parametrize(
    ("source", "module", "allowed"),
    [
        ("retrieval/datatypes.py", "retrieval.errors.StoreError", True),
        ("retrieval/errors.py", "retrieval.datatypes.Hit", False),
        ("retrieval/stores/edge.py", "retrieval.stores.points.check", True),
        ("retrieval/stores/edge.py", "retrieval.encoders.Bm25Encoder", False),
        ("retrieval/stores/edge.py", "retrieval.models.find_model", False),
        ("retrieval/stores/edge.py", "pipelines.ingest", False),
        ("retrieval/models/__init__.py", "retrieval.encoders.StaticEncoder", True),
        ("pipelines/ingest.py", "retrieval.stores.open_store", True),
        ("pipelines/ingest.py", "pipelines.cli.main", False),
        ("pipelines/cli.py", "pipelines.ingest.Ingest", True),
    ],
)
def test_the_direction_of_imports(source: str, module: str, allowed: bool) -> None:
    assert _allowed(ROOT / source, module) is allowed


@each_source
def test_engines_and_frameworks_stay_in_their_files(path: Path) -> None:
    for entry in imports_of(path):
        if entry.top in ONLY_HERE:
            allowed = ONLY_HERE[entry.top]
            assert any(fnmatch(_name(path), pattern) for pattern in allowed), f"{_name(path)} imports {entry.module}"
        if entry.top in NEVER_AT_MODULE_LEVEL:
            assert entry.lazy or entry.typing, f"{_name(path)} imports {entry.module} at module level"


@each_source
def test_only_the_faces_print(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    prints = [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    assert not prints or _is_face(path), f"{_name(path)} prints in lines {prints}"


@each_source
def test_modules_have_a_docstring_and_a_sorted_complete_all(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{_name(path)} has no docstring"
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            names = ast.literal_eval(node.value)
            assert list(names) == sorted(names), f"__all__ of {_name(path)} is not sorted"
            assert len(set(names)) == len(names), f"__all__ of {_name(path)} repeats a name"
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            missing = [public for public in names if not hasattr(importlib.import_module(name), public)]
            assert not missing, f"{_name(path)} promises {missing}"


def test_packages_list_what_they_offer() -> None:
    for package in PACKAGES:
        module = importlib.import_module(package)
        assert module.__all__, f"{package} has no __all__"


def test_an_import_stays_light() -> None:
    heavy = ["torch", "transformers", "sentence_transformers", "model2vec", "onnxruntime", "qdrant_client"]
    heavy += ["langchain_core", "llama_index", "haystack"]
    code = f"import sys, retrieval, pipelines; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


# A whole ingest and search without torch, transformers and sentence_transformers: tests/test_lean.py.


def test_versions_come_from_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "retrieval/__init__.py"


@pytest.mark.parametrize("host", ["192.0.2.1", "example.org"])
def test_the_suite_cannot_reach_a_network(host: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="tests run without a network"):
        socket.create_connection((host, 80), timeout=1)


def test_the_suite_can_talk_to_itself() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        client.sendall(b"hello")
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(5) == b"hello"
