"""What the containers would run, run here without any: files checked, commands executed as they stand."""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.service import load_service_config
from retrieval.config import ServerStoreConfig, load_config
from tests.qdrant_double import QdrantDouble

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("service", "service-cluster")
NODES = ("qdrant-1", "qdrant-2", "qdrant-3")
KEYS = {
    name: f"{name.lower()}-of-the-tests" for name in ("QDRANT_API_KEY", "RETRIEVAL_READ_KEY", "RETRIEVAL_WRITE_KEY")
}


def instructions(name: str) -> list[str]:
    """The arguments of an instruction of the Dockerfile, continued lines joined."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.split(maxsplit=1)[1] for line in joined.splitlines() if line.startswith(f"{name} ")]


def schema_check(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_compose_file_follows_its_specification(tmp_path: Path) -> None:
    done = schema_check(ROOT / "docker-compose.yml")
    assert done.returncode == 0, done.stdout
    broken = copy.deepcopy(COMPOSE)
    broken["services"]["service"]["read_onyl"] = True
    (tmp_path / "compose.yml").write_text(yaml.safe_dump(broken), encoding="utf-8")
    assert "read_onyl" in schema_check(tmp_path / "compose.yml").stdout


def test_every_name_in_the_compose_file_is_defined() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", ()):
            assert volume.split(":")[0] in COMPOSE["volumes"], name
        for other, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}
            assert "healthcheck" in SERVICES[other], name
            # What a profile starts must not wait for something that it does not start.
            assert not SERVICES[other].get("profiles") or SERVICES[other]["profiles"] == service["profiles"]
    mounted = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert mounted == set(COMPOSE["volumes"])


def test_qdrant_is_pinned_to_a_line_that_the_client_speaks() -> None:
    client = [int(part) for part in version("qdrant-client").split(".")[:2]]
    for name in ("qdrant", *NODES):
        default = re.fullmatch(r"qdrant/qdrant:\$\{QDRANT_VERSION:-v(\d+)\.(\d+)\.\d+\}", SERVICES[name]["image"])
        assert default is not None, name
        major, minor = map(int, default.groups())
        # The client warns about, and its makers do not support, more than one minor version apart.
        assert major == client[0]
        assert abs(minor - client[1]) <= 1


def test_ports_are_open_to_this_machine_only_and_do_not_collide() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(published) == 4
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert len({port.split(":")[1] for port in published}) == len(published)


def test_no_secret_stands_in_a_file() -> None:
    for name, service in SERVICES.items():
        for variable, value in service["environment"].items():
            if "KEY" in variable:
                assert value.startswith("${"), f"{name}: {variable}"
    assert not re.search(r"^(ENV|ARG).*(KEY|TOKEN|SECRET)", DOCKERFILE, flags=re.MULTILINE)


@pytest.mark.parametrize("name", OURS)
def test_the_service_may_do_little(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["user"] == instructions("USER")[-1] == "10001:10001"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [mount.split(":")[0] for mount in service["tmpfs"]] == ["/tmp"]
    # Whoever waits to be killed must have had the time to drain.
    timeouts = load_service_config(ROOT / "configs" / "compose.yaml").timeouts
    assert int(service["stop_grace_period"].removesuffix("s")) > timeouts.drain + timeouts.lame_duck


def test_three_nodes_form_one_cluster_under_one_name() -> None:
    for name in NODES:
        node = SERVICES[name]
        assert node["environment"]["QDRANT__CLUSTER__ENABLED"] == "true"
        assert node["networks"]["default"]["aliases"] == ["qdrant-cluster"]
        assert node["command"][-2:] == ["--uri", f"http://{name}:6335"]
        joins = ["--bootstrap", "http://qdrant-1:6335"] if name != "qdrant-1" else []
        assert node["command"][1:-2] == joins


def config_of(name: str) -> tuple[Path, list[str]]:
    """The configuration file and the overrides that the command of a service names."""
    words = SERVICES[name]["command"]
    assert words[:2] == ["serve", "--config"]
    overrides = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    return ROOT / "configs" / Path(words[2]).name, overrides


@pytest.mark.parametrize("name", OURS)
def test_the_service_finds_its_server_and_its_keys(name: str) -> None:
    path, overrides = config_of(name)
    store = load_config(path, overrides).store
    assert isinstance(store, ServerStoreConfig)
    host = re.fullmatch(r"http://([a-z-]+):6333", store.url)
    assert host is not None
    reachable = {name, *(alias for node in NODES for alias in SERVICES[node]["networks"]["default"]["aliases"])}
    assert host[1] in reachable | {"qdrant"}
    keys = load_service_config(path, overrides).keys
    assert {store.api_key_env, *(key.env for key in keys)} <= set(SERVICES[name]["environment"])
    assert {scope for key in keys for scope in key.scopes} == {"read", "write", "admin"}


def test_the_cluster_has_copies_on_its_nodes() -> None:
    store = load_config(*config_of("service-cluster")).store
    assert isinstance(store, ServerStoreConfig)
    assert (store.shard_number, store.replication_factor) == (6, 2)
    assert len(NODES) >= 2  # or a copy would have no node of its own


def test_the_image_runs_as_nobody_in_particular_from_pinned_bases() -> None:
    assert instructions("FROM") == ["python:${PYTHON} AS build", "python:${PYTHON}"]
    assert instructions("ARG")[0] == "PYTHON=3.12-slim-bookworm"
    assert instructions("USER") == ["10001:10001"]
    assert instructions("VOLUME") == ["/data"]


def test_the_builder_gets_what_it_copies_and_nothing_else() -> None:
    lines = [
        line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    ]
    assert lines[0] == "*"
    let_through = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        source for words in instructions("COPY") if not words.startswith("--from") for source in words.split()[:-1]
    }
    assert copied == let_through
    assert all((ROOT / source).exists() for source in copied)


def test_the_image_installs_what_serving_needs_and_no_torch(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (command,) = [words for words in instructions("RUN") if words.startswith("python -c")]
    extras = re.search(r'EXTRAS="(.*)"', DOCKERFILE)
    assert extras is not None
    environment = {**os.environ, "EXTRAS": extras[1]}
    command = command.replace("python", shlex.quote(sys.executable), 1)
    subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, env=environment, check=True, timeout=60)
    listed = (tmp_path / "requirements-extras.txt").read_text(encoding="utf-8").splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert listed == [*project["optional-dependencies"]["serve"], *project["optional-dependencies"]["tracing"]]
    everything = listed + (ROOT / "requirements-lean.txt").read_text(encoding="utf-8").splitlines()
    assert not [line for line in everything if re.match(r"torch|transformers|sentence-transformers|nvidia", line)]


# A file system that is read-only but for some folders, as far as Python writes: whatever else is opened for writing,
# made, renamed or removed fails as it would in the container.
READ_ONLY = """
import errno, os, sys

allowed = tuple(os.path.realpath(path) for path in sys.argv[1].split(os.pathsep)) + ("/dev/", "/proc/self/")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

def refuse(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if not isinstance(path, (str, bytes)) or not (flags or 0) & WRITES:
            return
        paths = (path,)
    elif event in {"os.mkdir", "os.remove", "os.rmdir"}:
        path, folder = arguments[0], arguments[-1]
        # Below an open folder, which is how a tree is removed.
        paths = (path if folder == -1 else os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path),)
    elif event in {"os.truncate", "os.chmod", "os.utime"}:
        paths = arguments[:1]
    elif event in {"os.rename", "os.link", "os.symlink"}:
        paths = arguments[:2]
    else:
        return
    for path in paths:
        if isinstance(path, (str, bytes)) and not os.path.realpath(os.fsdecode(path)).startswith(allowed):
            sys.stderr.write(f"WROTE {event} {path!r}\\n")
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

sys.argv = ["retrieval", *sys.argv[2:]]
from pipelines.cli import main
sys.addaudithook(refuse)
main()
"""


class Running:
    """A service that runs a command of the containers here."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def ask(self, path: str, body: Any = None, key: str | None = None) -> tuple[int, Any]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        if key is not None:
            request.add_header("Authorization", f"Bearer {key}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def healthy(self, check: Sequence[str]) -> bool:
        """Whether a health check of the containers says so, with the port that the service has here."""
        words = [sys.executable if word == "python" else word.replace(":8000/", f":{self.port}/") for word in check]
        return subprocess.run(words, capture_output=True, timeout=60).returncode == 0


@contextmanager
def running(command: Sequence[str], data: Path, replaced: Mapping[str, str]) -> Iterator[Running]:
    """Run a command of a container: its files from configs/, its /data in a folder, on a free port."""
    config = data / "config.yaml"
    text = (ROOT / "configs" / Path(command[2]).name).read_text(encoding="utf-8")
    for old, new in {"/data/": f"{data}/", "host: 0.0.0.0": "host: 127.0.0.1", **replaced}.items():
        assert old in text, old
        text = text.replace(old, new)
    config.write_text(text, encoding="utf-8")
    (data / "tmp").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = [*command[:2], str(config), *command[3:], "--port", str(port)]
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(data / "tmp"), "PYTHONDONTWRITEBYTECODE": "1", **KEYS}
    errors = (data / "errors.txt").open("w+", encoding="utf-8")
    with errors:
        process = subprocess.Popen(
            [sys.executable, "-c", READ_ONLY, str(data), *words],
            cwd=ROOT,
            env={**environment, "HF_HUB_OFFLINE": "1"},
            stdout=errors,
            stderr=errors,
            text=True,
        )
        service = Running(process, port)
        try:
            _wait_for(service, errors.name)
            yield service
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(30)
        assert "WROTE" not in Path(errors.name).read_text(encoding="utf-8")


def _wait_for(service: Running, errors: str) -> None:
    for _ in range(600):
        assert service.process.poll() is None, Path(errors).read_text(encoding="utf-8")
        try:
            if service.ask("/ready")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    pytest.fail(Path(errors).read_text(encoding="utf-8"))


def use(service: Running, check: Sequence[str]) -> None:
    """What a person does with it first: keys, an ingest, a search, and the end."""
    assert service.healthy(check)
    documents = {
        "documents": [{"id": "yeast", "text": "Yeast makes dough rise."}, {"id": "tides", "text": "The moon."}]
    }
    assert service.ask("/v1/search", {"query": "dough"})[0] == 401
    assert service.ask("/v1/ingest?wait=true", documents, key=KEYS["RETRIEVAL_READ_KEY"])[0] == 403
    status, job = service.ask("/v1/ingest?wait=true", documents, key=KEYS["RETRIEVAL_WRITE_KEY"])
    assert (status, job["state"], job["report"]["added"]) == (200, "done", 2)
    status, found = service.ask("/v1/search", {"query": "how does dough rise"}, key=KEYS["RETRIEVAL_READ_KEY"])
    assert status == 200
    assert json.dumps(found).index("yeast") > 0
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(60) == 0
    assert not service.healthy(check)


def test_the_command_of_the_image_serves_and_passes_its_health_check(tmp_path: Path) -> None:
    command = json.loads(instructions("CMD")[-1])
    assert json.loads(instructions("ENTRYPOINT")[-1]) == ["retrieval"]
    (check,) = [words for words in instructions("HEALTHCHECK")]
    with running(command, tmp_path, {}) as service:
        use(service, json.loads(check[check.index("[") :]))
    assert (tmp_path / "index" / "manifest.json").is_file()


def test_the_command_of_the_compose_file_serves_from_a_server(tmp_path: Path) -> None:
    check = SERVICES["service"]["healthcheck"]["test"]
    assert check[0] == "CMD"
    with QdrantDouble(api_key=KEYS["QDRANT_API_KEY"]) as qdrant:
        with running(SERVICES["service"]["command"], tmp_path, {"http://qdrant:6333": qdrant.url}) as service:
            use(service, check[1:])
        assert qdrant.count("PUT /collections/.*/points") >= 1
    assert not (tmp_path / "index").exists()
