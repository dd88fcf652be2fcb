"""The conversation in the terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from rich.console import Console

from weitiao.cli.screen import blank, clean, sentence
from weitiao.errors import RecipeError, WeitiaoError
from weitiao.words import say

if TYPE_CHECKING:
    from weitiao.models.conversation import Conversation

SETTINGS = ("temperature", "top_p", "repetition_penalty", "max_new_tokens", "seed")
"""What can be set: the fields of ``Sampling``, options of the same names in a recipe."""


def parse_setting(name: str, text: str) -> Any:
    """Return the value of a setting as typed; the recipe's options say what is allowed.

    Raises:
        RecipeError: there is no such setting, or the value is not one of it.
    """
    from weitiao.plan.recipe import load_recipe

    if name not in SETTINGS:
        near = get_close_matches(name, SETTINGS, n=1) or SETTINGS
        raise RecipeError("cli.chat.no_setting", name=name, near=", ".join(near))
    value = getattr(load_recipe(None, [f"evaluate.{name}={text}"]).evaluate, name)
    if value is None:
        raise RecipeError("cli.chat.no_value", name=name)
    return value


class Talk:
    """Reads lines until the end of the input and answers them."""

    def __init__(self, conversation: "Conversation", console: Console) -> None:
        self.conversation = conversation
        self.console = console
        self.at_terminal = sys.stdin.isatty()
        self._commands: dict[str, Callable[[str], None]] = {
            "/base": self._base,
            "/set": self._set,
            "/system": self._system,
            "/new": self._new,
            "/help": self._help,
        }

    def run(self) -> None:
        """Talk until /quit or the end of the input."""
        if self.at_terminal:
            with suppress(ImportError):
                import readline  # noqa: F401  (importing it gives input() editing and history)
            self._say(say("cli.chat.welcome"))
        for line in self._lines():
            text = line.strip()
            if text in ("/quit", "/exit"):
                break
            if text:
                self._take(text)

    def _lines(self) -> Iterator[str]:
        if not self.at_terminal:
            yield from sys.stdin
            return
        while True:
            try:
                yield input(say("cli.chat.you"))
            except KeyboardInterrupt:
                blank(self.console)
                self._say(say("cli.chat.how_to_leave"))
            except EOFError:
                blank(self.console)
                return

    def _take(self, text: str) -> None:
        """Answer a line or obey it; Ctrl-C ends the answer and not the conversation."""
        try:
            if not text.startswith("/"):
                self._answer("cli.chat.tuned", self.conversation.reply(text))
                return
            name, _, rest = text.partition(" ")
            if name in self._commands:
                self._commands[name](rest.strip())
            else:
                near = get_close_matches(name, self._commands, n=1) or ["/help"]
                self._say(say("cli.chat.no_command", name=name, near=near[0]), "yellow")
        except KeyboardInterrupt:
            self._write(" " + say("cli.chat.stopped") + "\n")
        except WeitiaoError as error:
            self._say(error.sentence(), "red")

    def _answer(self, who: str, pieces: Iterator[str]) -> None:
        """Write an answer as it comes."""
        if self.at_terminal:
            self._write(say(who))
        said = False
        # Closed even when left off, so that the conversation remembers how far it came.
        with closing(pieces):  # type: ignore[type-var]
            for piece in pieces:
                said = said or bool(piece.strip())
                self._write(clean(piece))
        self._write("\n" if said else say("report.empty") + "\n")

    def _base(self, rest: str) -> None:
        if not self.conversation.asked():
            self._say(say("cli.chat.nothing_asked"), "yellow")
            return
        self._answer("cli.chat.base", self.conversation.base_reply())

    def _set(self, rest: str) -> None:
        name, _, value = rest.replace("=", " ", 1).partition(" ")
        if name:
            name = name.replace("-", "_")
            parsed = parse_setting(name, value.strip())
            self.conversation.sampling = replace(self.conversation.sampling, **{name: parsed})
        for setting in SETTINGS if not name else (name,):
            self._say(f"{setting} = {getattr(self.conversation.sampling, setting)}")

    def _system(self, rest: str) -> None:
        if rest:
            self.conversation.system = rest
        now = self.conversation.system
        self._say(
            say("cli.chat.no_system") if now is None else say("cli.chat.system", text=clean(now))
        )

    def _new(self, rest: str) -> None:
        self.conversation.forget()
        self._say(say("cli.chat.forgotten"))

    def _help(self, rest: str) -> None:
        self._say(say("cli.chat.help"))

    def _say(self, text: str, style: str = "dim") -> None:
        sentence(self.console, text, style)

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
