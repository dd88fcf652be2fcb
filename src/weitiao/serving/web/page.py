"""Serves the chat page: a few files known by name, nothing that a request could lead to."""

import hashlib
from importlib import resources

import orjson
from fastapi import FastAPI, Request, Response

from weitiao.words import LANGUAGES, catalogue

_WORDS = (
    "title", "welcome", "careful", "switch", "history", "begin", "kept_here", "rename",
    "new_title", "export", "export_all", "delete", "delete_sure", "settings", "close", "cancel",
    "retry", "model", "model_beside", "compare", "role_tuned", "role_base", "role_adapter",
    "system", "system_hint", "system_default", "sampling", "sampling_default", "temperature",
    "temperature_hint", "top_p", "top_p_hint", "repetition_penalty", "repetition_penalty_hint",
    "max_tokens", "max_tokens_hint", "seed", "seed_hint", "seed_none", "question", "send", "stop",
    "turn", "answering", "reasoning", "stopped", "cut", "empty", "copy", "copied", "again",
    "version_before", "version_after", "go_on", "going_on", "up", "down", "correct", "correction",
    "comment", "send_feedback", "thanks", "key_title", "key", "key_hint", "key_use", "lost",
    "strange", "full",
)  # fmt: skip
"""The page's words, each ``chat.page.…`` in the catalogue."""

_FILES = {
    "/": ("index.html", "text/html"),
    "/ui/page.js": ("ui/page.js", "text/javascript"),
    "/ui/page.css": ("ui/page.css", "text/css"),
    "/ui/icon.svg": ("ui/icon.svg", "image/svg+xml"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types svelte-trusted-html",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Kept, but asked about each time: the names of a newer weitiao's files are the same.
    "Cache-Control": "no-cache",
}


def add_page(app: FastAPI) -> None:
    """Serve the chat at ``/`` and what it loads below ``/ui/``; none of it needs a key."""
    folder = resources.files("weitiao.serving.web") / "built"
    for path, (name, kind) in _FILES.items():
        _add(app, path, folder.joinpath(name).read_bytes(), kind)
    said = {
        tongue: {name: catalogue()[f"chat.page.{name}"][tongue] for name in _WORDS}
        for tongue in LANGUAGES
    }
    _add(app, "/ui/words.json", orjson.dumps(said), "application/json")


def _add(app: FastAPI, path: str, body: bytes, kind: str) -> None:
    headers = {**_HEADERS, "ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"'}

    async def answer(request: Request) -> Response:
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=kind, headers=headers)

    app.add_api_route(path, answer, methods=["GET", "HEAD"], include_in_schema=False)
