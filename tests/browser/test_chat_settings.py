"""The chat in a real browser: its settings, the server's own, and the key."""

import json
from pathlib import Path

from chat_page import LONGEST, answers, ask, button, hear
from chromium import expect, picture


def test_settings_reach_the_engine_and_go_back(serve, visit):
    server = serve()
    page = visit(server.address)
    button(page, "Settings").click()
    panel = page.get_by_role("complementary", name="Settings")
    panel.get_by_label("System prompt").fill("Be a captain")
    panel.get_by_label("Temperature").fill("0.7")
    panel.get_by_label("Top-p").fill("0.5")
    panel.get_by_label("Repetition penalty").fill("1.2")
    panel.get_by_label("Longest answer (tokens)").fill("5")
    panel.get_by_label("Seed").fill("9")
    picture(page, "chat-settings")
    ask(page, "a question of more than five tokens")
    hear(page, "Cut off")
    sampling = server.engine.asks[-1].sampling
    asked = (sampling.temperature, sampling.top_p, sampling.repetition_penalty)
    assert asked == (0.7, 0.5, 1.2)
    assert (sampling.max_new_tokens, sampling.seed) == (5, 9)
    assert "Be a captain" in server.prompts()[-1]
    page.reload()
    button(page, "Settings").click()
    expect(panel.get_by_label("Seed")).to_have_value("9")
    restore = panel.get_by_role("button", name="Back to the model's own")
    for left in (2, 1):
        expect(restore).to_have_count(left)
        restore.last.click()
    ask(page, "one")
    hear(page, "tuned says one")
    sampling = server.engine.asks[-1].sampling
    assert (sampling.temperature, sampling.seed, sampling.max_new_tokens) == (0.0, None, LONGEST)
    assert "captain" not in server.prompts()[-1]


def test_roles_and_defaults_are_the_servers(serve, visit):
    own = {"temperature": 0.3, "top_p": 0.9, "repetition_penalty": 1.1, "max_tokens": 77}
    told = {"base": ("base", None, {}), "tuned": ("tuned", "你是诗人", own)}
    server = serve(
        models=[
            {"id": id_, "weitiao": {"role": role, "system": system, "defaults": defaults}}
            for id_, (role, system, defaults) in told.items()
        ]
    )
    page = visit(server.address)
    expect(page.get_by_label("Model", exact=True)).to_have_value("tuned")
    button(page, "Settings").click()
    panel = page.get_by_role("complementary", name="Settings")
    expect(panel.get_by_label("System prompt")).to_have_value("你是诗人")
    expect(panel.get_by_label("Temperature")).to_have_value("0.3")
    expect(panel.get_by_label("Longest answer")).to_have_attribute("placeholder", "77")
    ask(page, "one")
    hear(page, "tuned says one")
    expect(answers(page).get_by_text("tuned", exact=True).last).to_have_class("tag")
    assert server.prompts()[0].count("你是诗人") == 1
    panel.get_by_label("System prompt").fill("")
    page.get_by_label("Model", exact=True).select_option("base")
    ask(page, "two")
    hear(page, "base says two")
    with page.expect_download() as coming:
        button(page, "Save “one” as training rows (JSONL)").click()
    row = json.loads(Path(coming.value.path()).read_text(encoding="utf-8"))
    assert [message["role"] for message in row["messages"]] == ["user", "assistant"] * 2


def test_a_key_is_asked_for_and_forgotten_with_the_tab(serve, visit):
    server = serve(api_keys=("right",))
    page = visit(server.address)
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("alert")).to_contain_text("key")
    picture(page, "chat-key")
    dialog.get_by_label("API key").fill("wrong")
    with page.expect_response("**/v1/models"):
        page.keyboard.press("Enter")
    expect(dialog).to_be_visible()
    dialog.get_by_label("API key").fill("right")
    page.keyboard.press("Enter")
    ask(page, "one")
    hear(page, "tuned says one")
    page.reload()
    hear(page, "tuned says one")
    expect(page.get_by_label("Model", exact=True)).to_be_visible()
    expect(dialog).to_have_count(0)
    assert "right" not in page.evaluate("JSON.stringify(localStorage)")
    page.evaluate("sessionStorage.clear()")
    page.reload()
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("alert")).to_contain_text("key")
    button(page, "Try again").click()
    expect(dialog).to_be_visible()
