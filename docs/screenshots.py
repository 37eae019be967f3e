"""Make the pictures of the documentation: the playground, the report of an evaluation, the terminal.

Everything on them is real output, over the index that `retrieval demo` makes of the documentation of Python:

    python docs/screenshots.py [--index DIR] [--only NAME ...]

The report is the committed one, ``benchmarks/evaluation.html``. Needs Chromium and the package playwright.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.browser import launched, visiting

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

IMAGES = Path(__file__).parent / "images"
REPORT = Path(__file__).resolve().parents[1] / "benchmarks" / "evaluation.html"
MOST_BYTES = 200_000
COLUMNS = 80
QUESTION = "run an external command and get its output"
NEGATED = "close a file without a with block"
DESKTOP: dict[str, Any] = {"viewport": {"width": 1360, "height": 900}}
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2}
WIDE: dict[str, Any] = {"viewport": {"width": 1000, "height": 1000}}
COMMANDS = {
    "terminal-search": ["search", QUESTION, "--top-k", "3"],
    "terminal-explain": ["search", "pick a random element from a list", "--explain", "--top-k", "3"],
    "terminal-info": ["info"],
}


def main() -> None:
    """Make the pictures that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, help="an index that 'retrieval demo --keep' has made")
    parser.add_argument("--only", nargs="+", choices=["playground", "report", "terminal"])
    given = parser.parse_args()
    wanted = given.only or ["playground", "report", "terminal"]
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        index = given.index or _demo_index(Path(folder))
        with launched() as browser:
            if "playground" in wanted:
                playground(browser, index)
            if "terminal" in wanted:
                terminal(browser, index)
            if "report" in wanted:
                report(browser)


def playground(browser: Browser, index: Path) -> None:
    """The page at /: light and dark, with a budget and a negation, and on a phone."""
    with _service(index) as url:
        for name, context, question, settings in (
            ("playground-light", DESKTOP, QUESTION, ""),
            ("playground-dark", {**DESKTOP, "color_scheme": "dark"}, NEGATED, "&budget_ms=300"),
            ("playground-phone", PHONE, QUESTION, ""),
        ):
            with visiting(browser, **context) as visit:
                visit.page.goto(f"{url}/#q={question.replace(' ', '+')}{settings}")
                visit.page.wait_for_selector("#final .card", timeout=60_000)
                visit.page.wait_for_selector("#results[aria-busy=false]")
                if name == "playground-light":  # warm by now: the times are those of searching, not of loading
                    _settle(visit.page)
                save(name, visit.page.screenshot())


def _settle(page: Page) -> None:
    with page.expect_response(lambda answer: '"rerank":true' in (answer.request.post_data or "")):
        page.press("#query", "Enter")
    page.wait_for_selector("#results[aria-busy=false]")
    page.locator("#final button.title").nth(1).hover()


def terminal(browser: Browser, index: Path) -> None:
    """Commands as they look in a terminal of 80 columns."""
    for name, words in COMMANDS.items():
        command = [*words, "--index", str(index)]
        shown = f"$ retrieval {' '.join(_quoted(word) for word in words)}\n"
        drawing = _drawing(shown + _run(command, environment={"FORCE_COLOR": "1"}))
        with visiting(browser, viewport={"width": 1000, "height": 700}) as visit:
            visit.page.set_content(f"<body style='margin:0'>{drawing}</body>")
            save(name, visit.page.locator("svg").screenshot())


def report(browser: Browser) -> None:
    """The top of the HTML report of `retrieval evaluate`."""
    with visiting(browser, **WIDE) as visit:
        visit.page.goto(REPORT.as_uri())
        save("report", visit.page.screenshot())


def save(name: str, picture: bytes) -> None:
    """Keep a picture with as few colours as it needs, below 200 kB."""
    from PIL import Image

    target = IMAGES / f"{name}.png"
    image = Image.open(BytesIO(picture)).convert("RGB")
    for colors in (256, 128, 64, 32):
        image.quantize(colors, dither=Image.Dither.NONE).save(target, optimize=True)
        if target.stat().st_size < MOST_BYTES:
            print(f"{target.name}: {image.width} x {image.height}, {target.stat().st_size:,} bytes, {colors} colours")
            return
    raise SystemExit(f"{target} has {target.stat().st_size:,} bytes, more than {MOST_BYTES:,}; make it smaller")


def _demo_index(folder: Path) -> Path:
    _run(["demo", "--keep", str(folder / "index")])
    return folder / "index"


def _run(words: Sequence[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *words],
        env={**os.environ, "COLUMNS": str(COLUMNS), "LINES": "50", "TERM": "xterm-256color", **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


@contextmanager
def _service(index: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "pipelines", "serve", "--port", "0", "--json", "--index", str(index)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        text = ""
        while not text.rstrip().endswith("}"):
            line = process.stdout.readline()
            if not line:
                raise SystemExit("the service did not start; run 'retrieval serve' to see why")
            text += line
        yield json.loads(text)["url"]
    finally:
        process.terminate()
        process.wait()


def _drawing(text: str) -> str:
    """Coloured output as an SVG drawing that loads no font."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(text.rstrip()), soft_wrap=True)
    drawing = console.export_svg(title="retrieval")
    return re.sub(r"@font-face\s*{.*?}", "", drawing, flags=re.DOTALL).replace("Fira Code", "Liberation Mono")


def _quoted(word: str) -> str:
    return f'"{word}"' if " " in word else word


if __name__ == "__main__":
    main()
