"""The playground for everybody: by keyboard and screen reader, dark, on a phone, with a key; and hostile documents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from retrieval.datatypes import Document
from tests.browser import visiting
from tests.conftest import paper_corpus
from tests.playground_page import again, ask, focused, open_page, playground, tides, titles
from tests.service_app import KEY_CONFIG, KEYS, READ, service_config

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

QUERY = "copper pipe leak plumber"
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True}
HOSTILE = '<img src=x onerror="window.broken=1"><script>window.broken=1</script>'
# Longer than the width of a phone, without a place to break.
UNBREAKABLE = "x" * 400

# Names as a screen reader finds them, and texts whose contrast to their ground is below 4.5 (3 where they are large).
AUDIT = """() => {
    const problems = [];
    const seen = (node) => node.checkVisibility({opacityProperty: true, visibilityProperty: true});
    const ids = [...document.querySelectorAll('[id]')].map((node) => node.id);
    ids.filter((id, at) => ids.indexOf(id) !== at).forEach((id) => problems.push(`id ${id} twice`));
    const text = (refs) => refs.split(' ').map((id) => document.getElementById(id)?.textContent ?? '').join(' ');
    const name = (node) => (node.getAttribute('aria-labelledby') && text(node.getAttribute('aria-labelledby')))
        || node.getAttribute('aria-label') || [...(node.labels ?? [])].map((label) => label.textContent).join(' ')
        || (node.matches('input, textarea') ? '' : node.textContent);
    const needy = 'button, input, textarea, select, a[href], summary, output, progress, dialog[open], section, aside, '
        + '[role=group], [role=region], fieldset legend';
    for (const node of document.querySelectorAll(needy)) {
        if (seen(node) && !name(node).trim()) problems.push(`no name: ${node.outerHTML.slice(0, 120)}`);
    }
    for (const attribute of ['aria-labelledby', 'aria-describedby', 'for']) {
        for (const node of document.querySelectorAll(`[${attribute}]`)) {
            for (const id of node.getAttribute(attribute).split(' ')) {
                if (!document.getElementById(id)) problems.push(`${attribute} leads nowhere: ${id}`);
            }
        }
    }
    const heads = [...document.querySelectorAll('h1, h2, h3, h4')].filter(seen).map((node) => Number(node.tagName[1]));
    heads.forEach((level, at) => {
        if (level > (heads[at - 1] ?? 0) + 1) problems.push(`heading h${level} after h${heads[at - 1]}`);
    });
    for (const landmark of ['main', 'h1', 'header', 'footer', 'search', 'aside']) {
        if (document.querySelectorAll(landmark).length !== 1) problems.push(`not one ${landmark}`);
    }
    if (!document.documentElement.lang) problems.push('no language');

    const rgb = (color) => {
        const context = new OffscreenCanvas(1, 1).getContext('2d');
        context.fillStyle = color;
        context.fillRect(0, 0, 1, 1);
        return [...context.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
        .map((part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
    const ground = (node) => {
        for (let at = node; at; at = at.parentElement) {
            const color = rgb(getComputedStyle(at).backgroundColor);
            if (color[3] === 255) return color;
        }
        return [255, 255, 255, 255];
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    let measured = 0;
    while (walker.nextNode()) {
        const node = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !seen(node) || node.closest('.unseen, .skip, noscript')) continue;
        const style = getComputedStyle(node);
        const [one, other] = [light(rgb(style.color)), light(ground(node))].sort((a, b) => b - a);
        const contrast = (one + 0.05) / (other + 0.05);
        measured += 1;
        if (contrast < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) {
            const text = walker.currentNode.data.trim().slice(0, 40);
            problems.push(`contrast ${contrast.toFixed(2)}: ${node.className} ${text}`);
        }
    }
    return {problems, measured};
}"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    hostile = Document(
        id="</p><b>id</b>", text=f"zeppelin {HOSTILE} {UNBREAKABLE}", title=HOSTILE, metadata={HOSTILE: HOSTILE}
    )
    documents = [*paper_corpus(), *tides()[:2], hostile]
    with playground(tmp_path_factory.mktemp("access") / "index", documents) as address:
        yield address


def audit(page: Page) -> None:
    found = page.evaluate(AUDIT)
    assert found["problems"] == []
    assert found["measured"] > 30


def open_details(page: Page) -> None:
    page.evaluate("() => document.querySelectorAll('details').forEach((details) => { details.open = true; })")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_has_a_name_and_enough_contrast(chromium: Browser, url: str, scheme: str) -> None:
    with visiting(chromium, color_scheme=scheme) as visit:
        open_page(visit.page, url)
        audit(visit.page)
        ask(visit.page, "copper pipe without leak")
        open_details(visit.page)
        visit.page.locator("#final button.title").first.click()
        visit.page.fill("#where", "{")
        audit(visit.page)


def test_the_audit_finds_what_is_wrong(chromium: Browser) -> None:
    with visiting(chromium) as visit:
        visit.page.set_content(
            "<html><body><h1>Title</h1><h3>Deep</h3><button></button><input id=a><p id=a>twice</p>"
            "<p style='color: #999'>pale</p><span aria-labelledby=nowhere></span></body></html>"
        )
        problems = " | ".join(visit.page.evaluate(AUDIT)["problems"])
    for expected in (
        "id a twice",
        "no name: <button",
        "no name: <input",
        "h3 after h1",
        "contrast 2.85: ",
        "nowhere",
        "not one main",
    ):
        assert expected in problems


def test_the_keyboard_is_enough(chromium: Browser, url: str) -> None:
    with visiting(chromium) as visit:
        page = visit.page
        open_page(page, url)
        page.keyboard.press("/")
        assert focused(page).get_attribute("id") == "query"
        answer = ask(page, QUERY)
        final, press = titles(page, "final"), page.keyboard.press
        assert len(final) == len(answer["hits"]) > 3
        press("ArrowDown")
        assert focused(page).inner_text() == final[0]
        press("ArrowDown")
        press("ArrowDown")
        assert focused(page).inner_text() == final[2]
        press("ArrowLeft")
        assert focused(page).inner_text() == final[2]
        assert focused(page).evaluate("node => node.closest('ol').id") == "first"
        assert page.locator("#lines path.pointed").count() == 1
        press("ArrowRight")
        assert focused(page).evaluate("node => node.closest('ol').id") == "final"
        press("Enter")
        assert focused(page).get_attribute("aria-expanded") == "true"
        press("End")
        assert focused(page).inner_text() == final[-1]
        press("Home")
        press("ArrowUp")
        assert focused(page).get_attribute("id") == "query"
        press("ArrowDown")
        press("Escape")
        assert focused(page).get_attribute("id") == "query"
        press("Escape")
        assert page.input_value("#query") == ""
        page.wait_for_selector("#empty:not([hidden])")
        assert page.locator("#compare").is_hidden()


def test_tab_leads_through_the_page_and_the_focus_is_seen(chromium: Browser, url: str) -> None:
    with visiting(chromium) as visit:
        page = visit.page
        open_page(page, url)
        ask(page, QUERY)
        page.focus(".skip")
        reached = []
        for _ in range(60):
            page.keyboard.press("Tab")
            where = page.evaluate(
                """() => {
                    const node = document.activeElement;
                    const shown = node.matches('.segments input') ? node.nextElementSibling : node;
                    const {outlineStyle, outlineWidth} = getComputedStyle(shown);
                    const name = node.id || node.name || node.closest('ol')?.id || node.textContent;
                    return [node === document.body, name, outlineStyle !== 'none' && parseFloat(outlineWidth) >= 1];
                }"""
            )
            if where[0]:
                break
            reached.append(where[1:])
        names = [name for name, _ in reached]
        assert [name for name, visible in reached if not visible] == []
        assert {
            "query",
            "theme-button",
            "set-budget_ms",
            "set-first_stage",
            "where",
            "choose",
            "first",
            "final",
        } <= set(names)
        assert (names.count("first"), names.count("final")) == (1, 1)
        assert names.index("query") < names.index("where") < names.index("first") < names.index("final")


def test_changes_are_told_to_those_who_do_not_see_them(chromium: Browser, url: str) -> None:
    with visiting(chromium) as visit:
        open_page(visit.page, url)
        ask(visit.page, QUERY)
        for place, role in (("#status", "status"), ("#problem", "alert"), ("#where-state", "status")):
            assert visit.page.get_attribute(place, "role") == role
        for place in ("#warnings", "#jobs"):
            assert visit.page.get_attribute(place, "aria-live") == "polite"
        assert visit.page.get_attribute("#lines", "aria-hidden") == "true"
        heads = visit.page.locator("#table-head th").all_text_contents()
        assert heads[:3] == ["Now", "Before", "Moved"]
        assert visit.page.locator("table caption").count() == 1


def test_the_theme_follows_the_system_until_one_is_chosen(chromium: Browser, url: str) -> None:
    def ground(page: Page) -> int:
        color: str = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in color.removeprefix("rgb(").rstrip(")").split(","))

    with visiting(chromium, color_scheme="dark") as visit:
        page = visit.page
        open_page(page, url)
        assert ground(page) < 150
        page.click("#theme-button")
        assert (page.inner_text("#theme-button"), ground(page) > 600) == ("Theme: light", True)
        page.reload()
        page.wait_for_selector("#facts dd")
        assert (page.inner_text("#theme-button"), ground(page) > 600) == ("Theme: light", True)
        page.click("#theme-button")
        page.emulate_media(color_scheme="light")
        assert (page.inner_text("#theme-button"), ground(page) < 150) == ("Theme: dark", True)


def test_a_phone_shows_one_column_at_a_time_and_never_scrolls_sideways(chromium: Browser, url: str) -> None:
    def overflow(page: Page) -> int:
        width: int = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        return width

    with visiting(chromium, **PHONE) as visit:
        page = visit.page
        open_page(page, url)
        assert overflow(page) <= 0
        for query in (QUERY, "zeppelin"):
            ask(page, query)
            assert overflow(page) <= 0
            assert page.locator("#final").is_visible()
            assert page.locator("#first").is_hidden()
            assert page.locator("#lines").is_hidden()
            page.locator("#final button.title").first.click()
            page.click("button[data-shows=first]")
            assert page.locator("#first").is_visible()
            assert page.locator("#final").is_hidden()
            assert overflow(page) <= 0
            page.click("button[data-shows=final]")
        open_details(page)
        assert overflow(page) <= 0
        audit(page)


def test_who_wants_no_motion_gets_none(chromium: Browser, url: str) -> None:
    with visiting(chromium, reduced_motion="reduce") as visit:
        open_page(visit.page, url)
        ask(visit.page, QUERY)
        moving = visit.page.evaluate(
            """() => [...document.querySelectorAll('*')].filter((node) => {
                const style = getComputedStyle(node);
                return style.transitionDuration !== '0s' || style.animationName !== 'none';
            }).length"""
        )
        assert moving == 0


def test_markup_in_a_document_stays_text(chromium: Browser, url: str) -> None:
    with visiting(chromium) as visit:
        page = visit.page
        open_page(page, url)
        ask(page, "zeppelin")
        page.locator("#final button.title").first.click()
        card = page.locator("#final .card").first.evaluate("node => node.innerText")
        assert titles(page, "final")[0] == HOSTILE
        assert card.count(HOSTILE) >= 4  # title, text, name and value of the metadata
        assert "</p><b>id</b>" in card
        assert page.locator("img").count() == page.locator("body script").count() == 0
        assert page.evaluate("() => window.broken") is None


def test_a_name_of_a_file_and_a_query_stay_text(chromium: Browser, url: str, tmp_path: Path) -> None:
    with visiting(chromium) as visit:
        page = visit.page
        open_page(page, url)
        name = "<img src=x onerror=alert(1)>.txt"
        (tmp_path / name).write_text("a harmless hovercraft", encoding="utf-8")
        page.set_input_files("#files", [tmp_path / name])
        page.wait_for_selector(".job.done")
        assert page.inner_text(".job b") == name
        ask(page, f"{HOSTILE} hovercraft")
        page.click("#as-request summary")
        assert "onerror" in page.inner_text("#request")
        assert page.locator("img").count() == 0


def test_the_page_cannot_make_markup_of_strings_or_run_them(chromium: Browser, url: str) -> None:
    with visiting(chromium) as visit:
        visit.expect("TrustedHTML|Content Security Policy")
        open_page(visit.page, url)
        for attempt in (
            "() => { document.body.innerHTML = '<b>x</b>'; }",
            "() => fetch('https://example.org/')",
        ):
            with pytest.raises(Exception, match=r"TrustedHTML|Content Security Policy|Failed to fetch"):
                visit.page.evaluate(attempt)


@pytest.fixture
def with_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with playground(tmp_path / "index", paper_corpus(), service_config(keys=KEY_CONFIG)) as address:
        yield address


def test_a_service_with_keys_is_asked_with_the_one_that_was_typed(chromium: Browser, with_keys: str) -> None:
    with visiting(chromium) as visit:
        page = visit.page
        visit.expect("401")
        page.goto(with_keys)
        page.wait_for_selector("#key-dialog[open]")
        assert page.inner_text("#key-why") == "This service asks for a key."
        page.fill("#key", "not-the-key-0123456789")
        page.keyboard.press("Enter")
        page.wait_for_selector("#key-dialog[open] #key-why:has-text('does not know this key')")
        page.fill("#key", READ)
        page.keyboard.press("Enter")
        page.wait_for_selector("#facts dd")
        assert page.locator("#adding").is_hidden()  # a key for reading
        assert ask(page, QUERY)["hits"][0]["document_id"] == "pipe-1"
        assert "Bearer $RETRIEVAL_KEY" in (page.text_content("#request") or "")
        assert READ not in page.url
        kept = page.evaluate("() => [JSON.stringify(sessionStorage), JSON.stringify(localStorage), document.cookie]")
        assert [READ in place for place in kept] == [True, False, False]
        page.click("#key-button")
        page.click("#key-forget")
        page.wait_for_selector("#key-dialog[open]")
        assert page.evaluate("() => sessionStorage.length") == 0


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (403, "Not allowed: because."),
        (429, "The service is busy: because. Try again in 7 s."),
        (503, "The service cannot do this now: because. Try again in 7 s."),
        (500, "The service refused (500): because."),
        (0, "The service cannot be reached. Is it still running?"),
    ],
)
def test_refusals_are_sentences_with_a_way_on(chromium: Browser, url: str, status: int, sentence: str) -> None:
    with visiting(chromium) as visit:
        page = visit.page
        visit.expect(rf"{status}|ERR_FAILED")
        open_page(page, url)
        problem = {"status": status, "json": {"detail": "because"}, "headers": {"Retry-After": "7"}}
        page.route("**/v1/search", lambda route: route.fulfill(**problem) if status else route.abort())
        page.fill("#query", QUERY)
        page.wait_for_selector("#problem:not([hidden])")
        assert page.inner_text("#problem p") == sentence
        page.unroute("**/v1/search")
        again(page, lambda: page.get_by_role("button", name="Try again").click())
        assert page.locator("#problem").is_hidden()
