"""A model of a few thousand weights, a small data file, and the command line in this process."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from weitiao import cli
from weitiao.events import EventLog
from weitiao.words import set_language

QUICK = (
    "max_steps=4",
    "eval_every=2",
    "save_every=2",
    "train.batch_size=4",
    "precision=fp32",
    "micro_batch_tokens=512",
    "max_new_tokens=4",
    "resamples=100",
    "forgetting=10",
    "memorising=4",
)
"""Settings for a run of a second; nothing in them depends on how fast the machine is."""


@dataclass(frozen=True)
class Said:
    """What a command line came to."""

    code: int
    out: str
    err: str


Weitiao = Callable[..., Said]


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model with the embedded tokenizer."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from transformers.utils import logging

    import weitiao.models

    # `main` sees to this before transformers is imported; a test may have imported it already.
    logging.disable_progress_bar()
    logging.set_verbosity_error()

    folder = tmp_path_factory.mktemp("base")
    embedded = Path(weitiao.models.__file__).parent / "embedded"
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(embedded / name, folder / name)
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    words = len(vocabulary["model"]["vocab"]) + len(vocabulary["added_tokens"])
    torch.manual_seed(3)
    Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=words,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
        )
    ).save_pretrained(folder)
    return folder


def write_rows(path: Path, count: int = 60) -> Path:
    """Write questions with answers, and two rows that cannot be used."""
    rows = [
        {"prompt": f"第{i}杯茶要泡几分钟？", "response": f"泡{i % 7 + 1}分钟。"}
        for i in range(count)
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    lines += ['{"prompt": "没有写完', json.dumps({"prompt": "没有回答？", "response": ""})]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def finished(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a run called ``tea`` went to its end; only look at it."""
    home = tmp_path_factory.mktemp("finished")
    data = write_rows(home / "tea.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert cli.main(["run", str(data), "--model", str(tiny_base), *QUICK]) == 0
    return home


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "tea.jsonl")


@pytest.fixture
def weitiao(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Weitiao:
    """Carry out a command line in an empty folder, in English."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEITIAO_LANG", "en")

    def carry_out(*words: object) -> Said:
        capfd.readouterr()
        code = cli.main([str(word) for word in words])
        out, err = capfd.readouterr()
        return Said(code, out, err)

    return carry_out


@pytest.fixture(autouse=True)
def _english_afterwards():
    yield
    set_language("en")


def one_sentence(said: Said) -> str:
    """Return the error, having made sure that it is one line and no trace of Python."""
    assert said.code not in (0, cli.DEFECT), said
    lines = said.err.strip().splitlines()
    assert len(lines) == 1, said.err
    assert "Traceback" not in said.err + said.out
    assert "Error" not in lines[0]
    return lines[0]


def break_off(monkeypatch: pytest.MonkeyPatch, weitiao: Weitiao, after: int, *line: object) -> None:
    """Run a command line as if Ctrl-C were pressed after step ``after`` of its training."""
    emit = EventLog.emit

    def interrupt(self: EventLog, what: str, **values: object) -> None:
        emit(self, what, **values)
        if what == "train.step" and values["step"] == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EventLog, "emit", interrupt)
        assert weitiao(*line).code == 130
