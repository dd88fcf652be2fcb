"""The chat in a real browser: asking, stopping, conversations that are kept, several models."""

from pathlib import Path

from chat_page import SLOW, answers, ask, boxes, button, hear
from chromium import expect, picture

from serving.counting import encode, wait_for
from weitiao.records.options import DataOptions
from weitiao.records.source import as_read


def test_an_answer_streams_and_stops(serve, visit):
    server = serve(pace=SLOW)
    page = visit(server.address)
    expect(page.get_by_text("Ask the model something.")).to_be_visible()
    picture(page, "chat-empty")
    ask(page, "long")
    answer = answers(page).first
    expect(answer).to_have_attribute("aria-busy", "true")
    expect(answer).to_contain_text("很长的回答 很长的回答")
    button(page, "Stop").click()
    expect(answer).to_contain_text("Stopped.")
    wait_for(lambda: server.engine.left, 60)
    ask(page, "tea?")
    hear(page, "tuned says tea?")
    assert "很长的回答" in server.prompts()[-1], "what was said is part of the conversation"
    ask(page, "long")
    expect(button(page, "Stop")).to_be_visible()
    page.keyboard.press("Escape")
    expect(answers(page).last).to_contain_text("Stopped.")


def test_conversations_outlive_a_reload_and_become_rows(serve, visit, tmp_path):
    server = serve()
    page = visit(server.address)
    for question in ("green tea?", "and black?"):
        ask(page, question)
        hear(page, f"tuned says {question}")
    button(page, "New conversation").click()
    ask(page, "other")
    hear(page, "tuned says other")
    page.reload()
    expect(page.get_by_role("heading", name="other")).to_be_visible()
    hear(page, "tuned says other")
    button(page, "green tea?").click()
    hear(page, "tuned says and black?")
    picture(page, "chat-history")

    button(page, "Rename “green tea?”").click()
    page.get_by_label("New name").fill("About tea")
    page.keyboard.press("Enter")
    expect(button(page, "About tea")).to_be_visible()
    page.reload()
    expect(button(page, "About tea")).to_be_visible()

    with page.expect_download() as coming:
        button(page, "Save all as training rows").click()
    kept = tmp_path / coming.value.suggested_filename
    coming.value.save_as(kept)
    refused = []
    records = list(as_read([kept], DataOptions(), lambda *why: refused.append(why)))
    assert refused == []
    said = [[(m.role, m.content) for m in record.messages] for record in records]
    tea = [
        ("user", "green tea?"), ("assistant", "tuned says green tea?"),
        ("user", "and black?"), ("assistant", "tuned says and black?"),
    ]  # fmt: skip
    assert [[turn for turn in row if turn[0] != "system"] for row in said] == [
        [("user", "other"), ("assistant", "tuned says other")],
        tea,
    ]

    page.once("dialog", lambda dialog: dialog.dismiss())
    button(page, "Delete “About tea”").click()
    expect(button(page, "About tea")).to_be_visible()
    page.once("dialog", lambda dialog: dialog.accept())
    button(page, "Delete “About tea”").click()
    expect(button(page, "About tea")).to_have_count(0)
    page.reload()
    expect(button(page, "other")).to_be_visible()
    expect(button(page, "About tea")).to_have_count(0)


def test_answers_that_were_cut_are_no_training_rows(serve, visit, tmp_path):
    page = visit(serve().address)
    ask(page, "whole")
    hear(page, "tuned says whole")
    ask(page, "long")
    hear(page, "Cut off at the longest length")
    with page.expect_download() as coming:
        button(page, "Save “whole” as training rows (JSONL)").click()
    text = Path(coming.value.path()).read_text(encoding="utf-8")
    assert "tuned says whole" in text
    assert "很长" not in text


def test_two_models_answer_with_the_same_history(serve, visit):
    server = serve()
    page = visit(server.address)
    button(page, "Side by side").click()
    ask(page, "one")
    hear(page, "tuned says one")
    hear(page, "base says one")
    left, right = boxes(page)
    assert left["y"] == right["y"]
    assert left["right"] <= right["left"]
    picture(page, "chat-split")
    button(page, "Go on from here").click()
    ask(page, "two")
    hear(page, "tuned says two")
    hear(page, "base says two")
    later = server.prompts()[-2:]
    assert {ask.model for ask in server.engine.asks[-2:]} == {"tuned", "base"}
    assert all("base says one" in prompt and "tuned says one" not in prompt for prompt in later)
    page.reload()
    hear(page, "base says two")
    expect(answers(page)).to_have_count(4)


def test_another_answer_leaves_the_first_one_there(serve, visit):
    server = serve()
    page = visit(server.address)
    ask(page, "one")
    hear(page, "tuned says one")
    server.engine.reply = lambda asked: encode("something else")
    button(page, "Answer again").click()
    hear(page, "something else")
    expect(answers(page)).to_contain_text("2/2")
    assert "tuned says one" not in server.prompts()[-1]
    button(page, "Earlier answer").click()
    expect(answers(page)).to_contain_text("tuned says one")
    page.reload()
    expect(answers(page)).to_contain_text("tuned says one")


def test_two_tabs_keep_each_others_conversations(serve, visit):
    server = serve()
    one = visit(server.address)
    other = visit(server.address, context=one.context)
    ask(one, "from one")
    ask(other, "from the other")
    hear(one, "tuned says from one")
    hear(other, "tuned says from the other")
    for page in (one, other):
        expect(button(page, "from one")).to_be_visible()
        expect(button(page, "from the other")).to_be_visible()
    page = visit(server.address, context=one.context)
    expect(page.locator(".history .title")).to_have_count(2)
