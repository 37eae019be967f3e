"""The public collections of BEIR, downloaded with their checksums into a cache."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from retrieval.errors import DocumentError

MIRROR = "https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets"
"""Where the authors of BEIR publish one archive for each collection."""

_BLOCK = 1 << 20
_TIMEOUT_S = 30.0

DownloadCallback = Callable[[str, int, int], None]
"""Called with the name of the collection, bytes received, and bytes in all (0 where the server does not say)."""


@dataclass(frozen=True, slots=True)
class PublicDataset:
    """A collection that can be downloaded.

    Args:
        name: Of the archive and of the folder in it.
        md5: Published checksum of the archive.
        documents: About how many.
        queries: Judged ones of the split.
        split: That BEIR reports on.
    """

    name: str
    md5: str
    documents: int
    queries: int
    split: str = "test"


# Source: the table of datasets of https://github.com/beir-cellar/beir
PUBLIC_DATASETS = (
    PublicDataset("arguana", "8ad3e3c2a5867cdced806d6503f29b99", 8_670, 1_406),
    PublicDataset("climate-fever", "8b66f0a9126c521bae2bde127b4dc99d", 5_420_000, 1_535),
    PublicDataset("cqadupstack", "4e41456d7df8ee7760a7f866133bda78", 457_000, 13_145),
    PublicDataset("dbpedia-entity", "c2a39eb420a3164af735795df012ac2c", 4_630_000, 400),
    PublicDataset("fever", "5a818580227bfb4b35bb6fa46d9b6c03", 5_420_000, 6_666),
    PublicDataset("fiqa", "17918ed23cd04fb15047f73e6c3bd9d9", 57_000, 648),
    PublicDataset("hotpotqa", "f412724f78b0d91183a0e86805e16114", 5_230_000, 7_405),
    PublicDataset("msmarco", "444067daf65d982533ea17ebd59501e4", 8_840_000, 6_980, "dev"),
    PublicDataset("nfcorpus", "a89dba18a62ef92f7d323ec890a0d38d", 3_600, 323),
    PublicDataset("nq", "d4d3d2e48787a744b6f6e691ff534307", 2_680_000, 3_452),
    PublicDataset("quora", "18fb154900ba42a600f84b839c173167", 523_000, 10_000),
    PublicDataset("scidocs", "38121350fc3a4d2f48850f6aff52e4a9", 25_000, 1_000),
    PublicDataset("scifact", "5f7d1de60b170fc8027bb7898e2efca1", 5_183, 300),
    PublicDataset("trec-covid", "ce62140cb23feb9becf6270d0d1fe6d1", 171_000, 50),
    PublicDataset("webis-touche2020", "46f650ba5a527fc69e0a6521c5a23563", 382_000, 49),
)


def find_dataset(name: str) -> PublicDataset:
    """The public collection of a name.

    Raises:
        ValueError: There is none.
    """
    for dataset in PUBLIC_DATASETS:
        if dataset.name == name:
            return dataset
    raise ValueError(f"no public collection {name!r}; there are {', '.join(one.name for one in PUBLIC_DATASETS)}")


def default_folder() -> Path:
    """Where collections are kept: ``$RETRIEVAL_DATASETS``, else a folder in the cache of the user."""
    named = os.environ.get("RETRIEVAL_DATASETS")
    if named:
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "two-stage-retrieval" / "datasets"


def fetch_dataset(
    dataset: PublicDataset,
    folder: Path,
    *,
    mirror: str = MIRROR,
    on_progress: DownloadCallback | None = None,
) -> Path:
    """Download a collection unless it is there, and unpack it.

    A folder of this name appears only when the archive had the right checksum and was unpacked as a whole.

    Args:
        dataset: Which one.
        folder: Where its folder goes; created when absent.
        mirror: Address of the folder with the archives.
        on_progress: Called while downloading.

    Returns:
        The folder of the collection; of cqadupstack, the folder of its twelve collections.

    Raises:
        DocumentError: It cannot be downloaded, has another checksum, or is no sound archive; nothing is kept.
    """
    target = folder / dataset.name
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{dataset.name}-", dir=folder) as temporary:
        archive = Path(temporary) / "archive.zip"
        url = f"{mirror.rstrip('/')}/{dataset.name}.zip"
        digest = _download(url, archive, lambda done, total: (on_progress or _silent)(dataset.name, done, total))
        if digest != dataset.md5:
            raise DocumentError(f"{url} has the MD5 checksum {digest}, not {dataset.md5}; nothing was kept: try again")
        _unpack(archive, Path(temporary), dataset.name, url)
        try:
            (Path(temporary) / dataset.name).rename(target)
        except OSError as error:
            if not target.is_dir():  # else another process was faster
                raise DocumentError(f"cannot write {target}: {error.strerror or error}") from error
    return target


def _silent(name: str, done: int, total: int) -> None:
    pass


def _download(url: str, path: Path, on_progress: Callable[[int, int], None]) -> str:
    import httpx

    digest = hashlib.md5(usedforsecurity=False)
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=_TIMEOUT_S) as response, path.open("wb") as file:
            response.raise_for_status()
            total = int(response.headers.get("content-length", 0))
            done = 0
            for block in response.iter_bytes(_BLOCK):
                file.write(block)
                digest.update(block)
                done += len(block)
                on_progress(done, total)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error).partition("\n")[0]
        raise DocumentError(
            f"cannot download {url}: {reason}; without a network, copy the unpacked folder here and name it to "
            "'retrieval evaluate'"
        ) from error
    except OSError as error:
        raise DocumentError(f"cannot write {path.parent}: {error.strerror or error}") from error
    return digest.hexdigest()


def _unpack(archive: Path, folder: Path, name: str, url: str) -> None:
    try:
        with zipfile.ZipFile(archive) as files:
            for entry in files.infolist():
                path = PurePosixPath(entry.filename)
                # Some archives hold the notes of a file system beside the collection.
                if path.parts[:1] == (name,) and ".." not in path.parts:
                    files.extract(entry, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise DocumentError(f"{url} is no sound archive: {error}") from error
    except OSError as error:
        raise DocumentError(f"cannot unpack {url} to {folder.parent}: {error.strerror or error}") from error
    if not any((folder / name).rglob("corpus.jsonl")):
        raise DocumentError(f"{url} holds no folder {name} with a corpus.jsonl")
