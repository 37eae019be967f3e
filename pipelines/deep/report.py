"""What a deep check has found."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.index_checks import Check, Finding

_STATE = "state"


@dataclass(frozen=True, slots=True)
class DeepReport:
    """All checks of one index, in the order in which they build on each other.

    Args:
        checks: The checks.
    """

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong and no run was interrupted."""
        return all(check.ok is not False for check in self.checks)

    @property
    def damage(self) -> tuple[Check, ...]:
        """Checks that failed, but for a run that was interrupted and can be repeated."""
        return tuple(check for check in self.checks if check.ok is False and check.name != _STATE)

    @property
    def interrupted(self) -> bool:
        """Whether the last run that wrote did not come to its end."""
        return any(check.name == _STATE and check.ok is False for check in self.checks)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong, by name of file, passage, document or field."""
        return tuple(finding for check in self.checks for finding in check.findings)
