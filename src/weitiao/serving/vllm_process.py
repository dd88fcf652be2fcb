"""vLLM as a process: finding it, starting it, and ending it with everything it has started."""

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2

from weitiao.errors import ModelError
from weitiao.serving import vllm_guard

VARIABLE = "WEITIAO_VLLM"
"""The environment variable that names the environment where ``--vllm`` does not."""

OLDEST = "0.12"
"""The first vLLM whose documentation has all that is used: ``--uds``, ``return_token_ids``."""

LOOK_EVERY = 0.1
"""Seconds between two looks at it."""

_PATIENCE = 180.0
"""Seconds that ``import vllm`` may take, on a cold disk."""

_TAIL = 64 << 10
_NOT_THEIRS = ("PYTHON", "VIRTUAL_ENV", "__PYVENV", "WEITIAO_", "VLLM_API_KEY")
_SETTINGS = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # Its server has to end with its engine, or nobody would start it again.
    "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH": "0",
}
_ERROR = re.compile(r"[\w.]*(?:Error|Exception|error): .+")
_NO_CAUSE = "Engine core initialization failed"
"""What vLLM's server says in the end, when the cause was told before by its engine."""


def find_vllm(named: str | Path | None = None) -> Path | None:
    """Return the Python that ``named`` or else WEITIAO_VLLM means; None where neither is given.

    Raises:
        ModelError: it is neither a Python nor the folder of a virtual environment.
    """
    told = str(named or os.environ.get(VARIABLE, "")).strip()
    if not told:
        return None
    # Not resolved: an environment's Python is a link, and what it leads to has another's packages.
    path = Path(told).expanduser().absolute()
    python = path / "bin" / "python" if path.is_dir() else path
    if not python.is_file() or not os.access(python, os.X_OK):
        raise ModelError("error.vllm_not_found", path=told)
    return python


def check_vllm(python: Path) -> str:
    """Return the version of vLLM that ``python`` imports, which takes some seconds.

    Raises:
        ModelError: it cannot import vLLM, or vLLM is too old.
    """
    command = [str(python), "-c", "import vllm; print(); print(vllm.__version__)"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            env=_environment(python),
            # Python looks for modules where it is started.
            cwd=python.parent,
        )
        failed, said = done.returncode, (done.stderr if done.returncode else done.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        failed, said = 1, str(error)
    last = (said.strip().splitlines() or [f"exit {failed}"])[-1].strip()
    if failed:
        raise ModelError("error.vllm_missing", python=python, cause=last[:300])
    if _number(last) < _number(OLDEST):
        raise ModelError("error.vllm_old", python=python, version=last, oldest=OLDEST)
    return last


@dataclass(slots=True, eq=False)
class Server:
    """One run of vLLM: the process that guards it, the way to it, and where its log begins."""

    process: "subprocess.Popen[bytes]"
    client: httpx2.AsyncClient
    log: Path
    since: int


def begin(python: Path, arguments: Sequence[str], log: Path) -> Server:
    """Start ``vllm serve`` with ``arguments``; what it says is added to ``log``.

    Raises:
        ModelError: the system does not allow it.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            # For its user alone, unlike a port, so that no key is needed; never in the way of an
            # earlier run's socket; and no place where the modules of someone else lie about.
            folder = tempfile.mkdtemp(prefix="weitiao-vllm-")
            socket = f"{folder}/socket"
            since = out.tell()
            process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", vllm_guard.__file__, folder),
                    *(str(python), "-m", "vllm.entrypoints.cli.main", "serve", *arguments),
                    *("--uds", socket),
                ],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=_environment(python),
                cwd=folder,
                # Ctrl-C is for us; we end vLLM after the answers that are still running.
                start_new_session=True,
            )
    except OSError as error:
        raise ModelError("error.vllm_not_begun", cause=error) from error
    client = httpx2.AsyncClient(
        base_url="http://localhost",
        transport=httpx2.AsyncHTTPTransport(
            uds=socket, limits=httpx2.Limits(max_connections=None, max_keepalive_connections=32)
        ),
        # How long an answer may take is for those to say who ask.
        timeout=httpx2.Timeout(None, connect=10.0),
    )
    return Server(process, client, log, since)


async def until_ready(server: Server, seconds: float) -> None:
    """Return when vLLM answers.

    Raises:
        ModelError: it has ended, or does not answer within ``seconds``.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if (code := server.process.poll()) is not None:
            cause = _cause(server.log, server.since)
            raise ModelError("error.vllm_ended", code=code, cause=cause, log=server.log)
        with contextlib.suppress(httpx2.HTTPError):
            if (await server.client.get("/health", timeout=5.0)).status_code == 200:
                return
        await asyncio.sleep(LOOK_EVERY)
    cause = _cause(server.log, server.since)
    raise ModelError("error.vllm_slow", seconds=round(seconds), cause=cause, log=server.log)


async def end(server: Server) -> None:
    """End vLLM and all that it has started, which may take some seconds."""
    if server.process.stdin is not None:
        server.process.stdin.close()
    until = time.monotonic() + vllm_guard.GRACE + 5.0
    while server.process.poll() is None and time.monotonic() < until:
        await asyncio.sleep(LOOK_EVERY / 2)
    server.process.kill()
    server.process.wait()
    await server.client.aclose()


def _environment(python: Path) -> dict[str, str]:
    """Return ours without what belongs to our own Python, and with theirs first on the path."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_NOT_THEIRS)}
    ours = str(Path(sys.executable).parent)
    places = (place for place in kept.get("PATH", os.defpath).split(os.pathsep) if place != ours)
    return {**kept, **_SETTINGS, "PATH": os.pathsep.join((str(python.parent), *places))}


def _number(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version; what has none is taken for the newest."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (sys.maxsize,)


def _cause(log: Path, since: int) -> str:
    """Return the line of the log, from ``since`` on, that most likely says what went wrong."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(since, log.stat().st_size - _TAIL))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        found = [match[0] for line in lines if (match := _ERROR.search(line))]
        causes = [line for line in found if _NO_CAUSE not in line]
        return (causes or found or lines or ["…"])[-1].strip()[:300]
    return "…"
