"""The order of a deep check: files first, then what is in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipelines.deep.apart import examine_apart
from pipelines.deep.files import examine_files
from pipelines.deep.report import DeepReport
from pipelines.doctor import examine_folder, examine_stored
from pipelines.index_checks import REPAIR, Check
from pipelines.opening import settings_of
from pipelines.presence import has_points
from pipelines.progress import StepCallback
from retrieval.config import Config
from retrieval.errors import RetrievalError, StoreBusyError


def deep_check(
    folder: str | Path,
    config: Config | None = None,
    *,
    apart: bool | None = None,
    on_progress: StepCallback | None = None,
) -> DeepReport:
    """Compare every file of an embedded index with its seal, and everything that is stored with what its texts give.

    Nothing is changed. Damaged files can make the engine end the process that reads them, so they are read in a process
    of its own, unless the seal has proven that they are whole.

    Args:
        folder: Folder of the index, which must be closed.
        config: The configuration that the index would be opened with; ``None`` for what it was built with.
        apart: Whether to read in a process of its own; ``None`` where the seal does not prove all files.
        on_progress: Called while the index is read.

    Returns:
        All checks; see `DeepReport.damage`.

    Example:
        >>> from pipelines.deep import deep_check
        >>> [check.name for check in deep_check("my-index").damage]
        []
    """
    folder = Path(folder)
    if config is None:
        try:
            config = settings_of(folder)
        except RetrievalError as error:
            return DeepReport((Check("manifest", False, str(error), REPAIR),))
    tell = on_progress or (lambda stage, done, total: None)
    return DeepReport(tuple(deep_checks(config, folder, tell, apart=apart)))


def deep_checks(
    config: Config, folder: Path | None, on_progress: StepCallback, *, apart: bool | None = None
) -> Iterator[Check]:
    """The checks of `deep_check`; those of the files are left out for an index on a server, which has none here."""
    if folder is None:
        yield from examine_stored(config, folder, on_progress)
        return
    yield examine_folder(folder)
    if not has_points(folder):
        yield Check("index", None, "not opened, see above")
        return
    try:
        files = examine_files(folder)
    except StoreBusyError as error:
        yield Check("index", False, str(error), "close it there and run doctor again")
        return
    yield from files.checks
    if files.proven is False:
        # The engine drops what it cannot make sense of, for good, and a repair may still make something of it.
        yield Check("contents", None, "not compared, the engine would change damaged files")
        return
    if apart if apart is not None else not files.proven:
        yield from examine_apart(config, folder, on_progress)
    else:
        yield from examine_stored(config, folder, on_progress)
