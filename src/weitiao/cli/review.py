"""Reviewing in the terminal: one row after another, and a key for what is to become of it."""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from weitiao.cli.rows import row_head, shown_text
from weitiao.cli.screen import blank, clean, sentence, show
from weitiao.errors import RunError
from weitiao.records.record import OWN, Record
from weitiao.records.review import Session
from weitiao.records.review.edits import answer_of
from weitiao.words import say

_VALUE_LENGTH = 200
_PASSAGE = "passage"
"""The column in which a draft carries what it was made from."""

_END_OF_TEXT = "."


def run_review(session: Session, console: Console) -> None:
    """Show the rows of ``session`` and obey the keys until q, the last row or the end of input.

    Nothing is lost however it ends: each decision is on the disk before the next row shows.

    Raises:
        RunError: a decision cannot be written, or the input is in another encoding.
    """
    _Table(session, console).run()


class _Table:
    """What a row looks like, and what each key does."""

    def __init__(self, session: Session, console: Console) -> None:
        self.session, self.console = session, console
        self.at_terminal = sys.stdin.isatty() and console.is_terminal
        self.keys: dict[str, Callable[[], bool]] = {
            "a": self._accept,
            "e": self._edit,
            "r": self._reject,
            "s": self._skip,
            "b": self._back,
        }

    def run(self) -> None:
        if self.at_terminal:
            with suppress(ImportError):
                import readline  # noqa: F401  (importing it gives input() editing)
        try:
            if self.session.current() is not None:
                self._say(say("cli.review.keys"))
                while self._turn():
                    pass
        except (KeyboardInterrupt, EOFError):
            blank(self.console)
        except UnicodeDecodeError as error:
            raise RunError("cli.review.input_unreadable", encoding=error.encoding) from error
        progress = self.session.progress()
        left = progress.done < progress.total
        end = say("cli.review.left") if left else say("cli.review.finished")
        self._say(f"{self._counts()} · {end}")

    def _turn(self) -> bool:
        """Deal with the row on the table, or with the end; return whether to go on."""
        record = self.session.current()
        if record is None:
            return self._ask(say("cli.review.last")).strip().lower() == "b" and self.session.back()
        self._show(record)
        return self._obey()

    def _obey(self) -> bool:
        """Take keys until one changes what is on the table; return whether to go on."""
        while True:
            key = self._ask(say("cli.review.prompt")).strip().lower()
            if key == "q":
                return False
            if key not in self.keys:
                self._say(say("cli.review.keys"), "yellow")
            elif self.keys[key]():
                return True

    def _accept(self) -> bool:
        self.session.accept()
        return True

    def _reject(self) -> bool:
        try:
            comment = self._ask(say("cli.review.why"))
        except KeyboardInterrupt:
            blank(self.console)
            return False
        self.session.reject(comment.strip())
        return True

    def _skip(self) -> bool:
        self.session.skip()
        return True

    def _back(self) -> bool:
        if self.session.back():
            return True
        self._say(say("cli.review.no_row_before"), "yellow")
        return False

    def _edit(self) -> bool:
        record = self.session.current()
        assert record is not None
        try:
            text = self._edited(answer_of(record))
        except KeyboardInterrupt:
            blank(self.console)
            return False
        if text is not None and self.session.edit(text):
            return True
        self._say(say("cli.review.unchanged"), "yellow")
        return False

    def _edited(self, text: str) -> str | None:
        """Return the text as the reviewer wants it; None if it could not be had."""
        editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
        if editor and self.at_terminal:
            try:
                return _in_editor(editor, text)
            except (OSError, ValueError, subprocess.CalledProcessError):
                self._say(say("cli.review.editor_failed", editor=clean(editor)), "yellow")
        self._say(say("cli.review.new_text"))
        return "\n".join(iter(input, _END_OF_TEXT))

    def _show(self, record: Record) -> None:
        blank(self.console)
        self._say(f"{row_head(self.session.index + 1, record)} · {self._counts()}", "bold")
        for line in self._about(record):
            self._say(line, "dim")
        show(self.console, shown_text(record))

    def _counts(self) -> str:
        progress = self.session.progress()
        return say(
            "cli.review.progress", done=progress.done, total=progress.total, today=progress.today
        )

    def _about(self, record: Record) -> Iterator[str]:
        """Say what is known of the row beside what it says; never what other reviewers think."""
        if record.lineage.draft:
            yield say("cli.review.draft", parent=clean(record.lineage.parent or "–"))
        if self.session.flags:
            yield say(
                "cli.review.flags", flags=", ".join(say(f"flag.{f}") for f in self.session.flags)
            )
        draft = record.lineage.draft
        for column, value in record.metadata.items():
            if column == _PASSAGE and draft:
                # Whether the draft is right can only be told from the whole of it.
                yield clean(f"{column}:\n{value}")
            elif column != OWN:
                yield clean(f"{column}: {value}", _VALUE_LENGTH, lines=1)
        if (vote := self.session.own_vote) is not None:
            yield say("cli.review.before", verdict=say(f"label_studio.{vote.verdict}"))

    def _ask(self, prompt: str) -> str:
        """Return the line that is typed; what comes from a pipe ends no line on the screen."""
        if self.at_terminal:
            return input(prompt)
        self._say(prompt)
        return input()

    def _say(self, text: str, style: str = "dim") -> None:
        sentence(self.console, text, style)


def _in_editor(editor: str, text: str) -> str:
    """Return ``text`` as it was left in the editor."""
    handle, name = tempfile.mkstemp(prefix="weitiao-", suffix=".txt")
    path = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        # A path on Windows holds backslashes, which stand for themselves.
        subprocess.run([*shlex.split(editor, posix=os.name != "nt"), name], check=True)
        return path.read_text(encoding="utf-8-sig")
    finally:
        path.unlink()
