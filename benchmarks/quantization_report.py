"""What came out: means, losses against float with paired intervals, what rescoring adds, and the frontier by bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.quantization_grid import FLOAT, Setting
from benchmarks.quantization_systems import SYSTEMS
from retrieval.evaluation import bootstrap_interval, compare

FLOAT_BYTES = 4
NDCG = "nDCG@10"
RECALLS = ("recall_same_dims", "recall_all_dims")
TOGETHER = "all of them"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Values:
    """What was measured of one collection, or of several together, query by query.

    Args:
        collection: Name.
        split: Judgements.
        state: Whether the encoder is as bundled or adapted.
        passages: In the index.
        rows: Of each row: recalls and the nDCG@10 of each system by query, and what does not depend on queries.
    """

    collection: str
    split: str
    state: str
    passages: int
    rows: Mapping[Setting, Row]

    @property
    def systems(self) -> list[str]:
        """Those that were measured."""
        return [system for system in SYSTEMS if any(system in row for row in self.rows.values())]

    @property
    def dims(self) -> list[int]:
        """Numbers of dimensions, largest first."""
        return list(dict.fromkeys(setting.dims for setting in self.rows))


def together(parts: Sequence[Values]) -> Values:
    """Several collections as one: every query counts the same. What one of them lacks is left out."""
    joined: dict[Setting, Row] = {}
    for setting, first in parts[0].rows.items():
        rows = [part.rows[setting] for part in parts if setting in part.rows]
        if len(rows) < len(parts):
            continue
        joined[setting] = {
            key: [value for row in rows for value in row[key]] if isinstance(first[key], list) else first[key]
            for key in first
            if key not in ("p50_ms", "p95_ms") and all(key in row for row in rows)
        }
    return Values(TOGETHER, parts[0].split, parts[0].state, sum(part.passages for part in parts), joined)


def paired(before: Sequence[float], after: Sequence[float]) -> dict[str, float]:
    """Mean of ``before - after`` over the same queries and its 95 % bootstrap interval: above 0 is a loss."""
    differences = [one - other for one, other in zip(before, after, strict=True)]
    low, high = bootstrap_interval(differences)
    return {"mean": float(np.mean(differences)), "low": low, "high": high}


def record_of(values: Values) -> dict[str, Any]:
    """The table of a collection as JSON; a loss is against float, of as many dimensions and of all."""
    all_dims = Setting(values.dims[0], FLOAT)
    verdicts = {system: _verdicts(values, system, all_dims) for system in values.systems}
    return {
        "collection": values.collection,
        "split": values.split,
        "state": values.state,
        "passages": values.passages,
        "queries": {system: len(values.rows[all_dims][system]) for system in values.systems},
        "rows": [_row(values, setting, all_dims, verdicts) for setting in values.rows],
        "rescoring": _rescoring(values),
    }


def _row(values: Values, setting: Setting, all_dims: Setting, verdicts: Mapping[str, Mapping[str, Any]]) -> Row:
    own, same = values.rows[setting], values.rows[Setting(setting.dims, FLOAT)]
    quantization = setting.quantization
    row: Row = {
        "dims": setting.dims,
        "code": setting.code,
        "search": setting.search,
        "quantization": asdict(quantization),
        "searched_bytes": own["code_bytes"] if quantization.kind != "none" else setting.dims * FLOAT_BYTES,
        "original_bytes": setting.dims * FLOAT_BYTES,
        "in_effect": own["in_effect"],
    }
    row |= {name: float(np.mean(own[name])) for name in RECALLS}
    row |= {name: own[name] for name in ("p50_ms", "p95_ms") if name in own}
    row["systems"] = {
        system: {
            NDCG: float(np.mean(own[system])),
            "loss_same_dims": paired(same[system], own[system]),
            "loss_all_dims": paired(values.rows[all_dims][system], own[system]),
            **verdicts[system].get(setting.name, {}),
        }
        for system in values.systems
        if system in own
    }
    return row


def _verdicts(values: Values, system: str, baseline: Setting) -> dict[str, dict[str, Any]]:
    """Every row against float with all dimensions, corrected for being so many."""
    table = {
        setting.name: {NDCG: {str(at): value for at, value in enumerate(row[system])}}
        for setting, row in values.rows.items()
        if system in row
    }
    return {
        one.system: {"p_corrected": one.p_corrected, "verdict": one.verdict} for one in compare(table, baseline.name)
    }


def _rescoring(values: Values) -> list[Row]:
    """What rescoring with three times the candidates adds to the codes alone, for every code and system."""
    rows = []
    for setting in values.rows:
        if setting.search != "codes only":
            continue
        rescored = next(
            other
            for other in values.rows
            if (other.dims, other.code, other.search) == (setting.dims, setting.code, "rescored x3")
        )
        gains = {
            system: paired(values.rows[rescored][system], values.rows[setting][system])
            for system in values.systems
            if system in values.rows[setting] and system in values.rows[rescored]
        }
        rows.append({"dims": setting.dims, "code": setting.code, "gain": gains})
    return rows


def frontier(rows: Iterable[Row], system: str, *, originals: bool) -> list[Row]:
    """Rows that no other beats in bytes and quality at once, fewest bytes first.

    Args:
        rows: Of a record.
        system: Whose quality.
        originals: Whether rescored rows pay for the originals that they read, or for the codes that they search only.
    """
    best: list[Row] = []
    rows = [row for row in rows if system in row["systems"]]
    for row in sorted(rows, key=lambda row: (cost(row, originals=originals), -row["systems"][system][NDCG])):
        if not best or row["systems"][system][NDCG] > best[-1]["systems"][system][NDCG]:
            best.append(row)
    return best


def cost(row: Row, *, originals: bool) -> float:
    """Bytes of a vector that a search needs at hand: its code, and its original where that is read and counted."""
    rescored = row["search"].startswith("rescored")
    return float(row["searched_bytes"] + (row["original_bytes"] if originals and rescored else 0))
