"""The review page in a real browser: by keys and by touch, in both languages, large and small."""

import threading
from contextlib import ExitStack, contextmanager

import pytest
from chromium import DESKTOP, expect, is_dark, picture

from people_runs import HOSTILE, people_run
from weitiao.api import people
from weitiao.evaluation.people import Store
from weitiao.words import set_language

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
ROWS = 4


@pytest.fixture
def run(tmp_path):
    return people_run(tmp_path / "tea", ROWS)


@contextmanager
def reviewed(run, **options):
    """Serve the page for a run; yields its address."""
    with people.reviewing([run], people.match([run]), 0, **options) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.address
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def review(run):
    """Serve the page anew, with options; the servers end with the test."""
    with ExitStack() as ends:
        yield lambda **options: ends.enter_context(reviewed(run, **options))
    set_language("en")


def enter(page, name):
    page.get_by_label("Your name").fill(name)
    page.get_by_role("button", name="Start").click()


def votes(run):
    store = Store(run.evaluation / "review.sqlite")
    try:
        return store.votes()
    finally:
        store.close()


def shown_done(page, done):
    expect(page.locator("#count")).to_have_text(f"{done} of {ROWS}")


def prefer_minutes(page):
    """Return the key of the answer that names the minutes: the tuned model's."""
    return "1" if "分钟。" in page.locator("#a .text").inner_text() else "3"


def test_a_whole_review_by_keys(run, review, visit):
    page = visit(review())
    picture(page, "review-start")
    enter(page, "李雷")
    for done in range(ROWS):
        shown_done(page, done)
        key = prefer_minutes(page)
        better, worse = ("qwe", "iop") if key == "1" else ("iop", "qwe")
        page.keyboard.press({"1": "ArrowLeft", "3": "ArrowRight"}[key] if done else key)
        for mark in f"{better}{worse}{worse}":  # twice is no
            page.keyboard.press(mark)
        page.keyboard.press("c")
        page.keyboard.type("q1 时间说清楚了")
        page.keyboard.press("Escape")
        if not done:
            picture(page, "review-row")
        page.keyboard.press("Enter")
    expect(page.get_by_text("That was the last row")).to_be_visible()
    page.get_by_role("button", name="Show the result").click()
    expect(page.locator("#headline")).to_contain_text("tuned is better on 4 of 4")
    picture(page, "review-end")
    found = votes(run)
    assert [v.better for v in found] == ["other"] * ROWS
    assert {(v.one, v.other) for v in found} == {((False,) * 3, (True,) * 3)}
    assert {v.comment for v in found} == {"q1 时间说清楚了"}


def test_a_whole_review_by_touch_on_a_phone_in_chinese(run, review, visit):
    set_language("zh")
    page = visit(review(reviewer="韩梅梅"), **PHONE)
    for done in range(ROWS):
        expect(page.locator("#count")).to_have_text(f"{done}/{ROWS}")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, "the page is wider than the phone"
        for button in page.locator("#choice button").all():
            box = button.bounding_box()
            assert box["height"] >= 44
            assert box["y"] + box["height"] <= 844, "the choice is always within reach"
        letter = {"1": "A", "3": "B"}[prefer_minutes(page)]
        page.get_by_role("button", name=f"{letter} 更好").tap()
        page.get_by_role("button", name=f"回答 {letter}，正确：是").tap()
        if not done:
            picture(page, "review-phone")
        page.get_by_role("button", name="保存，下一条").tap()
    page.get_by_role("button", name="查看结果").tap()
    expect(page.locator("#headline")).to_contain_text("微调后")
    picture(page, "review-phone-end")
    assert [(v.reviewer, v.better) for v in votes(run)] == [("韩梅梅", "other")] * ROWS


def test_a_reload_goes_on_and_back_shows_what_was_said(run, review, visit):
    page = visit(review())
    enter(page, "Li")
    shown_done(page, 0)
    for done, key in enumerate("12", start=1):
        page.keyboard.press(key)
        page.keyboard.press("Enter")
        shown_done(page, done)
    third = page.locator("#turns").inner_text()
    page.reload()
    shown_done(page, 2)
    expect(page.locator("#turns")).to_have_text(third)
    page.keyboard.press("u")
    tie = page.get_by_role("button", name="About the same")
    expect(tie).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("3")
    page.keyboard.press("Enter")
    expect(page.locator("#turns")).to_have_text(third)
    shown_done(page, 2)
    assert len(votes(run)) == 2
    assert votes(run)[-1].better != "tie"


def test_the_language_changes_in_the_middle_and_keys_are_told(review, visit):
    page = visit(review(reviewer="Li"))
    shown_done(page, 0)
    page.keyboard.press("1")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("save and go on")
    picture(page, "review-keys")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="中文").click()
    chosen = page.get_by_role("button", name="A 更好")
    expect(chosen).to_have_attribute("aria-pressed", "true")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    page.reload()
    expect(page.get_by_text("参考答案")).to_be_visible()


def test_what_a_model_wrote_is_text_and_nothing_else(review, visit):
    page = visit(review(reviewer="Li"))
    seen = []
    for done in range(ROWS):
        shown_done(page, done)
        seen += [page.locator(f"#{side} .text").inner_text() for side in "ab"]
        page.keyboard.press("2")
        page.keyboard.press("Enter")
    expect(page.get_by_text("That was the last row")).to_be_visible()
    assert HOSTILE in seen
    expect(page).to_have_title("Which answer is better?")
    expect(page.locator("main img, main script")).to_have_count(0)


def test_no_answer_of_the_server_names_a_side(run, review, visit):
    page = visit(review())
    replies = []
    page.on("response", lambda reply: replies.append(reply))
    enter(page, "Li")
    for done in range(ROWS):
        shown_done(page, done)
        page.keyboard.press("1")
        page.keyboard.press("Enter")
    expect(page.get_by_text("That was the last row")).to_be_visible()
    heard = [reply.text() for reply in replies]
    assert len(heard) > 2 * ROWS
    assert not [text for text in heard if "base" in text or "tuned" in text or "微调" in text]


def test_one_name_on_two_pages_only_if_that_is_said(review, visit):
    address = review()
    one, other = visit(address), visit(address)
    enter(one, "Li")
    shown_done(one, 0)
    enter(other, "Li")
    expect(other.get_by_role("alert")).to_contain_text("Two reviewers need two names")
    picture(other, "review-same-name")
    other.get_by_role("button", name="That is me").click()
    shown_done(other, 0)
    one.keyboard.press("1")
    one.keyboard.press("Enter")
    expect(one.get_by_role("status")).to_contain_text("taken up on another page")


def test_disagreements_are_settled_by_a_third(run, review, visit):
    address = review()
    for name in ("Li", "Wang"):
        page = visit(address)
        enter(page, name)
        for done in range(ROWS):
            shown_done(page, done)
            best = prefer_minutes(page)
            page.keyboard.press(best if name == "Li" or done else "2")
            page.keyboard.press("Enter")
        expect(page.get_by_text("That was the last row")).to_be_visible()
    page = visit(address)
    page.get_by_label("Your name").fill("Zhao")
    page.get_by_role("button", name="Settle disagreements").click()
    rows = page.locator("#heads button")
    expect(rows).to_have_count(1)
    picture(page, "review-to-settle")
    rows.first.click()
    expect(page.locator("#said li")).to_have_count(2)
    picture(page, "review-settling")
    page.keyboard.press(prefer_minutes(page))
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Show the result").click()
    expect(page.locator("#facts")).to_contain_text("1, 1 of them settled (Zhao)")
    picture(page, "review-results")
    assert [(v.reviewer, v.better) for v in votes(run) if v.final] == [("Zhao", "other")]


def test_dark_and_out_of_reach(run, visit):
    with reviewed(run, reviewer="Li") as address:
        page = visit(address, **DESKTOP, color_scheme="dark")
        shown_done(page, 0)
        assert is_dark(page)
        page.keyboard.press("1")
        picture(page, "review-dark")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("cannot reach weitiao")
