"""Answers on held-out rows: written, taken up again after a kill, and measured."""

import json
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources

import numpy as np
import pytest

from weitiao.errors import DataError, RunError
from weitiao.evaluation.answers import Answerer, answer_rows, answerer, read_answers
from weitiao.evaluation.evaluate import evaluate, held_out, load_results
from weitiao.evaluation.suite import load_suite
from weitiao.events import EventLog
from weitiao.plan.evaluate_options import EvaluateOptions
from weitiao.records.record import Message, Origin, Record
from weitiao.records.render import Sample

OPTIONS = EvaluateOptions(resamples=200)
SUITE = load_suite()
SIZES = {"batch_size": 4, "max_tokens": 99}


class LettersChat:
    """A chat format whose tokens are code points; ``stop_ids`` is the newline."""

    stop_ids = (10,)

    def samples(self, record, row, *, max_tokens, score_turns, reasoning="learn"):
        if record.text is not None:
            prompt, answer = record.text[:1], record.text[1:]
        else:
            prompt = "|".join(m.content for m in record.prompt) + ">"
            answer = record.answer + "\n"
        thought, closed, after = answer.partition("</think>")
        if closed and reasoning == "drop":
            answer, closed = after, ""
        ids = np.array([ord(c) for c in prompt + answer], dtype=np.int32)[:max_tokens]
        unscored = len(thought + closed) if closed and reasoning == "context" else 0
        return [Sample(ids, np.arange(len(ids)) >= len(prompt) + unscored, row)]

    def answer_text(self, text):
        return text.rpartition("</think>")[2].strip()


@dataclass
class Generation:
    ids: list[int]
    stopped: bool = True


class Model:
    """Answers with ``say`` of the prompt; dies at call number ``dies_at``."""

    def __init__(self, say, loss=1.0, dies_at=None):
        self.say, self.loss, self.dies_at = say, loss, dies_at
        self.calls, self.prompts = 0, []

    def generate(self, prompts):
        self.calls += 1
        if self.calls == self.dies_at:
            raise KeyboardInterrupt
        texts = ["".join(map(chr, p)) for p in prompts]
        self.prompts += texts
        return [Generation([ord(c) for c in self.say(t)]) for t in texts]

    def losses(self, samples):
        return [(self.loss * int(s.scored.sum()), int(s.scored.sum())) for s in samples]

    def answerer(self, identity="m"):
        return Answerer(
            LettersChat(), self.generate, self.losses, lambda i: "".join(map(chr, i)), identity
        )


def records(count=20):
    return [
        Record(
            Origin("f.jsonl", i + 1),
            (
                Message("system", "s"),
                Message("user", "问" * (i + 1)),
                Message("assistant", "答" * (i + 1)),
            ),
        )
        for i in range(count)
    ]


def answer_all(model, path, identity="m"):
    """Answer the twenty records into ``path``."""
    return answer_rows(
        records(),
        range(20),
        model.answerer(identity),
        path,
        EventLog(),
        **SIZES,
    )


def right(prompt):
    return "<think>想想</think>" + "答" * prompt.count("问")


def test_answers_are_written_in_the_order_of_the_rows(tmp_path):
    model, path = Model(right), tmp_path / "evaluation" / "base.jsonl"
    log = EventLog(tmp_path / "events.jsonl")
    got = answer_rows(records(), range(20), model.answerer(), path, log, **SIZES)
    assert [a.row for a in got] == list(range(20))
    assert read_answers(path) == got
    assert list(path.parent.iterdir()) == [path]
    third = got[2]
    assert third.prompt == (("system", "s"), ("user", "问问问"))
    assert (third.reference, third.answer, third.text) == (
        "答答答",
        "答答答",
        "<think>想想</think>答答答",
    )
    assert (third.loss_sum, third.loss_tokens, third.line) == (4.0, 4, 3)
    # The longest prompts go first, and a prompt is what precedes the scored tokens.
    assert model.prompts[0] == "s|" + "问" * 20 + ">"
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [e["done"] for e in events] == [0, 4, 8, 12, 16, 20]
    assert {e["which"] for e in events} == {"base"}


@pytest.mark.parametrize(("reasoning", "scored"), [("learn", 12), ("context", 2), ("drop", 2)])
def test_the_loss_is_that_of_what_was_trained(tmp_path, reasoning, scored):
    said = (Message("user", "问"), Message("assistant", "想想</think>答"))
    model = Model(right)
    asking = replace(model.answerer(), reasoning=reasoning)
    path = tmp_path / "base.jsonl"
    got = answer_rows([Record(Origin("f", 1), said)], [0], asking, path, EventLog(), **SIZES)
    assert got[0].loss_tokens == scored
    assert model.prompts == ["问>"], "the model is asked the same, whatever was trained"


def test_a_killed_evaluation_goes_on(tmp_path):
    path = tmp_path / "base.jsonl"
    first = Model(right, dies_at=3)
    with pytest.raises(KeyboardInterrupt):
        answer_all(first, path)
    assert not path.exists()
    partial = path.with_name("base.jsonl.partial")
    with partial.open("ab") as out:
        out.write(b'{"row": 3, "ke')
    second = Model(right, dies_at=3)
    with pytest.raises(KeyboardInterrupt):
        answer_all(second, path)
    third = Model(right)
    got = answer_all(third, path)
    assert [len(m.prompts) for m in (first, second, third)] == [8, 8, 4]
    assert [a.row for a in got] == list(range(20))
    assert not partial.exists()


def test_answers_of_another_model_are_not_taken(tmp_path):
    for identity, expected in (("a", 20), ("a", 0), ("b", 20)):
        model = Model(right)
        answer_all(model, tmp_path / "tuned.jsonl", identity)
        assert len(model.prompts) == expected


def test_a_loss_that_is_no_number_is_kept_as_none(tmp_path):
    model = Model(right, loss=float("nan"))
    got = answer_rows(
        records(2), range(2), model.answerer(), tmp_path / "t.jsonl", EventLog(),
        **SIZES,
    )  # fmt: skip
    assert [a.loss_sum for a in got] == [None, None]
    assert read_answers(tmp_path / "t.jsonl") == got


def test_passages_are_not_asked(tmp_path):
    passages = [Record(Origin("f", i), text="一段文字") for i in range(10)]
    model = Model(right)
    results = evaluate(
        passages, model.answerer(), Model(right, 0.5).answerer("t"), OPTIONS, SUITE, tmp_path,
        EventLog(), **SIZES,
    )  # fmt: skip
    assert model.calls == 0
    assert results.kind == "passage"
    assert results.verdict.outcome == "better"


def test_evaluate_measures_and_writes_everything(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    base, tuned = Model(lambda _: "不会"), Model(right, 0.5)
    results = evaluate(
        records(), base.answerer(), tuned.answerer("t"), OPTIONS, SUITE, tmp_path, log, **SIZES
    )
    assert results.verdict.outcome == "better"
    assert results.score("exact_match").tuned.value == 1
    assert load_results(tmp_path / "results.json") == results
    done = json.loads((tmp_path / "events.jsonl").read_text().splitlines()[-1])
    assert (done["kind"], done["outcome"], done["rows"]) == ("evaluation.done", "better", 20)


def test_categories_are_those_that_the_rows_name(tmp_path):
    named = [
        replace(record, metadata={"类别": "甲" if row % 2 else "乙"})
        for row, record in enumerate(records())
    ]
    results = evaluate(
        named, Model(right).answerer(), Model(lambda _: "不会").answerer("t"), OPTIONS, SUITE,
        tmp_path, EventLog(), **SIZES,
    )  # fmt: skip
    assert results.category_column == "类别"
    assert sorted((c.name, c.line.rows) for c in results.categories) == [("乙", 10), ("甲", 10)]
    assert load_results(tmp_path / "results.json") == results


def test_only_as_many_rows_as_asked_for(tmp_path):
    options = OPTIONS.model_copy(update={"rows": 7})
    model = Model(right)
    results = evaluate(
        records(), model.answerer(), model.answerer("t"), options, SUITE, tmp_path, EventLog(),
        **SIZES,
    )  # fmt: skip
    assert results.rows == 7
    assert held_out(20, 7, 42) == [a.row for a in read_answers(tmp_path / "base.jsonl")]
    assert held_out(5, 7, 42) == [0, 1, 2, 3, 4]


def test_nothing_held_out_is_a_sentence(tmp_path):
    model = Model(right)
    with pytest.raises(DataError, match=r"data\.split"):
        evaluate(
            [], model.answerer(), model.answerer(), OPTIONS, SUITE, tmp_path, EventLog(), **SIZES
        )


def test_broken_results_are_a_sentence(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(RunError, match="weitiao eval"):
        load_results(tmp_path / "results.json")
    with pytest.raises(RunError, match="weitiao eval"):
        load_results(tmp_path / "none.json")


def test_a_model_of_ours_answers(tmp_path):
    """The whole way with a real, tiny, untrained model: prompts, decoding, loss, base context."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    from weitiao.models.generate import Sampling
    from weitiao.records.render import ChatFormat

    folder = resources.files("weitiao.models") / "embedded"
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    entered = []

    @contextmanager
    def base():
        entered.append(True)
        yield

    chat = ChatFormat(tokenizer)
    ours = answerer(
        model, chat, Sampling(max_new_tokens=5), pad_id=0, identity="tiny", context=base
    )
    path = tmp_path / "base.jsonl"
    got = answer_rows(records(3), range(3), ours, path, EventLog(), batch_size=2, max_tokens=64)
    assert len(entered) == 4
    assert [a.tokens for a in got] == [5, 5, 5]
    row = records(3)[2]
    asked = chat.prompt_ids(row.prompt)
    # The greedy continuation and the loss, worked out by the plain model.
    ids = torch.tensor([asked])
    with torch.no_grad():
        for _ in range(5):
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
        assert got[2].text == tokenizer.decode(ids[0, len(asked) :])
        whole = torch.tensor([[*asked, *tokenizer.encode("答答答<|im_end|>")]])
        log_p = model(whole).logits[0, :-1].log_softmax(-1)
        expected = -log_p.gather(1, whole[0, 1:, None])[len(asked) - 1 :].sum()
    assert got[2].loss_sum == pytest.approx(expected.item(), rel=1e-4)
    assert got[2].loss_tokens == 4
