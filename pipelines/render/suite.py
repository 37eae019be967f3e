"""The tables of a suite of minimal pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.render.output import visible

if TYPE_CHECKING:
    from pipelines.suite.report import KindResult, SuiteReport

Interval = tuple[float, float]


def render_suite(console: Console, report: SuiteReport) -> None:
    """Three tables in percent: what the first stage keeps, and who orders the twins."""
    last = report.kinds[-1]
    others = f"{report.distractors:,} others from {visible(report.source)}" if report.source else "nothing else"
    console.print(
        f"{visible(report.suite)}: {last.pairs:,} pairs of twins, {last.queries:,} queries. "
        f"One index of {report.passages:,} passages holds all twins and {others}."
    )
    console.print("Percent with 95 % intervals. A tie is not right. A test set: tune nothing on it.", style="dim")

    console.print(f"\nQueries with both twins among the {report.candidates} candidates", style="bold")
    table = _table(report.kinds)
    for arm in last.kept:
        table.add_row(arm, *(_cell(kind.kept[arm], kind.kept_intervals[arm]) for kind in report.kinds))
    table.add_row("both reranked", *(_cell(kind.read, None) for kind in report.kinds))
    console.print(table)

    console.print(
        f"\nQueries with the right twin first; guessing gives {100 * report.chance['right']:.0f}", style="bold"
    )
    table = _table(report.kinds)
    for system in last.systems:
        results = [kind.systems[system] for kind in report.kinds]
        table.add_row(system, *(_cell(result.accuracy, result.accuracy_interval) for result in results))
    console.print(table)

    if any(kind.systems["two-stage"].both for kind in report.kinds):
        console.print(
            f"\nPairs with both queries right; guessing gives {100 * report.chance['both']:.0f}", style="bold"
        )
        table = _table(report.kinds)
        for system in last.systems:
            results = [kind.systems[system] for kind in report.kinds]
            table.add_row(system, *(_cell(result.both_accuracy, result.both_interval) for result in results))
        console.print(table)
    _render_limits(console, report)


def _render_limits(console: Console, report: SuiteReport) -> None:
    last, shuffled = report.kinds[-1], report.permutation
    tied = ", ".join(f"{system} {100 * share:.0f} %" for system, share in last.ties.items() if share)
    console.print(f"\ntwins with the same score: {tied or 'none'}", style="dim")
    console.print(
        f"with the words of each text shuffled: static vectors change by at most {shuffled.dense_change:.0e}, BM25 "
        f"weights of {shuffled.sparse_changed:,} of {shuffled.texts:,} texts, and the cross-encoder's score of "
        f"{100 * shuffled.logits_changed:.0f} % (by {shuffled.logit_change:.2f} in the median, down in "
        f"{100 * shuffled.original_above:.0f} %)",
        style="dim",
    )
    console.print(f"encoder {report.encoder}; reranker {visible(report.reranker)}; {report.seconds:.0f} s", style="dim")


def _table(kinds: tuple[KindResult, ...]) -> Table:
    table = Table(box=None, padding=0, header_style="bold")
    table.add_column("", no_wrap=True, min_width=13)
    for kind in kinds:
        table.add_column(f" {visible(kind.kind)}", no_wrap=True, min_width=11)
    return table


def _cell(share: float, interval: Interval | None) -> Text:
    text = Text(f"{100 * share:4.0f}")
    if interval is not None:
        low, high = (f"{100 * end:.0f}" for end in interval)
        # No width at this precision: nothing to show.
        text.append(f" {low}-{high}" if low != high else "", style="dim")
    return text
