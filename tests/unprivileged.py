"""Programs for whom permissions hold, also where the tests are run by root."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_DROP_FROM_BOUNDING_SET = 24
_OVERRIDES = (1, 2)  # of permissions to write, and to read


def run(code: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Python as this user without the right to overrule permissions; the program gets its arguments in ``argv``."""
    command = [sys.executable, "-m", "tests.unprivileged", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120, **options)


if __name__ == "__main__":
    if os.geteuid() == 0:
        for capability in _OVERRIDES:
            if ctypes.CDLL(None, use_errno=True).prctl(_DROP_FROM_BOUNDING_SET, capability, 0, 0, 0):
                sys.exit(f"cannot drop a capability: {os.strerror(ctypes.get_errno())}")
    os.execv(sys.executable, [sys.executable, "-c", *sys.argv[1:]])
