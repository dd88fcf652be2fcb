"""The report in a real browser: as wide as a phone, in both languages, and on paper."""

import pytest
from chromium import expect

from evaluation.made_measures import made_measures
from evaluation.made_run import made_run
from weitiao.evaluation.report import write_report


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    run = made_run(tmp_path_factory.mktemp("runs") / "bank-1")
    made_measures(run.evaluation)
    return write_report(run).as_uri()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_is_wider_than_the_screen_nor_loaded(browser, report, width, language):
    page = browser.new_page(viewport={"width": width, "height": 844})
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(report)
    told = {"en": "The tuned model is better.", "zh": "微调后变好了。"}
    if page.locator("html").get_attribute("lang") != language:
        page.click("#language")
    expect(page.locator(".headline")).to_have_text(told[language], use_inner_text=True)
    wider = """() => [...document.querySelectorAll("body *")]
        .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest("svg"))
        .map(e => e.outerHTML)"""
    assert page.evaluate(wider) == []
    assert (asked, errors) == ([report], [])
    page.close()


def test_on_paper_every_answer_is_open(browser, report):
    page = browser.new_page()
    page.goto(report)
    gain = page.locator("details.examples .answers").nth(7)
    expect(gain).to_be_hidden()
    page.emulate_media(media="print")
    expect(gain).to_be_visible()
    page.close()
