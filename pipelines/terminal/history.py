"""Where the queries of a person are remembered."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def history_file(environment: dict[str, str] | None = None, home: Path | None = None) -> Path:
    """The file with earlier queries, in the folder for the state of programs of this person.

    Args:
        environment: Variables; ``None`` for those of the process.
        home: Home folder; ``None`` for that of the process.
    """
    variables = dict(os.environ) if environment is None else environment
    place = home or Path.home()
    if sys.platform == "win32":
        state = Path(variables.get("LOCALAPPDATA") or place / "AppData" / "Local")
    elif sys.platform == "darwin":
        state = place / "Library" / "Application Support"
    else:
        state = Path(variables.get("XDG_STATE_HOME") or place / ".local" / "state")
    return state / "two-stage-retrieval" / "search_history"


def prepared(path: Path) -> bool:
    """Make the file, for its owner alone; false where that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600))
    except OSError:
        return False
    return True
