"""The report in a real browser: as wide as a phone, in both languages, and on paper."""

import shutil

import pytest
from made_measures import made_measures
from made_run import made_run

from weitiao.evaluation.report import write_report

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (apt-get install chromium)")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    run = made_run(tmp_path_factory.mktemp("runs") / "bank-1")
    made_measures(run.evaluation)
    return write_report(run).as_uri()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_is_wider_than_the_screen_nor_loaded(browser, report, width, language):
    page = browser.new_page(viewport={"width": width, "height": 844})
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(report)
    if page.evaluate("document.documentElement.lang") != language:
        page.click("#language")
    wider = """() => [...document.querySelectorAll("body *")]
        .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest("svg"))
        .map(e => e.outerHTML)"""
    assert page.evaluate(wider) == []
    shown = page.locator(".headline").inner_text()
    assert shown == ("The tuned model is better." if language == "en" else "微调后变好了。")
    assert (asked, errors) == ([report], [])
    page.close()


def test_on_paper_every_answer_is_open(browser, report):
    page = browser.new_page()
    page.goto(report)
    gain = page.locator("details.examples .answers").nth(7)
    assert not gain.is_visible()
    page.emulate_media(media="print")
    assert gain.is_visible()
    page.close()
