"""Documents handed over in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from retrieval.datatypes import Document, Rejected
from retrieval.documents.cleaning import SeenIds, clean, clean_title, json_value


def from_python(
    items: Iterable[Document | Mapping[str, Any] | tuple[str, str]], on_rejected: Callable[[Rejected], None]
) -> Iterator[Document]:
    """Turn Python values into documents.

    A mapping has ``text``, ``id`` (or ``_id``) and maybe ``title``; a mapping under ``metadata`` and all other keys are
    its metadata. What cannot be used is reported: no id, an id that occurred before, text that is not a string or is
    empty, metadata that JSON cannot carry.

    Args:
        items: `Document` objects, mappings, or pairs of id and text.
        on_rejected: Called with every value that cannot be used; the stream goes on behind it.

    Returns:
        The documents, made while you iterate.

    Raises:
        TypeError: ``items`` is a string, bytes, a mapping or one document, or is not iterable. While iterating: an
            item is none of the three kinds.
    """
    if isinstance(items, str | bytes | Mapping | Document) or not isinstance(items, Iterable):
        raise TypeError(
            f"expected an iterable of Document, dict or (id, text) pairs, not a {type(items).__name__}; "
            "put a single document into a list, and give a path to open_documents"
        )
    return _documents(items, on_rejected)


def _documents(items: Iterable[Any], on_rejected: Callable[[Rejected], None]) -> Iterator[Document]:
    seen = SeenIds()
    for number, item in enumerate(items, 1):
        name: Any = None
        try:
            name, text, title, metadata, source = _parts(item, number)
            document = _document(name, text, title, metadata, source)
            if not seen.add(document.key):
                raise ValueError(f"the id {document.key!r} occurred before")
        except ValueError as error:
            shown = str(name)[:200] if isinstance(name, str | int) and name != "" else f"item {number}"
            on_rejected(Rejected(clean(shown), clean(str(error))))
            continue
        yield document


def _parts(item: Any, number: int) -> tuple[Any, Any, Any, Any, Any]:
    if isinstance(item, Document):
        return item.id, item.text, item.title, item.metadata, item.source
    if isinstance(item, Mapping):
        others = {key: value for key, value in item.items() if key not in {"id", "_id", "text", "title", "metadata"}}
        nested = item.get("metadata")
        metadata = {**nested, **others} if isinstance(nested, Mapping) else others
        if nested is not None and not isinstance(nested, Mapping):
            metadata["metadata"] = nested
        return item.get("id", item.get("_id")), item.get("text"), item.get("title"), metadata, ""
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1], "", {}, ""
    raise TypeError(f"item {number} is a {type(item).__name__}, not a Document, a dict or an (id, text) pair")


def _document(name: Any, text: Any, title: Any, metadata: Any, source: Any) -> Document:
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise ValueError("has no id" if name is None else f"the id is a {type(name).__name__}, not a string")
    identity = clean(str(json_value(name)))
    if not identity.strip():
        raise ValueError("the id is empty")
    if title is not None and not isinstance(title, str):
        raise ValueError(f"the title is a {type(title).__name__}, not a string")
    if not isinstance(text, str):
        raise ValueError("has no text" if text is None else f"the text is a {type(text).__name__}, not a string")
    if not isinstance(metadata, Mapping) or not isinstance(source, str):
        raise ValueError("metadata is not a mapping, or source is not a string")
    title = clean_title(title or "")
    if not text.strip() and not title:
        raise ValueError("the text is empty")
    return Document(
        id=identity,
        text=clean(text) if text.strip() else title,
        title=title,
        metadata=_metadata(metadata),
        source=clean(source),
    )


def _metadata(metadata: Mapping[Any, Any]) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for key, value in metadata.items():
        if not isinstance(key, str):
            raise ValueError(f"the metadata key {key!r} is a {type(key).__name__}, not a string")
        try:
            checked[clean(key)] = json_value(value)
        except ValueError as error:
            raise ValueError(f"metadata {key!r} {error}") from error
    return checked
