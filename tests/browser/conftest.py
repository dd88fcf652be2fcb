"""A browser for the pages' tests, and the chat served for it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest


# Not for the whole session: while Playwright runs, nothing else in its thread can `asyncio.run`.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from chromium import CHROMIUM, FLAGS, expect, sync_api

    if CHROMIUM is None:
        pytest.skip("no Chromium (apt-get install chromium)")
    expect.set_options(timeout=20_000)  # the machine may be busy
    with sync_api.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=120_000)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open an address; the test fails if a script fails or anything foreign is loaded."""
    from chromium import DESKTOP

    wrong: list[str] = []

    def open_page(address: str, context: Any = None, locale: str = "en-US", **kind: Any) -> Any:
        if context is None:
            context = browser.new_context(**(kind or DESKTOP), locale=locale)
            ends.callback(context.close)
        page = context.new_page()
        ours = address.partition("#")[0]
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda m: "Content Security" in m.text and wrong.append(m.text))
        page.on(
            "request", lambda r: r.url.startswith((ours, f"blob:{ours}")) or wrong.append(r.url)
        )
        page.goto(address)
        return page

    with ExitStack() as ends:
        yield open_page
        assert wrong == []


@pytest.fixture
def serve() -> Iterator[Callable[..., Any]]:
    """Serve the chat, with options; the servers end with the test."""
    from chat_page import Server

    with ExitStack() as ends:

        def begin(**given: Any) -> Server:
            server = Server(**given)
            ends.callback(server.stop)
            server.start()
            return server

        yield begin
