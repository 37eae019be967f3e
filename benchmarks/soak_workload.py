"""Mixed load that arrives at random and remembers what was acknowledged: searches, ingests, replacements, deletions.

A piece of work that is due waits for a free thread, and its time counts from the moment it was due: a stall is seen by
everything that should have happened meanwhile. The number of documents stays within bounds, so that memory that grows
is memory that was not given back.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import httpx

from pipelines import TwoStagePipeline
from pipelines.stored_document import joined_text, read_document
from retrieval.datatypes import Document

DOCUMENTS_A_TIME = 5
_WORD = "zzsoak"


class Target(Protocol):
    """What is put under load."""

    def search(self, query: str, *, read: bool) -> list[str]:
        """Ids of the documents found; ``read`` has the cross-encoder read them."""

    def ingest(self, documents: Mapping[str, str]) -> int:
        """Add or replace documents, texts by id; how many were acknowledged."""

    def delete(self, ids: Sequence[str]) -> int:
        """Remove documents; how many were."""

    def text(self, name: str) -> str | None:
        """The stored text of a document, ``None`` where there is none."""


class EngineTarget:
    """A pipeline over an embedded index in this process.

    Args:
        pipeline: Open pipeline.
    """

    def __init__(self, pipeline: TwoStagePipeline) -> None:
        self._pipeline = pipeline

    def search(self, query: str, *, read: bool) -> list[str]:
        """See `Target.search`."""
        return [hit.document_id for hit in self._pipeline.search(query, rerank=read).hits]

    def ingest(self, documents: Mapping[str, str]) -> int:
        """See `Target.ingest`."""
        report = self._pipeline.ingest([Document(id=name, text=text) for name, text in documents.items()])
        return report.added + report.changed

    def delete(self, ids: Sequence[str]) -> int:
        """See `Target.delete`."""
        return self._pipeline.delete(list(ids))

    def text(self, name: str) -> str | None:
        """See `Target.text`."""
        found = read_document(self._pipeline, name)
        return None if found is None else joined_text(found.passages)


class ServiceTarget:
    """The service behind a URL; every thread has a connection of its own.

    Args:
        url: Address without a slash at its end.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._local = threading.local()

    def search(self, query: str, *, read: bool) -> list[str]:
        """See `Target.search`."""
        found = self._client.post("/v1/search", json={"query": query, "rerank": read}).raise_for_status()
        return [hit["document_id"] for hit in found.json()["hits"]]

    def ingest(self, documents: Mapping[str, str]) -> int:
        """See `Target.ingest`."""
        body = {"documents": [{"id": name, "text": text} for name, text in documents.items()]}
        answer = self._client.post("/v1/ingest", params={"wait": "true"}, json=body).raise_for_status()
        report = answer.json()["report"]
        return int(report["added"] + report["changed"])

    def delete(self, ids: Sequence[str]) -> int:
        """See `Target.delete`."""
        answer = self._client.post("/v1/documents/delete", json={"ids": list(ids)}).raise_for_status()
        return int(answer.json()["removed"])

    def text(self, name: str) -> str | None:
        """See `Target.text`."""
        answer = self._client.get(f"/v1/documents/{name}")
        if answer.status_code == 404:
            return None
        return str(answer.raise_for_status().json()["text"])

    @property
    def _client(self) -> httpx.Client:
        if not hasattr(self._local, "client"):
            self._local.client = httpx.Client(base_url=self._url, timeout=60)
        client: httpx.Client = self._local.client
        return client


@dataclass(frozen=True, slots=True)
class Rates:
    """How often each piece of work is due, a second.

    Args:
        search: Hybrid searches without reading.
        two_stage: Searches with reading.
        check: Searches for a document that was acknowledged, and for one that was deleted.
        ingest: Ingests of new documents.
        replace: Ingests of known ids with new texts.
        delete: Deletions, of twice as many documents as an ingest adds, once there are enough.
    """

    search: float = 8.0
    two_stage: float = 0.5
    check: float = 2.0
    ingest: float = 1.6
    replace: float = 0.4
    delete: float = 1.6


@dataclass(slots=True)
class Seen:
    """What a stretch of time brought; taken and begun anew by `Workload.take`."""

    ms: dict[str, list[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Workload:
    """Puts a target under load in threads of its own.

    Args:
        target: What is loaded.
        queries: Asked in turn.
        rates: How often what is due.
        most: Documents of the workload from which on there are deletions, of twice as many as an ingest adds.
        seed: Of arrivals and texts.
    """

    def __init__(
        self, target: Target, queries: Sequence[str], rates: Rates | None = None, most: int = 500, seed: int = 0
    ) -> None:
        self._target, self._queries, self._rates, self._most = target, queries, rates or Rates(), most
        self._seed = seed
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._ended = threading.Event()
        self._number = 0
        self._asked = 0
        self._seen = Seen()
        self.stored: dict[str, str] = {}
        self.deleted: deque[str] = deque(maxlen=500)

    @contextmanager
    def running(self) -> Iterator[Workload]:
        """Load for as long as the block lasts."""
        work = {
            "search": self._search,
            "two_stage": self._two_stage,
            "check": self._check,
            "ingest": self._ingest,
            "replace": self._replace,
            "delete": self._delete,
        }
        threads = [
            threading.Thread(target=self._repeat, args=(name, act, getattr(self._rates, name), at))
            for at, (name, act) in enumerate(work.items())
            if getattr(self._rates, name)
        ]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()

    def take(self) -> Seen:
        """What was seen since the last call."""
        with self._lock:
            seen, self._seen = self._seen, Seen()
        return seen

    def lost(self) -> list[str]:
        """Documents that were acknowledged and are not there as they were written, or are there and were deleted."""
        wrong = [f"lost {name}" for name, text in self.stored.items() if self._target.text(name) != text]
        return wrong + [f"risen {name}" for name in self.deleted if self._target.text(name) is not None]

    def _repeat(self, name: str, act: Callable[[random.Random], bool | None], rate: float, at: int) -> None:
        chance = random.Random(self._seed * 97 + at)
        due = time.monotonic() + chance.expovariate(rate)
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            done: bool | None = True
            try:
                done = act(chance)
            except Exception as error:  # every kind is a finding
                self._note(lambda seen, error=error: seen.errors.append(f"{name}: {error!r}"[:300]))
            spent = (time.monotonic() - due) * 1000
            if done is not False:
                self._note(lambda seen, spent=spent: seen.ms.setdefault(name, []).append(spent))
            due += chance.expovariate(rate)

    def _note(self, write: Callable[[Seen], None]) -> None:
        with self._lock:
            write(self._seen)

    def _query(self) -> str:
        with self._lock:
            self._asked += 1
            return self._queries[self._asked % len(self._queries)]

    def _search(self, _chance: random.Random) -> None:
        if not self._target.search(self._query(), read=False):
            self._note(lambda seen: seen.wrong.append("a search found nothing"))

    def _two_stage(self, _chance: random.Random) -> None:
        if not self._target.search(self._query(), read=True):
            self._note(lambda seen: seen.wrong.append("a two-stage search found nothing"))

    def _check(self, chance: random.Random) -> None:
        with self._writing:  # between two writes: what is looked for is there, what is gone is gone
            if self.stored:
                name = chance.choice(list(self.stored))
                if self._target.search(self.stored[name].split()[0], read=False)[:1] != [name]:
                    self._note(lambda seen: seen.wrong.append(f"{name} was acknowledged and is not found"))
            if self.deleted:
                name = chance.choice(self.deleted)
                if self._target.text(name) is not None:
                    self._note(lambda seen: seen.wrong.append(f"{name} was deleted and is there"))

    def _text(self, name: str, chance: random.Random) -> str:
        words = " ".join(chance.choice(self._queries) for _ in range(8))
        return f"{_WORD}{name.replace('-', 'x')} {words} {chance.random()}"

    def _ingest(self, chance: random.Random) -> None:
        names = [f"soak-{self._number + at}" for at in range(DOCUMENTS_A_TIME)]
        self._number += DOCUMENTS_A_TIME
        self._write({name: self._text(name, chance) for name in names})

    def _replace(self, chance: random.Random) -> bool:
        """Whether there was something to replace."""
        with self._writing:
            names = chance.sample(list(self.stored), min(DOCUMENTS_A_TIME, len(self.stored)))
            if names:
                self._store({name: self._text(name, chance) for name in names})
        return bool(names)

    def _write(self, documents: dict[str, str]) -> None:
        with self._writing:
            self._store(documents)

    def _store(self, documents: dict[str, str]) -> None:
        acknowledged = self._target.ingest(documents)
        if acknowledged == len(documents):
            self.stored.update(documents)
        else:
            self._note(lambda seen: seen.wrong.append(f"{acknowledged} of {len(documents)} acknowledged"))

    def _delete(self, chance: random.Random) -> bool:
        """Whether there were enough to delete some."""
        with self._writing:
            if len(self.stored) < self._most:
                return False
            gone = chance.sample(list(self.stored), 2 * DOCUMENTS_A_TIME)
            removed = self._target.delete(gone)
            for name in gone:
                del self.stored[name]
            self.deleted.extend(gone)
            if removed != len(gone):
                self._note(lambda seen: seen.wrong.append(f"{removed} of {len(gone)} removed"))
        return True
