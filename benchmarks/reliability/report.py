"""The page: kills by operation, and what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.reliability import push
from benchmarks.reliability.operations import OPERATIONS

Record = Mapping[str, Any]
_CHECKS = {
    "opened": "the index opens",
    "deep": "`retrieval doctor --deep` finds nothing wrong: files against their seals, every passage encoded anew, "
    "BM25 rows, ids, filters and facets, searches against a walk",
    "contents": "every point is bit by bit one that an unkilled run has before or after; what takes place at once is "
    "seen as a whole, before or after",
    "kept": "every document that was there and is to stay is there in one complete version, old or new",
    "acknowledged": "what was acknowledged is there, or gone where it was removed",
    "found": "a search for its own word finds every complete document, and none twice",
    "reader": "a process that opens the index read-only has one complete state",
    "orphans": "no process that was started for it goes on",
}


def totals(records: Sequence[Record]) -> dict[str, int]:
    """How many kills there were, and after how many all was well at once, and after the same command again."""
    struck = [record for record in records if record["struck"]]
    return {
        "kills": len(struck),
        "opened": sum(not record["at_once"].get("opened", "-") for record in struck),
        "checked": sum(not any(record["at_once"].values()) for record in struck),
        "resumed_equal": sum(not any(record["after_resume"].values()) for record in struck),
        "failed": sum(bool(record["failed"]) for record in struck),
        "missed": sum(record["missed"] for record in records),
        "acknowledged_documents": sum(record["acknowledged"]["documents"] for record in struck),
        "acknowledged_passages": sum(record["acknowledged"]["passages"] for record in struck),
    }


def page(report: Mapping[str, Any]) -> str:
    """The page in Markdown, made from the data alone."""
    records = [record for record in report["records"] if record["struck"]]
    all_of = totals(report["records"])
    victims = Counter(record["victim"] for record in records)
    kinds = Counter(record["kind"] for record in records)
    machine = report["machine"]
    lines = [
        "# Reliability: kill -9",
        "",
        f"{all_of['kills']} kills: {all_of['opened']} times the index opened at once, {all_of['checked']} times every "
        f"check passed, {all_of['resumed_equal']} times the same command, run again, made it equal to an index where "
        "nobody was killed.",
        "",
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}, "
        f"{report['date']}. A kill is a SIGKILL to a process in the middle of its work: {victims['tree']} times with "
        f"everything that it had started, {victims['parent']} times alone, {victims['second']} times only what it had "
        f"started. The moment is drawn with seed {report['seed']}: {kinds['time']} times from the whole time that the "
        f"operation takes, {kinds['stage']} times just after it has reported a stage, {kinds['child']} times while a "
        f"process that it has started was at work, {kinds['step']} times directly "
        "before or after it renames, removes, links, makes or forces a file to disk, or has started a process. "
        f"{all_of['missed']} kills came when the operation had ended and were drawn anew; they are not counted.",
        "",
        "| operation | what | kills | opened | all checks | resumed, equal | places where it stopped |",
        "|---|---|---|---|---|---|---|",
    ]
    said = {name: operation.says for name, operation in OPERATIONS.items()} | {push.NAME: push.SAYS}
    for name, says in said.items():
        own = [record for record in records if record["operation"] == name]
        if own:
            count = totals(own)
            places = len({(record["stage"], record["step"]) for record in own})
            lines.append(
                f"| {name} | {says} | {count['kills']} | {count['opened']} | {count['checked']} | "
                f"{count['resumed_equal']} | {places} |"
            )
    lines += [
        f"| all | | {all_of['kills']} | {all_of['opened']} | {all_of['checked']} | {all_of['resumed_equal']} | |",
        "",
        "## What is looked at",
        "",
        "Directly after the kill, on a copy every other time, so that the command meets what the kill has left:",
        "",
        *(f"* {text}" for text in _CHECKS.values()),
        "",
        "Then the same command runs again, where it had not come to its end. Compared with a run that nobody killed: "
        "point ids, payloads, both vectors to the last bit, the manifest but for times and numbers of runs and "
        "generations, compression, the first ten answers and scores of some queries, files left over, and "
        "`doctor --deep` once more.",
        "",
        f"Acknowledged before the kills: {all_of['acknowledged_documents']:,} documents by calls that had returned, "
        f"{all_of['acknowledged_passages']:,} passages by reports of progress.",
        "",
        "Of a push the old or the new index must be on the server, as a whole and with its answers; then the same.",
        "",
        "## What it has found",
        "",
        "Earlier runs found these, which are mended and have tests:",
        "",
        *(f"* {text}" for text in report["found"]),
        "",
        "## What is not covered",
        "",
        *(f"* {text}" for text in report["not_covered"]),
        "",
        "## Failures",
        "",
    ]
    failures = [record for record in records if record["failed"]]
    lines += [
        f"* {record['operation']} {record['number']} ({record['victim']}, {record['moment']}): {record['failed'][0]}"
        for record in failures
    ] or ["None."]
    lines += ["", "```", report["command"], "```", ""]
    return "\n".join(lines)
