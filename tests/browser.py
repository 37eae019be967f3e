"""Chromium for tests of pages: nothing outside this machine is reached, and whatever the page complains about fails.

The fixture `chromium` is one for each module, not one for all tests: as long as it is open, the synchronous API of
Playwright keeps an event loop running in this thread, in which no other test could run one.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Route

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NO_CHROMIUM = f"none of {', '.join(NAMES)} is installed; 'apt-get install chromium' brings one, or set CHROMIUM"
_LOCAL = {"127.0.0.1", "localhost", "::1"}
_DEADLINE_MS = 20_000
_SWITCHES = [
    "--no-sandbox",  # root in a container has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]


def find_chromium() -> str | None:
    """Path of a Chromium: what ``CHROMIUM`` names, or the first that is installed; ``None`` for none."""
    named = os.environ.get("CHROMIUM")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def launched() -> Iterator[Browser]:
    """A headless Chromium; the test is skipped where there is none."""
    program = find_chromium()
    if program is None:
        pytest.skip(NO_CHROMIUM)
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=_SWITCHES)
        try:
            yield browser
        finally:
            browser.close()


@dataclass(slots=True)
class Visit:
    """A page, and what went wrong on it.

    Args:
        page: The page.
        expected: Patterns of complaints that the test brings about on purpose.
        problems: Requests that would have left this machine, errors of scripts, errors on the console.
    """

    page: Page
    expected: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def expect(self, pattern: str) -> None:
        """Let complaints pass that match a regular expression."""
        self.expected.append(pattern)

    def unexpected(self) -> list[str]:
        """The problems that nobody expected."""
        return [one for one in self.problems if not any(re.search(pattern, one) for pattern in self.expected)]

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.problems.append(f"console {message.type}: {message.text}")

    def _on_request(self, route: Route, request: Request) -> None:
        place = urlsplit(request.url)
        if place.scheme in {"http", "https", "ws", "wss"} and place.hostname not in _LOCAL:
            self.problems.append(f"request to {request.url}")
            route.abort()
        else:
            route.fallback()


@contextmanager
def visiting(browser: Browser, **context: Any) -> Iterator[Visit]:
    """A page of its own, with no cookies and no storage; at the end nothing may have gone wrong on it.

    Args:
        browser: What `launched` gives.
        context: Arguments of `Browser.new_context`, such as ``viewport`` and ``color_scheme``.
    """
    # A service worker would fetch behind the back of what is checked here.
    opened = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "service_workers": "block", **context})
    try:
        opened.set_default_timeout(_DEADLINE_MS)
        page = opened.new_page()
        visit = Visit(page)
        page.on("console", lambda message: visit._on_console(message))
        page.on("pageerror", lambda error: visit.problems.append(f"error: {error}"))
        opened.route("**/*", lambda route, request: visit._on_request(route, request))
        yield visit
        assert visit.unexpected() == []
    finally:
        opened.close()
