"""The verb that puts a model behind a server."""

import os
import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer

from weitiao import api
from weitiao.cli.asked import Settings, one_of
from weitiao.cli.growing import whole
from weitiao.cli.people import port_number
from weitiao.cli.screen import clean, screen, sentence, verbatim
from weitiao.cli.view import View
from weitiao.errors import RecipeError
from weitiao.words import say

KEYS = "WEITIAO_API_KEY"
"""The variable that holds the keys, parted by blanks, where the command line holds none."""


def serve(
    target: Annotated[str, typer.Argument(metavar="RUN|DIR|MODEL", help="cli.help.serve_target")],
    settings: Settings = None,
    adapter: Annotated[
        list[str] | None, typer.Option(metavar="NAME=DIR", help="cli.help.serve_adapter")
    ] = None,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="cli.help.serve_host")] = None,
    port: Annotated[str | None, typer.Option(metavar="N", help="cli.help.serve_port")] = None,
    api_key: Annotated[
        list[str] | None, typer.Option(metavar="KEY|new", help="cli.help.serve_key")
    ] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="cli.help.serve_no_auth")] = False,
    engine: Annotated[str, typer.Option(metavar="NAME", help="cli.help.serve_engine")] = "auto",
    vllm: Annotated[str | None, typer.Option(metavar="DIR", help="cli.help.serve_vllm")] = None,
    context: Annotated[str, typer.Option(metavar="N", help="cli.help.serve_context")] = "8192",
) -> None:
    """Serve a model."""
    from weitiao.api.serving import ENGINES
    from weitiao.plan.recipe import options_from
    from weitiao.serving.keys import check_exposure
    from weitiao.serving.running import require_port
    from weitiao.serving.settings import ServerSettings

    # A key on the command line can be read by everybody on this computer.
    given = api_key or os.environ.get(KEYS, "").split()
    keys = [secrets.token_urlsafe(24) if key == "new" else key for key in given]
    said = {
        "host": host,
        "port": None if port is None else port_number(port),
        "api_keys": keys or None,
        "auth": False if no_auth else None,
    }
    server = {name: value for name, value in said.items() if value is not None}
    asked = options_from(ServerSettings, settings or (), {"server": server})
    check_exposure(asked.server)
    # Getting ready can take minutes.
    require_port(asked.server)
    with View(screen()) as view:
        view.wait(say("cli.serve.preparing"))
        ready = api.serve(
            target,
            asked,
            adapters=dict(map(_adapter, adapter or ())),
            engine=one_of("--engine", engine, ENGINES),
            vllm=vllm,
            context=whole("--context", context),
        )
    _tell(ready, [key for key, said in zip(keys, given, strict=True) if said == "new"])
    _run(ready)


def _tell(ready: api.Ready, made: list[str]) -> None:
    console, service = screen(), ready.service
    if ready.because is not None:
        sentence(console, clean(ready.because.sentence()), "yellow")
    names = ", ".join(served.name for served in service.served)
    sentence(console, clean(say(f"serve.engine.{service.engine.name}", models=names)))
    for key in made:
        sentence(console, say("cli.serve.key"))
        verbatim(console, key)
    sys.stdout.flush()


def _run(ready: api.Ready) -> None:
    from weitiao.serving.running import log_to_stderr, run_server

    console = screen()

    def opened(address: str) -> None:
        sentence(console, say("cli.serve.address"))
        verbatim(console, address)
        sys.stdout.flush()

    with log_to_stderr():
        run_server(ready.application(), ready.settings.server, opened)


def _adapter(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise RecipeError("cli.usage.serve_adapter", value=text)
    return name, Path(folder).expanduser()
