"""Which state of an embedded index a reader gets, and the copy of it that it reads."""

from __future__ import annotations

from pathlib import Path

from retrieval.config import Config, EdgeStoreConfig
from retrieval.errors import IndexMismatchError, StoreBusyError, StoreCorruptError, StoreError
from retrieval.manifest import peek_manifest
from retrieval.stores.edge import EdgeStore
from retrieval.stores.edge_engine import engine_dimensions
from retrieval.stores.index_layout import ENGINE, GENERATIONS
from retrieval.stores.lock import is_writable
from retrieval.stores.published import current_publication, manifest_digest
from retrieval.stores.published_views import View, view_of_live, view_of_publication
from retrieval.stores.read_only import ReadOnlyStore


def take_view(config: Config, path: str | Path) -> View:
    """A private copy of the last complete state of an index.

    That is what is published. Where nothing is, or something older, and nobody has the index open, it is published
    first; a folder that cannot be written to is copied to the temporary files.

    Args:
        config: Its ``store`` is used.
        path: Folder of the index.

    Raises:
        StoreError: There is no index, it was left in the middle of a change, or it cannot be copied.
        StoreBusyError: Another process writes to it and has published nothing.
        StoreCorruptError: Its files are damaged.
        StoreFullError: There is no room for the copy.
    """
    root = Path(path).resolve()
    manifest = peek_manifest(root)
    if manifest is None:
        raise StoreError(f"no index in {root}: there is no manifest; make one with 'retrieval ingest'")
    store = config.store if isinstance(config.store, EdgeStoreConfig) else EdgeStoreConfig()
    publication = current_publication(root)
    if not (store.publish and is_writable(root)):
        return (publication and view_of_publication(root)) or view_of_live(root)
    if publication is None or (manifest.state == "ready" and publication.digest != manifest_digest(root)):
        try:
            _publish(config, root, manifest.generation)
        except StoreBusyError as error:
            if publication is None:
                raise StoreBusyError(f"{error}; it has published nothing yet that could be read meanwhile") from error
        except (StoreCorruptError, IndexMismatchError):
            raise
        except StoreError:  # no room, or files that belong to somebody else
            return view_of_live(root)
    view = view_of_publication(root)
    return view_of_live(root) if view is None else view


def open_view(config: Config, view: View, *, dim: int) -> ReadOnlyStore:
    """The store over a view; closing it removes the view, and so does an error.

    Args:
        config: Its ``hnsw`` is used.
        view: From `take_view`.
        dim: Dimensions of dense vectors.

    Raises:
        StoreError: As for `EdgeStore`.
    """
    try:
        store = EdgeStore(config, dim=dim, path=view.folder)
    except BaseException:
        view.release()
        raise
    return ReadOnlyStore(store, str(view.root), view.release)


def _publish(config: Config, root: Path, generation: int) -> None:
    dim = engine_dimensions(root / GENERATIONS / str(generation) / ENGINE)
    with EdgeStore(config, dim=dim, path=root) as store:
        store.publish()
