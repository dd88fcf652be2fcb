"""What the pages promise: commands run, links lead somewhere, both languages say the same."""

import ast
import io
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from torch.distributed.run import get_args_parser

from chat_service import Service, last_user, serving
from weitiao import cli
from weitiao.cli.app import command_line
from weitiao.errors import RecipeError
from weitiao.evaluation import speed
from weitiao.evaluation.evaluate import load_results
from weitiao.plan import rules
from weitiao.plan.recipe import load_recipe, options_from
from weitiao.serving.settings import ServerSettings
from weitiao.words import set_language

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "README.zh-CN.md",
    "docs/guide.md": "docs/guide.zh-CN.md",
    "docs/data.md": "docs/data.zh-CN.md",
    "docs/training.md": "docs/training.zh-CN.md",
    "docs/evaluation.md": "docs/evaluation.zh-CN.md",
    "docs/export.md": "docs/export.zh-CN.md",
    "docs/serving.md": "docs/serving.zh-CN.md",
}
BOTH = [*PAGES, *PAGES.values()]
ALL = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "base_model").glob("*.md")]

SERVICE = "http://localhost:8000/v1"
"""Where the pages say that a service is; the tests ask one of their own instead."""

SERVER = "http://127.0.0.1:8000"
"""Where `weitiao serve` answers on the pages; in the tests it takes any port that is free."""

_BLOCK = re.compile(r"^```(sh|python|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
_SETTING = re.compile(r"`([a-z_.]+=[^`\s]+)`")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")

OTHERS = {"--logdir", "--jinja", *_FLAG.findall(get_args_parser().format_help())}
"""Options of TensorBoard, llama.cpp and torchrun."""


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of everything on the page that can be run or saved."""
    return _BLOCK.findall(text_of(page))


@dataclass
class Server:
    """What the last `weitiao serve` of a page started; it ends with the next one, or the page."""

    address: str = SERVER
    process: subprocess.Popen[bytes] | None = None

    def start(self, line: str) -> None:
        self.end()
        said, log = Path("serve.out"), Path("serve.log")
        command = [str(Path(sys.executable).with_name("weitiao")), *shlex.split(line)[1:]]
        with said.open("wb") as out, log.open("wb") as err:
            self.process = subprocess.Popen([*command, "--port", "0"], stdout=out, stderr=err)
        until = time.monotonic() + 300
        while self.process.poll() is None and time.monotonic() < until:
            found = re.search(r"http://127\.0\.0\.1:\d+", said.read_text(encoding="utf-8"))
            if found and httpx2.get(f"{found[0]}/ready", timeout=60).status_code == 200:
                self.address = found[0]
                return
            time.sleep(0.2)
        pytest.fail(f"{line} does not get ready: {log.read_text(encoding='utf-8')}")

    def end(self) -> None:
        if self.process is None:
            return
        process, self.process = self.process, None
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(120) == 0, Path("serve.log").read_text(encoding="utf-8")
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def server(home: Path) -> Iterator[Server]:
    started = Server()
    yield started
    started.end()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that looks like the project's where the pages look at it."""
    (tmp_path / "src").symlink_to(ROOT / "src")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEITIAO_LANG", "en")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path
    set_language("en")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All that a run measures by itself, but less of each; and nobody waits for a busy core."""
    monkeypatch.setattr(rules, "MOST_QUESTIONS", 20)
    monkeypatch.setattr(rules, "rows_by_heart", lambda asked, _: 5 if asked is None else asked)
    monkeypatch.setattr(speed, "LONG", speed.FEWEST_TOKENS)
    monkeypatch.setattr(speed, "BATCHES", 1)
    # The model is small: threads would spend their time waiting for each other.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def service() -> Iterator[Service]:
    """A service that words a question anew, and drafts what a passage's last line says."""

    def answer(asked: dict[str, Any]) -> str:
        said = re.search(r"<(text|passage)>\n(.*)\n</\1>", last_user(asked), re.DOTALL)
        assert said, "the request holds no text"
        if said[1] == "text":
            return f"请教一下，{said[2]}"
        line = said[2].splitlines()[-1]
        return json.dumps([{"question": "泡完茶怎样收拾盖碗？", "answer": line}])

    with serving(answer) as running:
        yield running


def run_line(line: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run one command as it stands; only what would install or run these tests is looked at."""
    if line.startswith("weitiao serve "):
        server.start(line)
    elif line.startswith("curl "):
        if shutil.which("curl"):
            asked = subprocess.run([*shlex.split(line), "-sS", "--fail", "--max-time", "300"])
            assert asked.returncode == 0, line
    elif line.startswith("weitiao "):
        monkeypatch.setattr(sys, "stdin", io.StringIO())  # a conversation ends at once
        assert cli.main(shlex.split(line)[1:]) == 0, line
    elif line.startswith("make "):
        command = ["make", "-n", *line.split()[1:]]
        planned = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert planned.returncode == 0, planned.stderr
        assert {"make demo": "weitiao demo", "make test": "pytest"}[line] in planned.stdout
    elif line == ". .venv/bin/activate":
        found = subprocess.run(["sh", "-c", f"{line} && command -v weitiao"], capture_output=True)
        assert found.stdout.strip(), "the environment that is made activate has no weitiao"
    else:
        pytest.fail(f"nothing here knows how to run: {line}")


def save(text: str) -> None:
    """Write a block under the name in its first line."""
    first = text.partition("\n")[0]
    assert re.fullmatch(r"# [\w.]+", first), f"a file to be saved names itself: {first}"
    Path(first.removeprefix("# ")).write_text(text, encoding="utf-8")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("page", PAGES)
def test_everything_on_the_page_runs(
    page: str, home: Path, service: Service, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = blocks(page)
    assert len({language for language, _ in found}) >= 2, "the search finds too little"
    for language, text in found:
        if language == "sh":
            for line in text.splitlines():
                asked = line.replace(SERVICE, service.url).replace(SERVER, server.address)
                run_line(asked, server, monkeypatch)
        elif language == "yaml":
            save(text)
        else:
            exec(compile(text.replace(SERVER, server.address), page, "exec"), {})
    assert bool(service.requests) == (SERVICE in text_of(page))
    if "\ncurl " in text_of(page) and not shutil.which("curl"):
        pytest.skip("everything else ran, but curl is not installed")


@pytest.mark.usefixtures("quick")
def test_a_quick_demo_runs(home: Path) -> None:
    quick = ("limit=200", "max_steps=2", "rows=8", "max_new_tokens=16", "resamples=100")
    assert cli.main(["demo", *quick]) == 0
    assert load_results(home / "runs/demo/evaluation/results.json").rows == 8
    assert (home / "runs/demo/report.html").is_file()


@pytest.mark.slow
def test_the_demo_shows_a_large_gain(home: Path) -> None:
    assert cli.main(["demo"]) == 0
    results = load_results(home / "runs/demo/evaluation/results.json")
    intent = results.score("field:intent")
    assert results.verdict.outcome == "better"
    assert intent.base.value < 0.05
    assert intent.tuned.value >= 0.8


@pytest.mark.parametrize("page", PAGES)
def test_both_languages_show_the_same_commands(page: str) -> None:
    assert blocks(page) == blocks(PAGES[page])


@pytest.mark.parametrize("page", BOTH)
def test_options_and_settings_that_are_named_exist(page: str) -> None:
    text = text_of(page)
    known = {"--help", "--lang", *flags(command_line()), *OTHERS}
    assert set(_FLAG.findall(text)) - known == set()
    settings = [setting for setting in _SETTING.findall(text) if setting != "key=value"]
    assert settings
    for setting in settings:
        try:
            load_recipe(None, [setting])
        except RecipeError:
            options_from(ServerSettings, [setting], {})


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_the_transcript_is_there(page: str) -> None:
    _, _, rest = text_of(page).partition("<!-- transcript -->")
    transcript, end, _ = rest.partition("<!-- /transcript -->")
    assert end
    assert "weitiao chat runs/demo" in transcript


def flags(command: Any) -> set[str]:
    own = {name for option in command.params for name in option.opts}
    return own.union(*(flags(below) for below in getattr(command, "commands", {}).values()))


@pytest.mark.parametrize("page", ALL, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [link for link in _LINK.findall(text) if not (page.parent / link).exists()] == []


def test_the_pitfalls_are_held_by_tests_that_exist() -> None:
    named = _TEST.findall(text_of("docs/footguns.md"))
    assert len(named) > 20
    missing = {(file, name) for file, name in named if name not in functions(ROOT / file)}
    assert missing == set()


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
