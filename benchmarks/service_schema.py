"""Thousands of generated requests against the whole API: no 500, no answer that the OpenAPI document does not describe.

    python -m benchmarks.service_schema --examples 100 --out benchmarks/service_schema.txt

Runs the `schemathesis` command against `retrieval serve` with a key that may do everything, over a small index.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.service_process import serve
from pipelines import TwoStagePipeline

KEY = "a-key-that-may-do-everything-0123456789"
SETTINGS = """
service:
  keys: [{env: KEY, scopes: [read, write, admin]}]
  access_log: false
"""
# The command cannot make bodies of this type by itself.
HOOKS = """
import schemathesis

@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    return value if isinstance(value, bytes) else value.encode()

# Everything that can be sent as text is text: there is nothing of a wrong type to send.
@schemathesis.hook
def filter_case(context, case):
    return case.media_type != "application/x-ndjson" or isinstance(case.body, (str, bytes))
"""


def main() -> None:
    """Run it and write what it printed; the exit status is that of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=100, help="of each operation, in the phase of fuzzing")
    parser.add_argument("--out", type=Path, help="file for the output")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings, hooks, index = Path(folder) / "schema.yaml", Path(folder) / "service_hooks.py", Path(folder) / "index"
        settings.write_text(SETTINGS, encoding="utf-8")
        hooks.write_text(HOOKS, encoding="utf-8")
        with TwoStagePipeline.open(index) as pipeline:
            pipeline.ingest([("pipe", "copper pipe leak repair"), ("bread", "sour bread dough flour")])
        with serve(index, "--config", str(settings), KEY=KEY) as server:
            command = [Path(sys.executable).parent / "schemathesis", "run", f"{server.url}/openapi.json"]
            # `/v1/documents/delete` is also an id of a document: Allow names the methods of both paths.
            options = [
                "--exclude-checks",
                "allow_header_conformance",
                "-H",
                f"Authorization: Bearer {KEY}",
                "--max-examples",
                str(arguments.examples),
                "--no-color",
            ]
            run = subprocess.run(
                [*command, *options, "--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all"],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": folder, "SCHEMATHESIS_HOOKS": "service_hooks"},
                capture_output=True,
                text=True,
            )
            failures = server.log().count('"request failed"')
    text = f"{run.stdout}\nerrors in the log of the service: {failures}\n"
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")
    print(text)
    raise SystemExit(run.returncode or bool(failures))


if __name__ == "__main__":
    main()
