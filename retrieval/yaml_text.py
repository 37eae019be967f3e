"""YAML from outside, and values from outside in messages: both in bounds, whatever they hold."""

from __future__ import annotations

import reprlib
from typing import Any

MAX_YAML_CHARACTERS = 2**20
MAX_MESSAGE_CHARACTERS = 1_000
_MAX_VALUE_CHARACTERS = 200


def load_yaml(text: str) -> Any:
    """The value that a YAML text holds.

    Args:
        text: One document; plain values, lists and mappings only.

    Raises:
        ValueError: It is longer than `MAX_YAML_CHARACTERS`, not YAML, nested too deep, or names an unusable value.
    """
    import yaml  # most searches have neither a file nor overrides

    if len(text) > MAX_YAML_CHARACTERS:
        raise ValueError(f"it has {len(text):,} characters, more than {MAX_YAML_CHARACTERS:,}")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)[:MAX_MESSAGE_CHARACTERS]) from error
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    except (ValueError, TypeError, AttributeError, OverflowError, KeyError, IndexError) as error:
        # What looks like a date, a number or a tagged value and is none ends in the library as one of these.
        raise ValueError(f"it holds a value that is none: {str(error)[:MAX_MESSAGE_CHARACTERS]}") from error


def shown(value: object) -> str:
    """A value for a message: as `repr`, cut where it is long, wide or deep.

    A few lines of YAML can name one list so often in another that all of it would fill the memory.
    """
    short = reprlib.Repr()
    short.maxstring = short.maxother = _MAX_VALUE_CHARACTERS
    short.maxlevel = 3
    try:
        return short.repr(value)[:_MAX_VALUE_CHARACTERS]
    except ValueError:
        return "a number of thousands of digits"
