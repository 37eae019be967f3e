"""Every error this project raises on purpose.

::

    RetrievalError
    ├── ConfigError              a configuration file or override cannot be used
    ├── DocumentError            one document or file cannot be read (ingest puts it on the rejected list)
    ├── ModelError               a model folder is missing, incomplete or malformed
    ├── MissingExtraError        an optional package is not installed (also an ImportError)
    └── StoreError               the vector store refused or failed
        ├── StoreInputError      a point, query or filter is not usable (also a ValueError)
        ├── StoreBusyError       another process or handle holds the index
        ├── StoreCorruptError    the files of an index are damaged
        ├── StoreFullError       too little disk is left to write safely
        └── IndexMismatchError   the index was built with other settings than the ones asked for

A bad argument of a function is a plain ``ValueError`` or ``TypeError``.
"""

from __future__ import annotations


class RetrievalError(Exception):
    """Base of all errors of this project."""


class ConfigError(RetrievalError):
    """A configuration file, key or override cannot be used."""


class DocumentError(RetrievalError):
    """A document or a file of documents cannot be read."""


class ModelError(RetrievalError):
    """A model folder is missing, incomplete or malformed."""


class MissingExtraError(RetrievalError, ImportError):
    """An optional package is needed and not installed.

    Args:
        package: Import name of the missing package.
        extra: Extra of this distribution that brings it.
        purpose: What needs it, for the message.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package = package
        self.extra = extra
        self.purpose = purpose
        super().__init__(f"{purpose} needs the package {package!r}: pip install 'two-stage-retrieval[{extra}]'")

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str, str]]:
        return MissingExtraError, (self.package, self.extra, self.purpose)


class StoreError(RetrievalError):
    """The vector store refused or failed."""


class StoreInputError(StoreError, ValueError):
    """A point, query or filter is not usable; nothing was written."""


class StoreBusyError(StoreError):
    """Another process or handle holds the index."""


class StoreCorruptError(StoreError):
    """The files of an index are damaged or incomplete."""


class StoreFullError(StoreError):
    """Too little disk is left to write safely."""


class IndexMismatchError(StoreError):
    """The index was built with other settings than the ones asked for."""
