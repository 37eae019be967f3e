"""How many requests a key may make: a bucket of tokens for each, filled at its rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pipelines.service.config import KeyConfig
from pipelines.service.context import Principal
from pipelines.service.errors import saturated


@dataclass(slots=True)
class _Bucket:
    rate: float
    burst: float
    tokens: float
    at: float

    def take(self, now: float) -> float:
        """Seconds until the next token; 0 when one was taken."""
        self.tokens = min(self.burst, self.tokens + max(0.0, now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1.0:
            return (1.0 - self.tokens) / self.rate
        self.tokens -= 1.0
        return 0.0


class Rates:
    """Refuses the requests of a key that come faster than its rate; used from the event loop only.

    Args:
        configs: Keys, those with a rate and others.
        clock: Seconds, never going back.
    """

    def __init__(self, configs: Iterable[KeyConfig], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets = {
            config.env: _Bucket(config.rate, config.most_at_once, config.most_at_once, clock())
            for config in configs
            if config.rate is not None
        }

    def check(self, principal: Principal) -> None:
        """Count a request.

        Raises:
            ServiceError: 429 with the seconds to wait; the request does not count.
        """
        bucket = self._buckets.get(principal.name)
        wait = 0.0 if bucket is None else bucket.take(self._clock())
        if wait > 0:
            raise saturated("rate", "this key makes more requests than its rate allows", wait)
