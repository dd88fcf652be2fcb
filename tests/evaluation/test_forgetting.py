"""The general probe, and what it says of models that moved away from their base or did not."""

import json
from collections import Counter

import numpy as np
import pytest
from made_pair import made_pair

from weitiao.errors import ModelError, RunError
from weitiao.evaluation.forgetting import (
    PROBE_VERSION,
    load_forgetting,
    load_probe,
    measure,
    measure_forgetting,
    probe_digest,
)
from weitiao.evaluation.notes import notes
from weitiao.evaluation.units import has_han
from weitiao.events import EventLog
from weitiao.plan.evaluate_options import EvaluateOptions
from weitiao.plan.rules import MOST_QUESTIONS

OPTIONS = EvaluateOptions(resamples=200)


def test_the_probe_covers_five_fields_in_both_languages():
    probe = load_probe()
    cells = Counter((q.category, q.language) for q in probe)
    assert len(probe) == MOST_QUESTIONS >= 200
    assert len(cells) == 10
    assert set(cells.values()) == {22}
    assert len({q.prompt for q in probe}) == len({q.id for q in probe}) == len(probe)
    assert all(has_han(q.prompt) == (q.language == "zh") for q in probe)
    assert all(q.id.startswith(f"{q.category}-{q.language}-") for q in probe)


def test_a_changed_question_asks_for_another_version():
    known = {1: "be673406ac91c286a26301a37d9546a7f497f4012ac9c4e48ce7847e9af3724f"}
    assert probe_digest() == known[PROBE_VERSION]


def test_a_part_of_the_probe_is_balanced_and_always_the_same():
    part = load_probe(60)
    assert set(Counter((q.category, q.language) for q in part).values()) == {6}
    assert part == load_probe(60)
    assert part[:10] == load_probe(10)


def test_what_did_not_move_forgot_nothing(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    path = tmp_path / "forgetting.json"
    found = measure_forgetting(made_pair(), OPTIONS, path, log, count=40)
    whole = found.whole
    assert (found.level, found.asked, found.available) == ("none", 40, 220)
    assert (whole.kl.value, whole.rise.value, whole.agreement.value) == (0, 0, 1)
    assert whole.base_loss == whole.tuned_loss > 0
    assert [(p.language, p.category) for p in found.parts] == [
        ("en", None), ("zh", None), (None, "knowledge"), (None, "reasoning"),
        (None, "instruction"), (None, "chat"), (None, "safety"),
    ]  # fmt: skip
    assert sum(p.questions for p in found.parts[:2]) == whole.questions == 40
    assert sum(p.tokens for p in found.parts[2:]) == whole.tokens <= 40 * measure.ANSWER_TOKENS
    assert load_forgetting(path) == found
    told = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert {e["kind"] for e in told} == {"forgetting.progress"}
    assert [(e["done"], e["total"]) for e in told][:: len(told) - 1] == [(0, 40), (40, 40)]
    assert next(notes(tmp_path, "en"))[1] is False


def test_what_moved_far_is_warned_of(tmp_path):
    path = tmp_path / "forgetting.json"
    found = measure_forgetting(made_pair(moved=0.5), OPTIONS, path, EventLog(), count=20)
    whole = found.whole
    assert found.level == "much"
    assert whole.tuned_loss - whole.base_loss == pytest.approx(whole.rise.value)
    assert whole.rise.low > 0
    assert whole.kl.low > 0
    assert whole.agreement.high < 0.5
    for language, words in (("en", "Fewer epochs"), ("zh", "减少训练轮数")):
        ((sentence, warns),) = notes(tmp_path, language)
        assert warns
        assert words in sentence


def test_intervals_are_those_of_questions_not_of_tokens():
    """Answers of one length, so that the ratio is a plain mean with a known error."""
    draw = np.random.default_rng(3)
    kl = draw.normal(20, 6, 400)
    sums = np.stack([np.full(400, 10.0), kl, 2 * kl, kl, np.full(400, 9.0)], axis=1)
    part = measure._part(sums, EvaluateOptions(), "chat", None)
    error = 1.96 * kl.std() / 10 / 20
    assert part.kl.value == pytest.approx(kl.mean() / 10)
    assert [part.kl.low, part.kl.high] == pytest.approx(
        [part.kl.value - error, part.kl.value + error], abs=error / 5
    )
    assert part.rise == part.kl
    assert part.agreement.low == part.agreement.high == 0.9
    assert measure._part(sums[:4], EvaluateOptions(), "chat", None).kl.low is None


@pytest.mark.parametrize(
    ("agreement", "level"),
    [(1.0, "none"), (measure.SOME, "none"), (measure.MUCH, "some"), (0.0, "much")],
)
def test_levels(agreement, level):
    assert measure.level_of(agreement) == level
    if 0 < agreement < 1:
        assert measure.level_of(agreement - 1e-9) != level


def test_a_broken_model_is_a_sentence(tmp_path):
    both = made_pair(moved=float("nan"))
    with pytest.raises(ModelError, match="learning rate"):
        measure_forgetting(both, OPTIONS, tmp_path / "f.json", EventLog(), count=10)
    assert not (tmp_path / "f.json").exists()


def test_a_base_that_says_nothing_is_a_sentence(tmp_path, monkeypatch):
    both = made_pair()
    both.chat.stop_ids = tuple(range(len(both.chat.tokenizer)))
    with pytest.raises(ModelError, match="says nothing"):
        measure_forgetting(both, OPTIONS, tmp_path / "f.json", EventLog(), count=10)


def test_a_file_of_another_version_is_a_sentence(tmp_path):
    (tmp_path / "forgetting.json").write_text('{"probe_version": 0}')
    with pytest.raises(RunError, match="weitiao eval"):
        load_forgetting(tmp_path / "forgetting.json")
