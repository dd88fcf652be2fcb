"""The verb that puts a model behind a server."""

import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weitiao import api
from weitiao.cli.asked import one_of
from weitiao.cli.growing import whole
from weitiao.cli.people import port_number
from weitiao.cli.screen import clean, screen, sentence, verbatim
from weitiao.cli.view import View
from weitiao.errors import RecipeError
from weitiao.words import say

if TYPE_CHECKING:
    from weitiao.serving.options import ServeOptions


def serve(
    target: Annotated[str, typer.Argument(metavar="RUN|DIR|MODEL", help="cli.help.serve_target")],
    adapter: Annotated[
        list[str] | None, typer.Option(metavar="NAME=DIR", help="cli.help.serve_adapter")
    ] = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="cli.help.serve_host")] = "127.0.0.1",
    port: Annotated[str, typer.Option(metavar="N", help="cli.help.serve_port")] = "8000",
    api_key: Annotated[
        list[str] | None, typer.Option(metavar="KEY|new", help="cli.help.serve_key")
    ] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="cli.help.serve_no_auth")] = False,
    engine: Annotated[str, typer.Option(metavar="NAME", help="cli.help.serve_engine")] = "auto",
    vllm: Annotated[str | None, typer.Option(metavar="DIR", help="cli.help.serve_vllm")] = None,
    context: Annotated[str, typer.Option(metavar="N", help="cli.help.serve_context")] = "8192",
    rate_limit: Annotated[str | None, typer.Option(metavar="N", help="cli.help.serve_rate")] = None,
    log_prompts: Annotated[
        bool, typer.Option("--log-prompts", help="cli.help.serve_log_prompts")
    ] = False,
) -> None:
    """Serve a model."""
    from weitiao.api.serving import ENGINES
    from weitiao.serving.options import ServeOptions

    keys = [secrets.token_urlsafe(24) if key == "new" else key for key in api_key or ()]
    options = ServeOptions(
        host=host,
        port=port_number(port),
        api_keys=tuple(keys),
        auth=not no_auth,
        rate_limit=None if rate_limit is None else whole("--rate-limit", rate_limit),
        log_prompts=log_prompts,
    )
    with View(screen()) as view:
        view.wait(say("cli.serve.preparing"))
        ready = api.serve(
            target,
            options,
            adapters=dict(map(_adapter, adapter or ())),
            engine=one_of("--engine", engine, ENGINES),
            vllm=vllm,
            context=whole("--context", context),
        )
    _tell(ready, [key for key, said in zip(keys, api_key or (), strict=True) if said == "new"])
    _run(ready, options)


def _tell(ready: "api.Ready", made: list[str]) -> None:
    console, service = screen(), ready.service
    if ready.because is not None:
        sentence(console, clean(ready.because.sentence()), "yellow")
    names = ", ".join(served.name for served in service.served)
    sentence(console, clean(say(f"serve.engine.{service.engine.name}", models=names)))
    for key in made:
        sentence(console, say("cli.serve.key"))
        verbatim(console, key)
    sys.stdout.flush()


def _run(ready: "api.Ready", options: "ServeOptions") -> None:
    from weitiao.serving.app import create_app
    from weitiao.serving.running import log_to_stderr, run_server

    console = screen()

    def opened(address: str) -> None:
        sentence(console, say("cli.serve.address"))
        verbatim(console, address)
        sys.stdout.flush()

    log_to_stderr()
    run_server(create_app(ready.service), options, opened)


def _adapter(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise RecipeError("cli.usage.serve_adapter", value=text)
    return name, Path(folder).expanduser()
