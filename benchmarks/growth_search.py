"""The searches of `growth` in a process of their own: ``python -m benchmarks.growth_search PAIRS INDEX``."""

import json
import sys
from pathlib import Path

from benchmarks.growth import search

if __name__ == "__main__":
    print(json.dumps(search(Path(sys.argv[1]), Path(sys.argv[2]))))
