"""The chat in a real browser: on a desk and on a phone, in both languages, against the server."""

import copy
import json
import os
import re
import shutil
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.counting import TOKENIZER, CountingEngine, decode, encode, last_said, service, wait_for
from weitiao.records.options import DataOptions
from weitiao.records.render import ChatFormat
from weitiao.records.source import as_read
from weitiao.serving.app import create_app
from weitiao.serving.engine import Sampling
from weitiao.serving.feedback import feedback_router
from weitiao.serving.feedback_rows import export_feedback
from weitiao.serving.keeping import KeepOptions
from weitiao.serving.request_log import RequestLog
from weitiao.serving.web.page import add_page

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (apt-get install chromium)")

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-extensions",
    "--disable-component-update", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync",
]  # fmt: skip
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
PICTURES = os.environ.get("WEITIAO_PICTURES")
"""A folder for pictures of the page, for a person to look at."""

LONGEST = 500
OWN_SYSTEM = {"role": "system", "content": "你是诗人"}
"""What the model is asked with where the user sets nothing."""

HOSTILE = (
    'A <img src=x onerror="document.title=\'bad\'"> <script>document.title="bad"</script> '
    "[press](javascript:alert(1)) ![seen](https://example.com/x.png) &amp;"
)
MARKED = """**重点：**先看这个，3~5 天，10~12 元

- one
- `two`

1. first

```py
if a < b: **not bold**
```"""


def reply(ask):
    """Say who answers what; the test's words make it long, marked or hostile."""
    asked = last_said(ask)
    texts = {
        "long": "很长的回答 " * 1000,
        "hostile": HOSTILE,
        "marked": MARKED,
        "reason": "let me **think**</think>So it is.",
    }
    return encode(texts.get(asked, f"{ask.model} says {asked}"))


class Server:
    """The real application with the page, on a free port; what it heard is for tests to look at."""

    def __init__(self, chat=None, feedback=False, models=None, log=None, pace=0.001, **options):
        self.engine = CountingEngine(reply, pace=pace)
        made = service(self.engine, **options)
        served = tuple(
            replace(one, chat=chat or one.chat, defaults=Sampling(max_new_tokens=LONGEST))
            for one in made.served
        )
        self.app = create_app(replace(made, served=served, recorder=log))
        if models is not None:
            told = Route("/v1/models", lambda request: JSONResponse({"data": models}))
            self.app.router.routes.insert(0, told)
        add_page(self.app)
        if log is not None:
            self.app.include_router(feedback_router(log))
        self.feedback = []
        if feedback:
            self.app.add_api_route("/v1/feedback", self._hear, methods=["POST"])
        config = uvicorn.Config(
            self.app, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=1
        )
        self.uvicorn = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.uvicorn.run)

    async def _hear(self, request: Request) -> Response:
        self.feedback.append(await request.json())
        return JSONResponse({})

    def start(self):
        self.thread.start()
        wait_for(lambda: self.uvicorn.started and self.engine.started, 20)
        port = self.uvicorn.servers[0].sockets[0].getsockname()[1]
        self.address = f"http://127.0.0.1:{port}/"

    def stop(self):
        self.uvicorn.should_exit = True
        self.thread.join(15)

    def prompts(self):
        """What the engine was asked so far, as text."""
        return [decode(ask.ids) for ask in self.engine.asks]


@pytest.fixture(scope="module")
def browser():
    sync_api.expect.set_options(timeout=20_000)  # the machine may be busy
    with sync_api.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def serve():
    with ExitStack() as ends:

        def begin(**given):
            server = Server(**given)
            server.start()
            ends.callback(server.stop)
            return server

        yield begin


@pytest.fixture
def visit(browser):
    """Open an address; the page fails the test if a script fails or anything foreign is loaded."""
    with ExitStack() as ends:
        wrong = []

        def open_page(server, context=None, locale="en-US", **kind):
            if context is None:
                context = browser.new_context(**(kind or DESKTOP), locale=locale)
                ends.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(20_000)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("console", lambda m: "Content Security" in m.text and wrong.append(m.text))
            page.on("request", lambda r: r.url.startswith(ours) or wrong.append(r.url))
            ours = (server.address, f"blob:{server.address}")
            page.goto(server.address)
            return page

        yield open_page
        assert wrong == []


def picture(page, name):
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"chat-{name}.png")


def expect(found):
    return sync_api.expect(found)


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def ask(page, question):
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")


def answers(page):
    return page.locator("article.answer")


def hear(page, text):
    """Wait until an answer that holds ``text`` is there and the next question can be asked."""
    expect(answers(page).filter(has_text=text).first).to_be_visible()
    expect(button(page, "Send")).to_be_visible()


def test_an_answer_streams_and_stops(serve, visit):
    server = serve(pace=0.02)
    page = visit(server)
    expect(page.get_by_text("Ask the model something.")).to_be_visible()
    picture(page, "empty")
    ask(page, "long")
    answer = answers(page).first
    expect(answer).to_have_attribute("aria-busy", "true")
    expect(answer).to_contain_text("很长的回答 很长的回答")
    button(page, "Stop").click()
    expect(answer).to_contain_text("Stopped.")
    wait_for(lambda: server.engine.left, 10)
    some = answer.locator(".said").inner_text()
    assert 0 < len(some) < LONGEST
    ask(page, "tea?")
    hear(page, "tuned says tea?")
    assert "很长的回答" in server.prompts()[-1], "what was said is part of the conversation"
    ask(page, "long")
    expect(button(page, "Stop")).to_be_visible()
    page.keyboard.press("Escape")
    expect(answers(page).last).to_contain_text("Stopped.")


def test_conversations_outlive_a_reload_and_become_rows(serve, visit, tmp_path):
    server = serve()
    page = visit(server)
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
    picture(page, "history")

    button(page, "Rename “green tea?”").click()
    page.get_by_label("New name").fill("About tea")
    page.keyboard.press("Enter")
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
    page = visit(serve())
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
    page = visit(server)
    button(page, "Side by side").click()
    ask(page, "one")
    hear(page, "tuned says one")
    hear(page, "base says one")
    left, right = (answers(page).nth(i).bounding_box() for i in (0, 1))
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    picture(page, "split")
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
    page = visit(server)
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


def test_thumbs_corrections_and_comments_are_sent(serve, visit):
    server = serve(feedback=True)
    page = visit(server)
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
    picture(page, "feedback")
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
        page = visit(server)
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
    page = visit(server)
    ask(page, "one")
    hear(page, "tuned says one")
    with page.expect_response("**/v1/chat/completions") as coming:
        ask(page, "two")
    sentence = coming.value.json()["error"]["message"]
    expect(answers(page).last.get_by_role("alert")).to_have_text(sentence)
    button(page, "Good answer").click()
    expect(button(page, "Good answer")).to_have_attribute("aria-pressed", "false")
    expect(answers(page).first.get_by_role("status").first).to_have_text(re.compile("/v1/feedback"))


def test_a_server_that_goes_away_is_told(serve, visit):
    server = serve()
    page = visit(server)
    ask(page, "one")
    hear(page, "tuned says one")
    server.stop()
    ask(page, "two")
    expect(answers(page).last.get_by_role("alert")).to_contain_text("connection to the server")


def test_a_key_is_asked_for_and_forgotten_with_the_tab(serve, visit):
    server = serve(api_keys=("right",))
    page = visit(server)
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("alert")).to_contain_text("key")
    picture(page, "key")
    dialog.get_by_label("API key").fill("wrong")
    page.keyboard.press("Enter")
    expect(dialog).to_be_visible()
    dialog.get_by_label("API key").fill("right")
    page.keyboard.press("Enter")
    ask(page, "one")
    hear(page, "tuned says one")
    page.reload()
    hear(page, "tuned says one")
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


def test_the_language_is_the_browsers_until_it_is_switched(serve, visit):
    server = serve(rate_limit=1)
    page = visit(server, locale="zh-CN")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    page.get_by_label("输入问题").fill("one")
    button(page, "发送").click()
    expect(answers(page)).to_contain_text("tuned says one")
    expect(button(page, "发送")).to_be_visible()
    page.get_by_label("输入问题").fill("two")
    page.keyboard.press("Enter")
    expect(answers(page).last.get_by_role("alert")).to_have_text(re.compile("[一-龥]{4}"))
    picture(page, "chinese")
    button(page, "English").click()
    expect(button(page, "New conversation")).to_be_visible()
    page.reload()
    expect(button(page, "New conversation")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "en")


def test_what_was_written_is_text_and_nothing_else(serve, visit):
    page = visit(serve())
    hostile = '<b onclick="x()">hostile</b>'
    ask(page, hostile)
    hear(page, f"tuned says {hostile}")
    expect(page.locator(".question")).to_have_text(hostile)
    ask(page, "hostile")
    hear(page, "press")
    said = answers(page).last.locator(".said")
    assert said.inner_text() == HOSTILE
    assert page.locator("main img, main script, main a, main b").count() == 0
    assert "bad" not in page.title()


def test_simple_markdown_is_shown_as_it_is_meant(serve, visit):
    page = visit(serve())
    ask(page, "marked")
    hear(page, "not bold")
    picture(page, "markdown")
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
    page = visit(serve(chat=ChatFormat(tokenizer)))
    ask(page, "reason")
    hear(page, "So it is.")
    answer = answers(page).first
    assert answer.locator(".said").inner_text() == "So it is."
    thought = page.get_by_text("let me **think**")
    expect(thought).to_be_hidden()
    answer.get_by_text("Reasoning").click()
    expect(thought).to_be_visible()


def test_settings_reach_the_engine_and_go_back(serve, visit):
    server = serve()
    page = visit(server)
    button(page, "Settings").click()
    panel = page.get_by_role("complementary", name="Settings")
    panel.get_by_label("System prompt").fill("Be a captain")
    panel.get_by_label("Temperature").fill("0.7")
    panel.get_by_label("Top-p").fill("0.5")
    panel.get_by_label("Repetition penalty").fill("1.2")
    panel.get_by_label("Longest answer (tokens)").fill("5")
    panel.get_by_label("Seed").fill("9")
    picture(page, "settings")
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
    for restore in panel.get_by_role("button", name="Back to the model's own").all()[::-1]:
        restore.click()
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
    page = visit(server)
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


def test_enter_that_ends_a_chinese_word_sends_nothing(serve, visit):
    server = serve()
    page = visit(server)
    page.get_by_label("Your question").fill("cha")
    page.get_by_label("Your question").evaluate(
        "field => field.dispatchEvent(new KeyboardEvent('keydown', "
        "{key: 'Enter', isComposing: true, bubbles: true, cancelable: true}))"
    )
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("tea")
    expect(page.get_by_label("Your question")).to_have_value("cha\ntea")
    assert server.engine.asks == []


def test_two_tabs_keep_each_others_conversations(serve, visit):
    server = serve()
    one = visit(server)
    other = visit(server, context=one.context)
    ask(one, "from one")
    ask(other, "from the other")
    hear(one, "tuned says from one")
    hear(other, "tuned says from the other")
    for page in (one, other):
        expect(button(page, "from one")).to_be_visible()
        expect(button(page, "from the other")).to_be_visible()
    page = visit(server, context=one.context)
    expect(page.locator(".history .title")).to_have_count(2)


def test_a_phone_has_room_for_all_of_it(serve, visit):
    page = visit(serve(pace=0.01), **PHONE)
    button(page, "Side by side").tap()
    page.get_by_label("Your question").fill("one " + "长" * 60)
    page.keyboard.press("Enter")  # a line, on a touch keyboard
    button(page, "Send").tap()
    hear(page, "base says one")
    picture(page, "phone")
    upper, lower = (answers(page).nth(i).bounding_box() for i in (0, 1))
    assert upper["y"] + upper["height"] <= lower["y"]
    fits(page)
    for word in ("Conversations", "Settings"):
        button(page, word).tap()
        drawer = page.get_by_role("dialog", name=word)
        expect(drawer).to_be_visible()
        picture(page, f"phone-{word.lower()}")
        fits(page)
        page.keyboard.press("Escape")
        expect(drawer).to_have_count(0)
    for found in page.locator("header button, footer button").all():
        assert found.bounding_box()["height"] >= 36
    page.get_by_label("Your question").fill("long")
    button(page, "Send").tap()
    button(page, "Settings").tap()
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
    page = visit(serve(), **DESKTOP, color_scheme="dark")
    ask(page, "marked")
    hear(page, "not bold")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(int(part) for part in dark[4:-1].split(",")) < 150
    picture(page, "dark")
