"""How long the property tests run: a moment in the gate, as long as wanted with ``PROPERTIES=N`` (times as many cases).

PROPERTIES=50 python -m pytest tests/test_properties_*.py tests/test_stateful_store.py
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

TIMES = int(os.environ.get("PROPERTIES", "1"))
"""1 in the gate."""

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=80)
"""Any text at all, with NUL, half surrogate pairs and marks that combine."""

TEXT = st.text(st.characters(codec="utf-8"), max_size=80)
"""Any text that UTF-8 can carry."""

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), ANY_TEXT),
    lambda values: st.one_of(st.lists(values, max_size=4), st.dictionaries(ANY_TEXT, values, max_size=4)),
    max_leaves=12,
)
"""What the json module makes of any JSON."""


def budget(cases: int, **others: Any) -> settings:
    """Settings of hypothesis: so many cases in the gate, the same ones in each run."""
    health = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(
        max_examples=cases * TIMES,
        deadline=None,
        database=None,
        derandomize=TIMES == 1,
        suppress_health_check=health,
        **others,
    )
