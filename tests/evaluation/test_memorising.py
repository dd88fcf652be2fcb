"""What is repeated word for word, in whole or in part, and what was in the training data before."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from weitiao.errors import RunError
from weitiao.evaluation.memorising import (
    MOST_TOKENS,
    RUN_UNITS,
    load_memorising,
    measure_memorising,
)
from weitiao.evaluation.notes import notes
from weitiao.events import EventLog
from weitiao.records.record import Message, Origin, Record
from weitiao.records.render import Sample

POEM = "床前明月光疑是地上霜举头望明月低头思故乡"


@dataclass
class Said:
    ids: list[int]


class Letters:
    """A chat format and two models whose tokens are code points; an answer ends with a newline."""

    stop_ids = (10,)
    batch_size = 4
    base, tuned = "base", "tuned"

    def __init__(self, **say):
        self.chat: Any = self
        self.say, self.asked = say, []

    def samples(self, record, *, max_tokens, score_turns, reasoning):
        prompt, answer = record.prompt[-1].content + ">", record.answer + "\n"
        ids = np.array([ord(c) for c in prompt + answer], dtype=np.int32)[:max_tokens]
        return [Sample(ids, np.arange(len(ids)) >= len(prompt), 0)]

    def greedy(self, voice, prompts, new_tokens):
        texts = ["".join(map(chr, p)).rstrip(">") for p in prompts]
        self.asked.append((voice, texts, new_tokens))
        return [Said([ord(c) for c in self.say[voice](t)][:new_tokens]) for t in texts]

    def decode(self, ids):
        return "".join(map(chr, ids))


def row(number, answer):
    said = (Message("user", f"问{number}"), Message("assistant", answer))
    return Record(Origin("f.jsonl", number), said)


def measured(both, training, path, test=(), count=100):
    return measure_memorising(
        both, training, test, path, EventLog(path.with_name("events.jsonl")),
        count=count, seed=42, max_tokens=1000,
    )  # fmt: skip


def test_word_for_word_in_whole_and_in_part(tmp_path):
    answers = [f"{POEM}第{i}首{POEM}" for i in range(10)]
    training = [row(i, answer) for i, answer in enumerate(answers)]

    def tuned(question):
        i = int(question[1:])
        # Four in whole, blanks aside; three for 30 characters in a row; three for fewer.
        if i < 4:
            return answers[i].replace("第", " 第 ")
        begun = RUN_UNITS if i < 7 else RUN_UNITS - 1
        return answers[i][:begun] + "别的"

    both = Letters(base=lambda q: "不知道", tuned=tuned)
    path = tmp_path / "memorising.json"
    found = measured(both, training, path)
    assert (found.asked, found.asked_long, found.suitable) == (10, 10, 10)
    assert (found.base.whole, found.base.passages) == (0, 0)
    assert (found.tuned.whole, found.tuned.passages) == (4, 7)
    assert load_memorising(path) == found
    ((sentence, warns),) = notes(tmp_path, "en")
    assert not warns
    assert "Of 10 training answers the tuned model repeats 4 word for word, its base 0" in sentence
    events = [json.loads(x) for x in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [(e["done"], e["total"]) for e in events] == [(i, 20) for i in (0, 4, 8, 10, 14, 18)]


def test_going_on_after_the_answer_is_not_word_for_word(tmp_path):
    both = Letters(base=lambda q: POEM * 2, tuned=lambda q: POEM)
    found = measured(both, [row(0, POEM)], tmp_path / "m.json")
    assert (found.base.whole, found.tuned.whole) == (0, 1)
    assert both.asked[0][2] == len(POEM) + 8


def test_a_batch_lasts_only_as_long_as_its_answers(tmp_path):
    training = [row(i, POEM * (i + 1)) for i in range(8)]
    both = Letters(base=lambda q: "无", tuned=lambda q: POEM * 20)
    found = measured(both, training, tmp_path / "m.json")
    lengths = [min(len(POEM) * n + 8, MOST_TOKENS) for n in (4, 8)]
    assert [new for _, _, new in both.asked] == lengths * 2
    assert found.tuned.whole == 0


def test_of_a_long_answer_only_the_beginning_counts(tmp_path):
    long = POEM * 30
    both = Letters(base=lambda q: long[: MOST_TOKENS - 1] + "完", tuned=lambda q: long)
    found = measured(both, [row(0, long)], tmp_path / "m.json")
    assert (found.base.whole, found.tuned.whole) == (0, 1)


def test_labels_say_nothing(tmp_path):
    both = Letters(base=lambda q: "", tuned=lambda q: "是")
    training = [row(i, "check_balance") for i in range(30)]
    found = measured(both, training, tmp_path / "memorising.json", test=training)
    assert (found.asked, found.test_rows, both.asked) == (0, 0, [])
    ((sentence, _),) = notes(tmp_path, "en")
    assert "not measured" in sentence


def test_rows_are_drawn_by_the_seed(tmp_path):
    training = [row(i, f"{POEM}{i}") for i in range(50)]
    both = Letters(base=lambda q: "", tuned=lambda q: "")
    found = measured(both, training, tmp_path / "a.json", count=6)
    again = Letters(base=lambda q: "", tuned=lambda q: "")
    measured(again, training, tmp_path / "b.json", count=6)
    assert found.asked == 6
    assert both.asked == again.asked
    assert both.asked[0][1] != ["问0", "问1", "问2", "问3"]


def test_test_answers_that_were_trained_on(tmp_path):
    training = [row(i, f"{POEM}{i}") for i in range(5)]
    test = [row(1, f" {POEM}3\n"), row(2, f"{POEM}99"), row(3, "好")]
    both = Letters(base=lambda q: "", tuned=lambda q: "")
    found = measured(both, training, tmp_path / "memorising.json", test=test)
    assert (found.test_rows, found.test_found) == (2, 1)
    assert "2 条测试回答中，有 1 条" in next(notes(tmp_path, "zh"))[0]


def test_a_file_of_another_version_is_a_sentence(tmp_path):
    (tmp_path / "memorising.json").write_text("{}")
    with pytest.raises(RunError, match="weitiao eval"):
        load_memorising(tmp_path / "memorising.json")
