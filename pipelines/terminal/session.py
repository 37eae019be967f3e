"""What a line at the prompt does: a query, or a command that begins with a colon."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.explain import matched_spans, query_terms
from pipelines.lease import IndexLease
from pipelines.render.hits import render_footer, render_results, render_warnings
from pipelines.render.output import visible_lines
from pipelines.terminal.settings import Settings
from pipelines.two_stage import TwoStagePipeline
from retrieval.datatypes import Hit, Results, Timings
from retrieval.errors import RetrievalError

HELP = (
    ("words of a query", "search; Enter on an empty line shows the next page"),
    (":more", "the next page of hits"),
    (":explain [N]", "the numbers behind hit N, or behind all that are shown"),
    (":show N, :open N", "the whole passage of hit N, with what the cross-encoder read"),
    (":set", "all settings"),
    (":set NAME VALUE", "change one: :set budget_ms 100, :set first_stage bm25"),
    (":set NAME default", "take it back"),
    (":timings", "where the time of the last query went"),
    (":help", "this"),
    (":quit", "leave; so does Ctrl-D, and Ctrl-C only stops what runs"),
)
COMMANDS = (":explain", ":help", ":more", ":open", ":quit", ":set", ":show", ":timings")
_ALIASES = {":q": ":quit", ":exit": ":quit", ":h": ":help", ":?": ":help", ":open": ":show", ":m": ":more"}


class SearchSession:
    """The queries of one person, one after the other.

    Args:
        lease: Opens the index.
        settings: Arguments of the searches.
        console: Where hits are shown.
        errors: Where warnings and errors are.
        explain: Show the numbers behind every hit.
        footer: Show timings after every query.
    """

    def __init__(
        self,
        lease: IndexLease,
        settings: Settings,
        console: Console,
        errors: Console,
        *,
        explain: bool = False,
        footer: bool = True,
    ) -> None:
        self._lease = lease
        self.settings = settings
        self._console = console
        self._errors = errors
        self._explain = explain
        self._footer = footer
        self._results: Results | None = None
        self._shown: list[Hit] = []
        self._times: list[Timings] = []
        self._commands: dict[str, Callable[[str], None]] = {
            ":more": self._more,
            ":explain": self._explained,
            ":show": self._show,
            ":set": self._set,
            ":timings": self._timings,
            ":help": self._help,
        }

    def handle(self, line: str) -> bool:
        """Do what a line says; whatever goes wrong is told, and the session goes on.

        Args:
            line: As typed; line breaks of something that was pasted count as blanks.

        Returns:
            Whether the session goes on.
        """
        text = " ".join(line.split())
        try:
            if line.startswith(":"):
                name, _, rest = text.partition(" ")
                name = _ALIASES.get(name, name)
                if name == ":quit":
                    return False
                if name not in self._commands:
                    raise ValueError(f"there is no command {name}; :help lists them")
                self._commands[name](rest.strip())
            elif text:
                self._search(text)
            elif self._results is not None:
                self._more("")
        except (ValueError, RetrievalError, OSError) as error:
            self._errors.print(f"error: {error}", style="red")
        except KeyboardInterrupt:
            self._errors.print("stopped", style="yellow")
        return True

    def _search(self, query: str) -> None:
        with self._lease.use() as pipeline:
            results = pipeline.search(query, self.settings.values.get("top_k"), **self.settings.arguments())
            self._results, self._shown = results, list(results)
            self._times.append(results.timings)
            self._render(pipeline, results, self._explain)
        if self._footer:
            render_footer(self._console, results)
        render_warnings(self._errors, results)

    def _more(self, rest: str) -> None:
        before = self._last()
        page = self.settings.options().top_k
        seen = {hit.passage_id for hit in self._shown}
        with self._lease.use() as pipeline:
            results = pipeline.search(before.query, len(self._shown) + page, **self.settings.arguments())
            new = tuple(hit for hit in results if hit.passage_id not in seen)
            if not new:
                self._console.print("no more hits", style="dim")
                return
            self._shown += new
            self._render(pipeline, replace(results, hits=new), self._explain)

    def _explained(self, rest: str) -> None:
        last = self._last()
        hits = (self._hit(rest),) if rest else tuple(self._shown)
        with self._lease.use() as pipeline:
            self._render(pipeline, replace(last, hits=hits), explained=True)

    def _show(self, rest: str) -> None:
        hit = self._hit(rest)
        last = self._last()
        with self._lease.use() as pipeline:
            spans = matched_spans(pipeline.sparse, last.query, hit.text)
        self._console.print(Text(visible_lines(hit.title) or hit.document_id, style="bold"))
        place = f"{hit.document_id}, characters {hit.start:,}-{hit.end:,}"
        self._console.print(Text(visible_lines(place), style="dim"))
        if hit.read is None:
            self._console.print("the cross-encoder did not read it", style="dim")
        elif hit.read != (0, len(hit.text)):
            self._console.print("the cross-encoder read what stands between ▶ and ◀", style="dim")
        self._console.print()
        self._console.print(_whole(hit, spans))

    def _set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        if name and not value:
            raise ValueError(f":set {name} needs a value, or 'default'")
        if name:
            self.settings.set(name, value.strip())
        table = Table.grid(padding=(0, 2))
        for known, shown, is_set in self.settings.shown():
            if name in {"", known}:
                table.add_row(
                    Text(known, style="bold" if is_set else ""), shown, Text("set here" if is_set else "", "dim")
                )
        self._console.print(table)

    def _timings(self, rest: str) -> None:
        if not self._times:
            raise ValueError("there was no query yet")
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("ms", "last", f"median of {len(self._times):,}"):
            table.add_column(name, justify="left" if name == "ms" else "right")
        for stage in ("encode", "retrieve", "rerank", "total"):
            values = [getattr(timings, stage) for timings in self._times]
            table.add_row(stage, f"{values[-1]:.1f}", f"{median(values):.1f}")
        self._console.print(table)

    def _help(self, rest: str) -> None:
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column()
        for name, meaning in HELP:
            table.add_row(Text(name, style="bold"), meaning)
        self._console.print(table)

    def _last(self) -> Results:
        if self._results is None:
            raise ValueError("there was no query yet")
        return self._results

    def _hit(self, rest: str) -> Hit:
        self._last()
        count = len(self._shown)
        if not rest.isdecimal() or not 1 <= int(rest) <= count:
            shown = f"1 to {count}" if count else "but there are no hits"
            raise ValueError(f"{rest or 'nothing'!r} is not the number of a hit that was shown, {shown}")
        return self._shown[int(rest) - 1]

    def _render(self, pipeline: TwoStagePipeline, results: Results, explained: bool) -> None:
        query = results.query
        terms = query_terms(pipeline.encoder, pipeline.sparse, query) if explained else None
        render_results(
            self._console, results, lambda text: matched_spans(pipeline.sparse, query, text), explained=terms
        )


def _whole(hit: Hit, spans: Sequence[tuple[int, int]]) -> Text:
    """A passage with the words of the query in bold, and marks around what was read of it where that is a part."""
    shown = Text()
    marks = {start: "bold cyan" for start, _ in spans}
    ends = {start: end for start, end in spans}
    read = None if hit.read is None or hit.read == (0, len(hit.text)) else hit.read
    cuts = sorted({0, len(hit.text), *ends, *ends.values(), *(read or ())})
    for start, end in zip(cuts, [*cuts[1:], len(hit.text)], strict=True):
        if read is not None and start == read[1]:
            shown.append("◀", style="bold yellow")
        if read is not None and start == read[0]:
            shown.append("▶", style="bold yellow")
        shown.append(visible_lines(hit.text[start:end]), style=marks.get(start, ""))
    return shown
