"""The command line: words in, a call of ``weitiao.api``, words out."""

import errno
import os
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from pathlib import Path
from typing import NoReturn

from weitiao.errors import RecipeError, WeitiaoError
from weitiao.words import LANGUAGES, from_environment, say, set_language

DEFECT = 70
"""The exit code for a fault of ours (EX_SOFTWARE in sysexits.h)."""

INTERRUPTED, TERMINATED = 130, 143


class _TerminatedError(BaseException):
    """SIGTERM outside of training: files are closed and locks given back on the way out."""


def main(arguments: list[str] | None = None) -> int:
    """Carry out one command line and return the exit code; ``arguments`` without the name."""
    from weitiao.models.runtime import prepare_process

    prepare_process()
    if os.environ.get("WEITIAO_DEBUG") != "1":
        # Libraries warn their programmers; a user can do nothing about it.
        warnings.simplefilter("ignore")
    _leave_in_order_when_terminated()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        rest = _choose_language(given)
        return _carry_out(rest or ["--help"])
    except WeitiaoError as error:
        _say_error(error.sentence())
        return error.exit_code
    except KeyboardInterrupt:
        _say_error(say("cli.interrupted"))
        return INTERRUPTED
    except _TerminatedError:
        _say_error(say("cli.terminated"))
        return TERMINATED
    except BrokenPipeError:
        # The reader has gone, as with `weitiao runs | head`: nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # whatever is left is either a full disk or our fault
        return _unforeseen(error)


def _choose_language(arguments: list[str]) -> list[str]:
    """Speak the language that ``--lang`` names, wherever it stands; return the other arguments."""
    set_language(from_environment())
    rest: list[str] = []
    waiting = iter(arguments)
    for word in waiting:
        name, equals, value = word.partition("=")
        if word == "--":
            return [*rest, word, *waiting]
        if name != "--lang":
            rest.append(word)
            continue
        wanted = value if equals else next(waiting, "")
        found = next((language for language in LANGUAGES if language == wanted.lower()), None)
        if found is None:
            raise RecipeError("cli.usage.language", value=wanted)
        set_language(found)
    return rest


def _carry_out(arguments: list[str]) -> int:
    import typer
    from typer.exceptions import TyperException

    from weitiao.cli.app import command_line
    from weitiao.cli.usage import complaint

    try:
        code = command_line().main(arguments, prog_name="weitiao", standalone_mode=False)
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    except typer.Exit as error:
        code = error.exit_code
    except TyperException as error:
        _say_error(complaint(error))
        return error.exit_code
    if code == INTERRUPTED:  # typer makes this of a Ctrl-C
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _leave_in_order_when_terminated() -> None:
    def leave(number: int, frame: object) -> NoReturn:
        raise _TerminatedError

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, leave)


def _say_error(text: str) -> None:
    from weitiao.cli.screen import clean, screen, sentence

    sentence(screen(to_stderr=True), clean(text), "red")


def _unforeseen(error: Exception) -> int:
    """Say that the disk is full, or that the fault is ours and where its trace lies."""
    if os.environ.get("WEITIAO_DEBUG") == "1":
        traceback.print_exc()
    if _disk_is_full(error):
        _say_error(say("error.disk_full", path=getattr(error, "filename", None) or Path.cwd()))
        return WeitiaoError.exit_code
    trace = "".join(traceback.format_exception(error))
    try:
        handle, name = tempfile.mkstemp(prefix="weitiao-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as out:
            out.write(trace)
    except OSError:
        name = "–"
    what = str(error).strip().partition("\n")[0]
    _say_error(say("cli.defect", what=f"{type(error).__name__}: {what}"[:200], path=name))
    return DEFECT


def _disk_is_full(error: Exception) -> bool:
    """Return whether the disk is full; libraries in Rust say so in the text of their errors."""
    full = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in full
    return any(f"os error {number})" in str(error) for number in full)
