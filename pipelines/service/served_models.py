"""The names of the models that answer, and what a client that asks for another one is told."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.service.errors import ServiceError

_SHOWN_CHARACTERS = 100


def require_model(asked: str | None, name: str, further: Iterable[str] = ()) -> None:
    """Refuse a request for another model than the one that answers: vectors of two models do not mix.

    Args:
        asked: What the client asks for; ``None`` and an empty name are content with any.
        name: Name of the model.
        further: Other names for it, from the configuration.

    Raises:
        ServiceError: 404.
    """
    if asked and asked != name and asked not in further:
        raise unknown_model(asked, (name, *further))


def unknown_model(asked: str, served: Iterable[str]) -> ServiceError:
    """404 that names what is served."""
    names = ", ".join(map(repr, served))
    return ServiceError(
        404, "model_not_found", f"the model {asked[:_SHOWN_CHARACTERS]!r} is not served here; served: {names}"
    )
