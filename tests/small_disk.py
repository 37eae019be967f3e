"""Programs that run with a disk of their own, which nobody else sees and which is gone when they end."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@functools.cache
def is_possible() -> bool:
    """Whether this system lets us mount file systems, as root or in a user namespace."""
    if shutil.which("unshare") is None:
        return False
    command = [*_namespace(), "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def run(code: str, disk: Path, *, megabytes: int, prepare: str = "true", **options: Any) -> subprocess.Popen[str]:
    """Run Python with an empty disk of a size.

    Args:
        code: The program; ``disk`` is the folder as a `Path`.
        disk: Existing folder that the disk takes the place of.
        megabytes: Its size.
        prepare: Shell command run before it, with the folder as ``$1``.
        options: For `subprocess.Popen`.
    """
    script = f'mount -t tmpfs -o size={megabytes}m tmpfs "$1" && {prepare} && exec "$2" -c "$3" "$1"'
    program = f"import sys\nfrom pathlib import Path\ndisk = Path(sys.argv[1])\n{code}"
    command = [*_namespace(), "sh", "-c", script, "sh", str(disk), sys.executable, program]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, **{**pipes, **options})


def _namespace() -> list[str]:
    return ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
