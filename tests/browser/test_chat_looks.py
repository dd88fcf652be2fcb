"""The chat in a real browser: how texts are shown, in both languages, by phone, in the dark."""

import copy
import re

from chat_page import HOSTILE, SLOW, answers, ask, boxes, button, hear, write
from chromium import DESKTOP, expect, is_dark, picture

from serving.counting import TOKENIZER
from weitiao.records.render import ChatFormat

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


def test_the_language_is_the_browsers_until_it_is_switched(serve, visit):
    server = serve(rate_limit=1)
    page = visit(server.address, locale="zh-CN")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    page.get_by_label("输入问题").fill("one")
    button(page, "发送").click()
    expect(answers(page)).to_contain_text("tuned says one")
    expect(button(page, "发送")).to_be_visible()
    page.get_by_label("输入问题").fill("two")
    page.keyboard.press("Enter")
    expect(answers(page).last.get_by_role("alert")).to_have_text(re.compile("[一-龥]{4}"))
    picture(page, "chat-chinese")
    button(page, "English").click()
    expect(button(page, "New conversation")).to_be_visible()
    page.reload()
    expect(button(page, "New conversation")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "en")


def test_what_was_written_is_text_and_nothing_else(serve, visit):
    page = visit(serve().address)
    hostile = '<b onclick="x()">hostile</b>'
    ask(page, hostile)
    hear(page, f"tuned says {hostile}")
    expect(page.locator(".question")).to_have_text(hostile)
    ask(page, "hostile")
    hear(page, "press")
    said = answers(page).last.locator(".said")
    expect(said).to_have_text(HOSTILE)
    expect(page.locator("main img, main script, main a, main b")).to_have_count(0)
    expect(page).to_have_title(re.compile("^<b onclick"))


def test_simple_markdown_is_shown_as_it_is_meant(serve, visit):
    page = visit(serve().address)
    ask(page, "marked")
    hear(page, "not bold")
    picture(page, "chat-markdown")
    said = answers(page).last.locator(".said")
    expect(said.locator("strong")).to_have_text(["重点："])
    expect(said.locator("ul li")).to_have_text(["one", "two"])
    expect(said.locator("li code")).to_have_text("two")
    expect(said.locator("ol li")).to_have_text("first")
    expect(said.locator("pre")).to_have_text("if a < b: **not bold**")
    expect(said.locator("p").first).to_have_text("重点：先看这个，3~5 天，10~12 元")


def test_reasoning_is_folded_away(serve, visit):
    tokenizer = copy.deepcopy(TOKENIZER)
    ends, opens = "'<|im_start|>assistant\\n'", "'<|im_start|>assistant\\n<think>\\n'"
    assert ends in tokenizer.chat_template
    tokenizer.chat_template = tokenizer.chat_template.replace(ends, opens)
    page = visit(serve(chat=ChatFormat(tokenizer)).address)
    ask(page, "reason")
    hear(page, "So it is.")
    answer = answers(page).first
    expect(answer.locator(".said")).to_have_text("So it is.")
    thought = page.get_by_text("let me **think**")
    expect(thought).to_be_hidden()
    answer.get_by_text("Reasoning").click()
    expect(thought).to_be_visible()


def test_enter_that_ends_a_chinese_word_sends_nothing(serve, visit):
    server = serve()
    page = visit(server.address)
    write(page, "cha")
    page.get_by_label("Your question").evaluate(
        "field => field.dispatchEvent(new KeyboardEvent('keydown', "
        "{key: 'Enter', isComposing: true, bubbles: true, cancelable: true}))"
    )
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("tea")
    expect(page.get_by_label("Your question")).to_have_value("cha\ntea")
    assert server.engine.asks == []


def test_a_phone_has_room_for_all_of_it(serve, visit):
    server = serve()
    page = visit(server.address, **PHONE)
    button(page, "Side by side").tap()
    page.get_by_label("Your question").fill("one " + "长" * 60)
    page.keyboard.press("Enter")  # a line, on a touch keyboard
    button(page, "Send").tap()
    hear(page, "base says one")
    picture(page, "chat-phone")
    upper, lower = boxes(page)
    assert upper["bottom"] <= lower["top"]
    fits(page)
    for word in ("Conversations", "Settings"):
        button(page, word).tap()
        drawer = page.get_by_role("dialog", name=word)
        expect(drawer).to_be_visible()
        picture(page, f"chat-phone-{word.lower()}")
        fits(page)
        page.keyboard.press("Escape")
        expect(drawer).to_have_count(0)
    for found in page.locator("header button, footer button").all():
        assert found.bounding_box()["height"] >= 36
    server.engine.pace = SLOW
    page.get_by_label("Your question").fill("long")
    button(page, "Send").tap()
    button(page, "Settings").tap()
    expect(drawer).to_be_visible()
    page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)
    expect(answers(page).last).to_have_attribute("aria-busy", "true")
    button(page, "Stop").tap()
    expect(answers(page).last).to_contain_text("Stopped.")


def fits(page):
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    main = page.locator("main")
    assert main.evaluate("main => main.scrollWidth <= main.clientWidth")


def test_dark(serve, visit):
    page = visit(serve().address, **DESKTOP, color_scheme="dark")
    ask(page, "marked")
    hear(page, "not bold")
    assert is_dark(page)
    picture(page, "chat-dark")
