"""The chat served as it is to users, by an engine that answers as a test tells it to."""

import threading
from dataclasses import replace

import uvicorn
from chromium import expect
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.counting import CountingEngine, decode, encode, last_said, service, wait_for
from weitiao.serving.app import create_app
from weitiao.serving.engine import Sampling
from weitiao.serving.feedback import feedback_router
from weitiao.serving.web.page import add_page

LONGEST = 500
SLOW = 0.1
"""Seconds to a token where an answer must not end before it is stopped: it takes 50."""

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
        wait_for(lambda: self.uvicorn.started and self.engine.started, 60)
        port = self.uvicorn.servers[0].sockets[0].getsockname()[1]
        self.address = f"http://127.0.0.1:{port}/"

    def stop(self):
        self.uvicorn.should_exit = True
        self.thread.join(60)

    def prompts(self):
        """What the engine was asked so far, as text."""
        return [decode(ask.ids) for ask in self.engine.asks]


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def write(page, question):
    """Write a question, and wait until the page would send it: it knows its models."""
    page.get_by_label("Your question").fill(question)
    expect(button(page, "Send")).to_be_enabled()


def ask(page, question):
    write(page, question)
    page.keyboard.press("Enter")


def answers(page):
    return page.locator("article.answer")


def hear(page, text):
    """Wait until an answer that holds ``text`` is there and the next question can be asked."""
    expect(answers(page).filter(has_text=text).first).to_be_visible()
    expect(button(page, "Send")).to_be_visible()


def boxes(page):
    """Where the answers stand, all at one time."""
    return answers(page).evaluate_all("all => all.map(one => one.getBoundingClientRect().toJSON())")
