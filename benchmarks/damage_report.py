"""The page of `benchmarks.damage`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.bench.machine import describe

_UNSEALED = "no seal"
LAST_DIGITS = "the last digits of a vector"

_HEAD = """# Damage

Written by `python -m benchmarks.damage --out benchmarks/damage.json`; a run that was stopped goes on with the next
case.

**Protocol.** An index of 240 text files (288 passages) in each of these variants: as an ingest leaves it (*plain*); put
in order, then passages removed and added (*changed*); with a graph; quantized to two bits; with an encoder of its own
(*adapted*); and as *changed*, with the copy that readers beside a writer have, from which a repair takes files that are
whole there (*published*; the others have none). 20 texts of *changed* were handed over in Python, all others are files.
Of a copy one file is damaged:
deleted, cut in half, one bit flipped (at the start, in the middle, near the end of what is not zero), one page of 4 KiB
zeroed; files of zeros are only deleted. *Refused at open*: opening raises an error that names the damage, mostly before
the engine sees the files. *Error in use*: opening does not, but reading everything and searching does. *No answer
changed*: opened as it is, the damaged copy gave the same passages, vectors, facets and results. *Wrong answers*: what
is left of all cases. *Noticed by doctor*: `retrieval doctor --deep` fails. *Repaired*: after
`retrieval repair --source DOCUMENTS` every passage, vector, BM25 row and facet is bit by bit what it was before, and
results are in the same order with the same scores to 1e-5 (the engine adds BM25 terms in varying order). *Told*: it is
not as it was, and the repair says what is missing or different, and ends with exit code 1 where something is missing.

**Machine.** {machine}
"""


def page(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The page as Markdown."""
    sealed = [record for name, of in results.items() if name != _UNSEALED for record in of.values()]
    parts = [_HEAD.format(machine=_machine())]
    parts.append(f"## By kind of file\n\n{_table(_grouped(sealed, 'kind'))}")
    parts.append(f"## By damage\n\n{_table(_grouped(sealed, 'damage'))}")
    by_variant = {name: list(of.values()) for name, of in results.items() if name != _UNSEALED}
    parts.append(f"## By variant\n\n{_table(by_variant)}")
    parts.append(_exceptions(sealed))
    if _UNSEALED in results:
        records = list(results[_UNSEALED].values())
        parts.append(
            "## Without a seal\n\nA writer that is killed leaves none until the next clean close. Then only what is in "
            "the files can tell; damage that changes no answer is not noticed.\n\n"
            f"{_table(_grouped(records, 'kind'))}\n\n{_unnoticed(records)}\n\n{chr(10).join(_not_as_before(records))}"
        )
    return "\n\n".join(parts).rstrip() + "\n"


def _grouped(records: Iterable[Mapping[str, Any]], by: str) -> dict[str, list[Mapping[str, Any]]]:
    groups: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        groups[str(record[by])].append(record)
    return dict(groups)


def _table(groups: Mapping[str, list[Mapping[str, Any]]]) -> str:
    lines = [
        "| | cases | refused at open | error in use | no answer changed | wrong answers "
        "| noticed by doctor | repaired | told |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    everything = [record for records in groups.values() for record in records]
    for name, records in (*groups.items(), ("**all**", everything)):
        number = len(records)
        opened, used, same, deep, repaired = (
            sum(bool(record[field]) for record in records)
            for field in ("open", "use", "same_answers", "deep", "repaired")
        )
        wrong = number - opened - used - same
        lines.append(
            f"| {name} | {number} | {opened} | {used} | {same} | {wrong} "
            f"| {deep} of {number} | {repaired} of {number} | {sum(map(_is_told, records))} |"
        )
    return "\n".join(lines)


def _exceptions(records: list[Mapping[str, Any]]) -> str:
    silent = [record for record in records if not record["deep"]]
    lines = [f"- not noticed, {_effect(record)}: {record['damage']}, {_short(record['file'])}" for record in silent]
    lines += _not_as_before(records)
    return "## Exceptions\n\n" + ("\n".join(lines) if lines else "None.")


def _not_as_before(records: list[Mapping[str, Any]]) -> list[str]:
    groups: defaultdict[tuple[str, str], int] = defaultdict(int)
    for record in records:
        if not record["repaired"]:
            groups[record["kind"], _why(record)] += 1
    return [f"- not as it was, {number} of {kind}: {why}" for (kind, why), number in groups.items()]


def _effect(record: Mapping[str, Any]) -> str:
    return "no answer changed" if record.get("same_answers") else "**an answer changed**"


def _short(file: str) -> str:
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "SEGMENT", file)


def _is_told(record: Mapping[str, Any]) -> bool:
    repair = record.get("repair", {})
    said = repair.get("lost") or repair.get("complete") is False or repair.get("error") or record.get("notes")
    return not record["repaired"] and bool(said)


def _unnoticed(records: list[Mapping[str, Any]]) -> str:
    silent = [record for record in records if not record["open"] and not record["deep"]]
    changing = [record for record in silent if not record.get("same_answers")]
    lines = [
        f"- {record['damage']}, {_short(record['file'])}: {', '.join(record.get('changed', ()))}" for record in changing
    ]
    if not changing:
        return f"{len(silent)} were not noticed, and none of these changed an answer."
    return f"{len(silent)} were not noticed, and of these {len(changing)} changed an answer:\n\n" + "\n".join(lines)


def _why(record: Mapping[str, Any]) -> str:
    repair, notes = record.get("repair", {}), record.get("notes", ())
    if "error" in repair:
        return f"it is refused: {repair['error']}"
    if any("run 'retrieval adapt' again" in note for note in notes):
        return "the adapted encoder is gone, vectors are those of the encoder that it came from; told"
    if repair.get("lost"):
        return "texts that were handed over, and stood in this place alone, are gone; told by name"
    if repair.get("complete") is False:
        return "documents that had been removed are there again, as their files are; told"
    differs = list(record.get("differs", ()))
    return f"{LAST_DIGITS}; no result is another" if differs == [LAST_DIGITS] else f"**not told**: {', '.join(differs)}"


def _machine() -> str:
    found = describe()
    memory = f"{found['memory_gb']:.0f} GB"
    return f"{found['processor']}, {found['cores']} cores, {memory}, {found['system']}, Python {found['python']}."
