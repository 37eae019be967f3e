"""Shared fixtures: no network, a clean environment, a corpus that can be ranked on paper, tiny models on disk."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from retrieval.datatypes import Document
from tests import browser, hub_folders
from tests.store_folders import quick_folder

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_LOCAL_HOSTS = {"127.0.0.1", "::1", "localhost", "", None}
_CLEARED = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES", "HF_TOKEN", "QDRANT_API_KEY")
_hub_home = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Clean the environment before anything reads it at import: the caller's settings must not change a result."""
    for name in [*_CLEARED, *(name for name in os.environ if name.startswith("RETRIEVAL_"))]:
        os.environ.pop(name, None)
    config.stash[_hub_home] = tempfile.mkdtemp(prefix="hub-")
    os.environ.update(
        HF_HOME=config.stash[_hub_home],
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        HAYSTACK_TELEMETRY_ENABLED="False",
        LANGSMITH_TRACING="false",
        TOKENIZERS_PARALLELISM="false",
        TERM="dumb",
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the empty hub cache."""
    shutil.rmtree(config.stash[_hub_home], ignore_errors=True)


def _refuse(host: object) -> None:
    # pytest.fail is not an Exception, so that no client can mistake it for a network that is down and go on.
    pytest.fail(f"a test tried to reach {host!r}; tests run without a network", pytrace=True)


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    def guarded(original: Callable[..., Any]) -> Callable[..., Any]:
        def connect(self: socket.socket, address: Any) -> Any:
            if self.family in {socket.AF_INET, socket.AF_INET6} and address[0] not in _LOCAL_HOSTS:
                _refuse(address[0])
            return original(self, address)

        return connect

    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in _LOCAL_HOSTS:
            _refuse(name)
        return look_up(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
        patch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield


# Eight words each, all different and none of them a stop word, so that in BM25 every document has the same length
# and every term the same frequency: what shares more of the query's words with it comes first.
_TEXTS = {
    "pipe-1": "copper pipe leak repair kitchen plumber solder joint",
    "pipe-2": "copper pipe leak basement drain valve pressure gauge",
    "pipe-3": "copper pipe bathroom shower faucet wrench sealant tape",
    "pipe-4": "copper roof gutter rain ladder nail hammer timber",
    "star-1": "bright star galaxy telescope mirror night dome camera",
    "star-2": "bright star galaxy dust spectrum infrared detector cloud",
    "star-3": "bright star orbit planet transit dwarf mass period",
    "star-4": "bright comet tail solar wind ice nucleus meteor",
    "bread-1": "sour bread dough flour oven crust yeast salt",
    "bread-2": "sour bread dough rye starter ferment loaf basket",
    "bread-3": "sour bread butter honey slice toast breakfast jam",
    "bread-4": "sour cherry cake sugar cream vanilla egg lemon",
}


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """As ``tmp_path``, in memory where there is room: what writes durably would mostly wait for the disk."""
    with quick_folder() as folder:
        yield folder


@pytest.fixture
def corpus() -> list[Document]:
    """Twelve documents on three topics, four on each; the metadata holds the topic and a year from 2001 to 2012."""
    return paper_corpus()


def paper_corpus() -> list[Document]:
    """What the fixture `corpus` gives, for fixtures of a wider scope."""
    return [
        Document(id=name, text=text, title="", metadata={"topic": name.split("-")[0], "year": year})
        for year, (name, text) in enumerate(_TEXTS.items(), start=2001)
    ]


@pytest.fixture
def paper_rankings() -> Mapping[str, tuple[str, ...]]:
    """Queries with their complete BM25 result over `corpus`: documents that share four words, three, two, one."""
    return {
        "copper pipe leak plumber": ("pipe-1", "pipe-2", "pipe-3", "pipe-4"),
        "bright star galaxy telescope": ("star-1", "star-2", "star-3", "star-4"),
        "sour bread dough flour": ("bread-1", "bread-2", "bread-3", "bread-4"),
        "vanilla": ("bread-4",),
        "submarine": (),
    }


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A headless Chromium for the tests of one module; see `tests.browser.visiting`."""
    with browser.launched() as opened:
        yield opened


@pytest.fixture
def index_path(tmp_path: Path) -> Path:
    """Where a test may create an index; nothing is there yet."""
    return tmp_path / "index"


@pytest.fixture(scope="session")
def hub_models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Tiny models in the layout that the hub models of configs/ have, by their hub name."""
    root = tmp_path_factory.mktemp("hub-models")
    models = {name: root / name for name in (*hub_folders.STATIC_MODELS, *hub_folders.CROSS_ENCODERS)}
    for name in hub_folders.STATIC_MODELS:
        hub_folders.write_static_model(models[name])
    for name, family in hub_folders.CROSS_ENCODERS.items():
        hub_folders.write_cross_encoder(models[name], family)
    return models
