"""The review in the terminal: with keys from a pipe, and at a pseudo terminal."""

import io
import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from review_rows import row, vote

from weitiao.cli.review import run_review
from weitiao.cli.screen import screen
from weitiao.errors import RunError
from weitiao.records.record import Lineage, Record
from weitiao.records.review import Session, Votes
from weitiao.words import catalogue, set_language

ROWS = [row(f"问题{i}", f"答案{i}", line=i + 10) for i in range(4)]


@pytest.fixture
def review(votes: Votes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Review with lines of keys from a pipe and return what was shown."""

    def carry_out(keys: str, rows: list[Record] = ROWS, flags=None, language="en") -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO(keys))
        monkeypatch.setenv("EDITOR", "an-editor-needs-a-terminal")
        set_language(language)
        try:
            run_review(Session(rows, votes, "甲", flags=flags, double=1), screen())
        finally:
            set_language("en")
        return capsys.readouterr().out

    return carry_out


def said(votes: Votes) -> list[tuple[str, str]]:
    return [(v.verdict, v.comment) for r in ROWS for v in votes.get(r.id, ()) if v.reviewer == "甲"]


def test_every_key(review, votes: Votes) -> None:
    out = review("a\nA \nb\nr\n答非所问\ne\n第一行\n\n第三行\n.\ns\nq\n")
    assert said(votes) == [("accept", ""), ("reject", "答非所问"), ("edit", "")]
    assert votes[ROWS[2].id][0].edited[-1].content == "第一行\n\n第三行"
    assert "Your decision so far: Accept" in out
    assert "an-editor" not in out
    assert "Row 2 (tea.jsonl line 11) · 1 of 4 reviewed · 1 today" in out
    assert "assistant: 答案3" in out
    assert out.splitlines()[-1].endswith("Run the command again to go on here.")


def test_the_end_of_input_is_quit(review, votes: Votes) -> None:
    assert "1 of 4 reviewed" in review("a\n")
    assert said(votes) == [("accept", "")]
    assert review("e\n没有写完\n")
    assert len(said(votes)) == 1, "a text without its end is not saved"
    assert review("r\n")
    assert len(said(votes)) == 1


def test_to_the_last_row_and_back(review, votes: Votes) -> None:
    out = review("a\na\na\na\nb\nr\n\n\n")
    assert [verdict for verdict, _ in said(votes)] == ["accept"] * 3 + ["reject"]
    assert out.splitlines()[-1] == "4 of 4 reviewed · 4 today · No row is left to review."
    assert review("a\n") == "4 of 4 reviewed · 4 today · No row is left to review.\n"


def test_what_is_not_understood_decides_nothing(review, votes: Votes) -> None:
    out = review("\nx\nb\ne\n答案0\n.\ne\n.\nq\n")
    assert said(votes) == []
    assert out.count("a accept") == 3
    assert "This is the first row." in out
    assert out.count("blank or unchanged") == 2


def test_what_is_shown_of_a_row(review, votes: Votes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalogue(), "flag.refusal", {"en": "refuses", "zh": "拒绝回答"})
    draft = row("问\x1b[2J", lineage=Lineage("茶经\x1b", "draft", True))
    draft.metadata["来源"] = "书\x07\n" * 500
    votes.add(vote(draft, "乙", "reject", comment="很差"))
    out = review("q\n", [draft], {0: ("refusal",)})
    assert "Draft, made from: 茶经" in out
    assert "Flags: refuses" in out
    assert "来源: 书…" in out
    assert "\x1b" not in out + review("q\n", [draft])
    assert "weitiao" not in out, "our own marks"
    assert "很差" not in out, "what others think"
    assert "reject" not in out.replace("r reject", "")
    chinese = review("q\n", [draft], {0: ("refusal",)}, language="zh")
    assert "标记：拒绝回答" in chinese
    assert "已审核 0/1" in chinese


def test_input_in_another_encoding(votes: Votes, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.TextIOWrapper(io.BytesIO("a\ne\n茶".encode("gb18030")), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", pipe)
    with pytest.raises(RunError, match="another encoding than utf-8"):
        run_review(Session(ROWS, votes, "甲"), screen())


AT_A_TERMINAL = """
import json, sys
from pathlib import Path
from weitiao.cli.review import run_review
from weitiao.cli.screen import screen
from weitiao.records.record import Record
from weitiao.records.review import Session, Votes
rows = [Record.from_json(row) for row in json.loads(Path(sys.argv[1]).read_text("utf-8"))]
run_review(Session(rows, Votes(Path(sys.argv[2])), "甲", double=0), screen())
"""


class Terminal:
    """A program at a pseudo terminal: waits for what it shows, and types."""

    def __init__(self, *arguments: object, **environment: str) -> None:
        self.ours, theirs = pty.openpty()
        self.shown = ""
        self.program = subprocess.Popen(
            [sys.executable, "-c", AT_A_TERMINAL, *map(str, arguments)],
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**os.environ, "WEITIAO_LANG": "en", "PYTHONUTF8": "1", **environment},
            # Its own session with this terminal, so that Ctrl-C reaches it as a signal.
            preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(theirs)

    def wait_for(self, text: str) -> None:
        end = time.monotonic() + 20
        while text not in self.shown:
            assert time.monotonic() < end, self.shown
            if select.select([self.ours], [], [], 0.1)[0]:
                self.shown += os.read(self.ours, 4096).decode("utf-8", "replace")
        self.shown = self.shown.partition(text)[2]

    def type(self, text: str) -> None:
        time.sleep(0.1)  # Python itself misses a signal between the prompt and its wait
        os.write(self.ours, text.encode())


@pytest.mark.parametrize("kind", ["xterm", "dumb"])
def test_at_a_terminal(tmp_path: Path, votes: Votes, kind: str) -> None:
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([r.to_json() for r in ROWS]), encoding="utf-8")
    editor = tmp_path / "my editor.py"
    editor.write_text(
        "import sys, pathlib\n"
        "p = pathlib.Path(sys.argv[-1])\n"
        "p.write_text(p.read_text('utf-8') + '改好了\\n', 'utf-8-sig')\n"
    )
    command = f"'{sys.executable}' '{editor}'"
    terminal = Terminal(rows, votes.path, TERM=kind, EDITOR=command, VISUAL="")
    terminal.wait_for("a/e/r/s/b/q> ")
    terminal.type("e\n")
    terminal.wait_for("Row 2")
    terminal.wait_for("a/e/r/s/b/q> ")
    terminal.type("r\n")
    terminal.wait_for("Why?")
    terminal.type("\x03")  # not to be rejected after all
    terminal.wait_for("a/e/r/s/b/q> ")
    terminal.type("a\n")
    terminal.wait_for("Row 3")
    terminal.wait_for("a/e/r/s/b/q> ")
    terminal.type("\x03")
    terminal.wait_for("2 of 4 reviewed")
    assert terminal.program.wait(20) == 0
    votes.refresh()
    assert said(votes) == [("edit", ""), ("accept", "")]
    assert votes[ROWS[0].id][0].edited[-1].content == "答案0改好了"


def test_an_editor_that_does_not_work(tmp_path: Path, votes: Votes) -> None:
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([ROWS[0].to_json()]), encoding="utf-8")
    terminal = Terminal(rows, votes.path, TERM="dumb", VISUAL="no-such-editor --wait")
    terminal.wait_for("a/e/r/s/b/q> ")
    terminal.type("e\n")
    terminal.wait_for("no-such-editor --wait could not be used")
    terminal.wait_for("ends it.")
    terminal.type("新的答案\n.\n")
    terminal.wait_for("That was the last row.")
    terminal.type("\n")
    terminal.wait_for("1 of 1 reviewed")
    assert terminal.program.wait(20) == 0
    votes.refresh()
    assert votes[ROWS[0].id][0].edited[-1].content == "新的答案"
