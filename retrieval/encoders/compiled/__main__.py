"""``python -m retrieval.encoders.compiled`` compiles the inner loops for this machine ahead of time."""

import sys

from retrieval.encoders.compiled.start import prepare_compiled

status = prepare_compiled()
sys.stdout.write(f"{status.state}: {status.reason}\n")
sys.exit(0 if status.state == "ready" else 1)
