"""Do filters and facets give what a walk over all payloads gives?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from pipelines.index_checks import Check, Finding, Findings
from retrieval.datatypes import StoredPoint
from retrieval.protocols import Store
from retrieval.stores import indexed_fields
from retrieval.stores.filters import parse_path
from retrieval.stores.matching import scalars_at
from retrieval.stores.points import MAX_LIMIT

_VALUES_PER_FILTER = 500


class LookupChecks:
    """Counts the values of all fields that the store has an index for, and asks the store for them afterwards.

    Args:
        store: Open store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._paths = {field: parse_path(field) for field in indexed_fields(store)}
        self._values: dict[str, Counter[str | int | bool]] = {field: Counter() for field in self._paths}
        self._passages = 0

    def add(self, batch: Sequence[StoredPoint]) -> None:
        """Count the values of some points, read with their payload."""
        self._passages += len(batch)
        for field, path in self._paths.items():
            values = self._values[field]
            for point in batch:
                values.update({value for value in scalars_at(path, point.payload) if isinstance(value, str | int)})

    def results(self) -> Iterator[Check]:
        """What was found."""
        found = Findings()
        counted = self._store.count()
        if counted != self._passages:
            found.add(Finding("index", "count", f"count gives {counted:,}, a walk finds {self._passages:,} passages"))
        asked = sum(self._ask(field, found) for field in self._paths)
        names = ", ".join(self._paths) or "none"
        yield found.check("lookups", f"filters and facets agree with {asked:,} values of indexed fields ({names})")

    def _ask(self, field: str, found: Findings) -> int:
        expected = self._values[field]
        told = dict(self._store.facet(field, min(len(expected) + 1, MAX_LIMIT))) if expected else {}
        compared = expected.keys() | told.keys() if len(expected) < MAX_LIMIT else told.keys()
        wrong = [value for value in compared if told.get(value) != expected.get(value)]
        if wrong:
            shown = min(map(str, wrong))
            problem = f"the facet of {field} is wrong for {len(wrong):,} values, {shown!r} among them"
            found.add(Finding("field", field, problem))
        values = list(expected)
        for start in range(0, len(values), _VALUES_PER_FILTER):
            self._match(field, values[start : start + _VALUES_PER_FILTER], found)
        return len(values)

    def _match(self, field: str, values: Sequence[str | int | bool], found: Findings) -> None:
        """Compare what a filter on some values counts; where that is wrong, look for the values one by one."""
        expected = self._values[field]
        distinct = [value for value in values if not isinstance(value, bool)]
        if distinct and sum(expected[value] for value in distinct) == self._count(field, {"any": distinct}):
            return
        for value in values:
            counted = self._count(field, {"value": value})
            if counted != expected[value]:
                problem = f"a filter on {field} {value!r} gives {counted:,} passages, a walk finds {expected[value]:,}"
                found.add(Finding("field", field, problem))

    def _count(self, field: str, match: dict[str, object]) -> int:
        return self._store.count({"must": [{"key": field, "match": match}]})
