"""The chat in a real browser: thumbs, corrections, and what the server refuses."""

import json
import re

from chat_page import OWN_SYSTEM, answers, ask, button, hear
from chromium import expect, picture

from serving.counting import encode, last_said
from weitiao.serving.feedback_rows import export_feedback
from weitiao.serving.keeping import KeepOptions
from weitiao.serving.request_log import RequestLog


def test_thumbs_corrections_and_comments_are_sent(serve, visit):
    server = serve(feedback=True)
    page = visit(server.address)
    with page.expect_response("**/v1/chat/completions") as coming:
        ask(page, "one")
    hear(page, "tuned says one")
    request_id = coming.value.headers["x-request-id"]
    button(page, "Bad answer").click()
    expect(button(page, "Bad answer")).to_have_attribute("aria-pressed", "true")
    expect(answers(page)).to_contain_text("Saved, thank you.")
    button(page, "Correct it").click()
    written = page.get_by_label("What it should have said")
    expect(written).to_have_value("tuned says one")
    written.fill("一")
    button(page, "Cancel").click()
    button(page, "Correct it").click()
    expect(written).to_have_value("tuned says one")  # what was not sent is not kept
    written.fill("一")
    page.get_by_label("Comment").fill("in Chinese")
    picture(page, "chat-feedback")
    button(page, "Send correction").click()
    expect(page.get_by_label("Comment")).to_have_count(0)
    page.reload()
    expect(button(page, "Bad answer")).to_have_attribute("aria-pressed", "true")
    button(page, "Bad answer").click()
    expect(button(page, "Bad answer")).to_have_attribute("aria-pressed", "false")
    said = {
        "request_id": request_id,
        "thumb": "down",
        "correction": None,
        "comment": None,
        "messages": [OWN_SYSTEM, {"role": "user", "content": "one"}],
        "answer": "tuned says one",
    }
    corrected = {**said, "correction": "一", "comment": "in Chinese"}
    assert server.feedback == [said, corrected, {**corrected, "thumb": None}]


def test_a_correction_is_a_training_row_of_what_was_asked(serve, visit, tmp_path):
    store = tmp_path / "requests.sqlite"
    log = RequestLog(store, KeepOptions())
    try:
        server = serve(log=log)
        page = visit(server.address)
        ask(page, "one")
        hear(page, "tuned says one")
        server.engine.reply = lambda asked: encode(f"now {last_said(asked)}")
        button(page, "Answer again").click()
        hear(page, "now one")
        ask(page, "two")
        hear(page, "now two")
        # What is shown and set afterwards is not what the second question was asked with.
        button(page, "Earlier answer").click()
        expect(answers(page).first).to_contain_text("tuned says one")
        button(page, "Settings").click()
        page.get_by_label("System prompt").fill("Be a captain")
        page.reload()
        second = answers(page).last
        second.get_by_role("button", name="Correct it").click()
        page.get_by_label("What it should have said").fill("Two it is.")
        button(page, "Send correction").click()
        expect(second).to_contain_text("Saved, thank you.")
    finally:
        log.close()
    done = export_feedback(store, tmp_path / "rows.jsonl", "answers")
    assert (done.rows, done.unknown) == (1, 0)
    said = [
        OWN_SYSTEM,
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "now one"},
        {"role": "user", "content": "two"},
    ]
    good = {"role": "assistant", "content": "Two it is."}
    row = json.loads((tmp_path / "rows.jsonl").read_text(encoding="utf-8"))
    assert row == {"messages": [*said, good]}
    export_feedback(store, tmp_path / "pairs.jsonl", "preferences")
    pair = json.loads((tmp_path / "pairs.jsonl").read_text(encoding="utf-8"))
    bad = {"role": "assistant", "content": "now two"}
    assert pair == {"prompt": said, "chosen": [good], "rejected": [bad]}


def test_a_refusal_is_shown_as_the_server_says_it(serve, visit):
    server = serve(rate_limit=1)
    page = visit(server.address)
    ask(page, "one")
    hear(page, "tuned says one")
    with page.expect_response("**/v1/chat/completions") as coming:
        ask(page, "two")
    sentence = coming.value.json()["error"]["message"]
    expect(answers(page).last.get_by_role("alert")).to_have_text(sentence)
    button(page, "Good answer").click()
    expect(answers(page).first.get_by_role("status").first).to_have_text(re.compile("/v1/feedback"))
    expect(button(page, "Good answer")).to_have_attribute("aria-pressed", "false")


def test_a_server_that_goes_away_is_told(serve, visit):
    server = serve()
    page = visit(server.address)
    ask(page, "one")
    hear(page, "tuned says one")
    server.stop()
    ask(page, "two")
    expect(answers(page).last.get_by_role("alert")).to_contain_text("connection to the server")
