"""One query a line, for pipes and files."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable

from rich.text import Text

from pipelines.explain import matched_spans, query_terms
from pipelines.render.hits import render_results, render_warnings
from pipelines.render.output import error_console, output_console, plain, visible
from pipelines.search_options import SearchArguments
from pipelines.two_stage import TwoStagePipeline


def answer_lines(
    pipeline: TwoStagePipeline,
    lines: Iterable[str],
    top_k: int | None,
    arguments: SearchArguments,
    *,
    as_json: bool,
    explain: bool,
) -> int:
    """Answer every line as soon as it comes; empty ones are skipped.

    Args:
        pipeline: Open pipeline.
        lines: Queries.
        top_k: How many hits; ``None`` as configured.
        arguments: Further arguments of the searches.
        as_json: One JSON document a line.
        explain: Show the numbers behind each hit.

    Returns:
        How many queries there were.
    """
    console, errors = output_console(), error_console()
    count = 0
    for line in lines:
        query = " ".join(line.split())
        if not query:
            continue
        count += 1
        results = pipeline.search(query, top_k, **arguments)
        terms = query_terms(pipeline.encoder, pipeline.sparse, query) if explain else None
        if as_json:
            record = plain(results) | ({"terms": plain(terms)} if explain else {})
            sys.stdout.write(json.dumps(record, ensure_ascii=True, allow_nan=False) + "\n")
        else:
            console.print(Text(f"> {visible(query)}", style="bold"))
            console.print()
            render_results(
                console,
                results,
                lambda text, query=query: matched_spans(pipeline.sparse, query, text),  # type: ignore[misc]
                explained=terms,
            )
            render_warnings(errors, results)
        sys.stdout.flush()
    return count
