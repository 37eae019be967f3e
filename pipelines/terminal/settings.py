"""What ``:set`` changes: the arguments of a search, as typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pipelines.search_options import SearchArguments, SearchOptions
from retrieval.config import Config
from retrieval.stores.filters import parse_filter

DEFAULT = "default"
"""The value that takes a setting back to what the configuration says."""


def _whole(text: str) -> int:
    return int(text)


def _number(text: str) -> float:
    return float(text)


def _switch(text: str) -> bool:
    known = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if text.lower() not in known:
        raise ValueError(text)
    return known[text.lower()]


def _filter(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(text[:200]) from error
    if not isinstance(value, dict):
        raise ValueError(text)
    return value


def _probability(text: str) -> float | str:
    return "auto" if text == "auto" else float(text)


_READERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "top_k": (_whole, "a whole number"),
    "candidates": (_whole, "a whole number"),
    "depth": (_whole, "a whole number"),
    "budget_ms": (_number, "a number of milliseconds"),
    "rerank": (_switch, "on or off"),
    "first_stage": (str, "hybrid, dense or bm25"),
    "where": (_filter, "a filter as a JSON object"),
    "group_by": (str, "document or passage"),
    "min_score": (_probability, "a probability, or auto"),
    "exact": (_switch, "on or off"),
}
SETTINGS = tuple(_READERS)
CHOICES: dict[str, tuple[str, ...]] = {
    "first_stage": ("hybrid", "dense", "bm25"),
    "group_by": ("document", "passage"),
    "rerank": ("on", "off"),
    "exact": ("on", "off"),
    "min_score": ("auto",),
}
"""Values that a terminal can complete."""


class Settings:
    """The arguments of the searches of a session.

    Args:
        config: Settings of the pipeline.
        top_k: How many hits; ``None`` as configured.
        arguments: The others; ``None`` as configured.
    """

    def __init__(self, config: Config, top_k: int | None, arguments: SearchArguments) -> None:
        self._config = config
        self.values: dict[str, Any] = {"top_k": top_k, **arguments}
        self.options()

    def options(self) -> SearchOptions:
        """All values decided.

        Raises:
            ValueError: They do not fit together.
        """
        return SearchOptions.from_config(self._config, self.values.get("top_k"), self.arguments())

    def arguments(self) -> SearchArguments:
        """All but ``top_k``, for `TwoStagePipeline.search`."""
        arguments: Any = {name: value for name, value in self.values.items() if name != "top_k"}
        return arguments  # type: ignore[no-any-return]

    def set(self, name: str, text: str) -> None:
        """Change one.

        Args:
            name: Its name.
            text: Its value as typed; ``default`` takes it back.

        Raises:
            ValueError: There is no such setting, or the value cannot be used; nothing has changed.
        """
        if name not in _READERS:
            raise ValueError(f"there is no setting {name!r}; there are {', '.join(SETTINGS)}")
        read, kind = _READERS[name]
        before = self.values.get(name)
        value = None
        if text != DEFAULT:
            try:
                value = read(text)
            except ValueError:
                raise ValueError(f"{name} is {kind}, not {text!r}") from None
        if name == "where" and value is not None:
            parse_filter(value)
        self.values[name] = value
        try:
            self.options()
        except ValueError:
            self.values[name] = before
            raise

    def shown(self) -> list[tuple[str, str, bool]]:
        """Name, value and whether it was set here, of every setting."""
        options = self.options()
        return [(name, _shown(getattr(options, name)), self.values.get(name) is not None) for name in SETTINGS]


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value) if isinstance(value, dict) else str(value)
