"""The documentation that every Python carries with it, as documents: a real corpus that needs no download."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from retrieval.datatypes import Document

# Modules that do nothing when imported and document themselves well.
MODULES = (
    "abc", "argparse", "array", "ast", "asyncio", "base64", "bisect", "builtins", "bz2", "calendar", "cmath", "codecs",
    "collections", "colorsys", "concurrent.futures", "configparser", "contextlib", "contextvars", "copy", "csv",
    "dataclasses", "datetime", "decimal", "difflib", "dis", "email.message", "enum", "filecmp", "fileinput", "fnmatch",
    "fractions", "ftplib", "functools", "gc", "getpass", "glob", "graphlib", "gzip", "hashlib", "heapq", "hmac", "html",
    "http.client", "http.cookies", "imaplib", "importlib", "inspect", "io", "ipaddress", "itertools", "json", "keyword",
    "linecache", "locale", "logging", "lzma", "mailbox", "math", "mimetypes", "multiprocessing", "operator", "os",
    "os.path", "pathlib", "pdb", "pickle", "platform", "pprint", "queue", "random", "re", "reprlib", "sched", "secrets",
    "select", "selectors", "shelve", "shlex", "shutil", "signal", "smtplib", "socket", "socketserver", "sqlite3", "ssl",
    "stat", "statistics", "string", "struct", "subprocess", "sys", "tarfile", "tempfile", "textwrap", "threading",
    "time", "timeit", "tokenize", "trace", "traceback", "tracemalloc", "types", "typing", "unicodedata", "unittest",
    "unittest.mock", "urllib.parse", "urllib.request", "uuid", "warnings", "wave", "weakref", "xml.etree.ElementTree",
    "zipfile", "zipimport", "zlib", "zoneinfo",
)  # fmt: skip
_LEAST_CHARACTERS = 40


def python_documents() -> Iterator[Document]:
    """The topics of ``help()``, then the docstrings of `MODULES`, their classes, functions and methods.

    The order is the same every time. A docstring that several names share comes once, under its first name. The
    metadata holds ``module`` and ``kind``: topic, module, class, function or method.
    """
    yield from _topics()
    seen: set[str] = set()
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:  # some builds of Python lack one: no sqlite3, no ssl
            continue
        for document in _module_documents(name, module):
            if document.text not in seen:
                seen.add(document.text)
                yield document


def _topics() -> Iterator[Document]:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # left out by some distributions
        return
    for name, text in sorted(topics.items()):
        yield Document(id=f"topic:{name}", text=text, title=_first_line(text), metadata={"module": "", "kind": "topic"})


def _first_line(text: str) -> str:
    lines = (line.translate({ord(mark): None for mark in '"*`'}).strip() for line in text.splitlines())
    return next((line for line in lines if line), "")


def _module_documents(name: str, module: ModuleType) -> Iterator[Document]:
    yield from _document(name, module, name, "module")
    for attribute in _public_names(module):
        value = inspect.getattr_static(module, attribute, None)
        path = f"{name}.{attribute}"
        if inspect.isclass(value):
            yield from _document(path, value, name, "class")
            for method in sorted(vars(value)):
                if not method.startswith("_") and callable(getattr(value, method, None)):
                    yield from _document(f"{path}.{method}", vars(value)[method], name, "method")
        elif callable(value):
            yield from _document(path, value, name, "function")


def _public_names(module: ModuleType) -> list[str]:
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    return sorted(set(names))


def _document(path: str, value: Any, module: str, kind: str) -> Iterator[Document]:
    try:
        text = inspect.cleandoc(getattr(value, "__doc__", None) or "")
    except (AttributeError, TypeError):  # a __doc__ that is not text
        return
    if len(text) >= _LEAST_CHARACTERS:
        yield Document(id=path, text=text, title=path, metadata={"module": module, "kind": kind})
