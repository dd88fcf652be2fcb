"""Tasks of lm-eval: what it reports becomes lines; a real task of six questions is carried out."""

import json
import math
from importlib.util import find_spec
from pathlib import Path

import pytest

from weitiao.errors import RecipeError, RunError
from weitiao.evaluation import lm_eval_tasks
from weitiao.evaluation.lm_eval_tasks import find_tasks, load_lm_eval, measure_lm_eval
from weitiao.events import EventLog
from weitiao.plan.recipe import load_recipe

needs_package = pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-eval is an extra")

ROWS = [(f"{a}+{b}=", int(a + b == 4)) for a, b in ((2, 2), (1, 1), (3, 1), (1, 3), (0, 2), (2, 0))]
TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {rows}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: gold
metric_list:
  - metric: acc
metadata:
  version: 3
"""


def side(**values):
    return {
        "results": {
            "tea": {"alias": "tea", "sample_len": 400, "acc,none": 0.5, "acc_stderr,none": 0.02},
            "talk": {"sample_len": 30, "em,strict": 0.25, "em_stderr,strict": "N/A",
                     "ppl,none": 9.0, "ppl_stderr,none": 0.1},
            **values,
        },
        "versions": {"tea": 1, "talk": 2.0},
        "n-shot": {"tea": 0, "talk": 5},
        "higher_is_better": {"tea": {"acc": True}, "talk": {"em": True, "ppl": False}},
    }  # fmt: skip


def lines(base, tuned):
    found = list(lm_eval_tasks._lines(base, tuned))
    return lm_eval_tasks._adjusted(found, base["higher_is_better"])


def test_what_the_package_reports_becomes_lines():
    tuned = side(tea={"acc,none": 0.6, "acc_stderr,none": 0.02},
                 talk={"em,strict": 0.75, "em_stderr,strict": "N/A", "ppl,none": 9.1,
                       "ppl_stderr,none": 0.1})  # fmt: skip
    acc, em, ppl = lines(side(), tuned)
    assert (acc.task, acc.metric, acc.version, acc.rows, acc.shots) == ("tea", "acc", "1", 400, 0)
    assert acc.difference == pytest.approx(0.1)
    assert acc.error == pytest.approx(math.sqrt(2) * 0.02)
    # By hand: z = 3.5355, two-sided p = 0.000407; the smaller of two, so twice that.
    assert acc.p_adjusted == pytest.approx(2 * 0.000407, rel=2e-3)
    assert acc.change == "better"
    assert (em.metric, em.rows, em.shots) == ("em (strict)", 30, 5)
    assert (em.base_error, em.error, em.p_adjusted, em.change) == (None, None, None, None)
    assert (ppl.change, ppl.p_adjusted) == ("same", pytest.approx(0.4795, abs=1e-3))


def test_a_lower_value_is_better_where_the_package_says_so():
    tuned = side(talk={"em,strict": 0.25, "ppl,none": 8.0, "ppl_stderr,none": 0.1})
    assert lines(side(), tuned)[2].change == "better"
    tuned["results"]["talk"]["ppl,none"] = 10.0
    assert lines(side(), tuned)[2].change == "worse"


def test_a_group_has_the_rows_of_those_of_its_tasks_that_have_the_metric():
    group = {"acc,none": 0.4, "sample_len": 430, "sample_count": {"acc,none": 400}}
    assert lines(side(all=group), side(all=group))[-1].rows == 400


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(lm_eval_tasks, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"pip install 'weitiao\[lm-eval\]'"):
        find_tasks(["arc_easy"])


def test_another_versions_file_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "lm_eval.json").write_text('{"tasks": []}')
    with pytest.raises(RunError, match=r"lm_eval\.json .* weitiao benchmark"):
        load_lm_eval(tmp_path / "lm_eval.json")


@pytest.fixture
def task(tmp_path, monkeypatch):
    """Sums with two choices."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    text = [json.dumps({"question": q, "choices": ["2", "4"], "gold": gold}) for q, gold in ROWS]
    (tmp_path / "sums.jsonl").write_text("\n".join(text))
    (tmp_path / "sums.yaml").write_text(TASK.format(name="sums", rows="sums.jsonl"))
    return "sums.yaml"


def share_right(model, tokenizer, rows):
    """Return what lm-eval calls acc, counted by hand: the likelier of two continuations."""
    import torch

    def log_p(question, choice):
        asked, whole = (tokenizer.encode(t) for t in (question, f"{question} {choice}"))
        with torch.no_grad():
            logits = model(torch.tensor([whole[:-1]])).logits[0].log_softmax(-1)
        return sum(logits[i - 1, whole[i]].item() for i in range(len(asked), len(whole)))

    right = [(log_p(q, "4") > log_p(q, "2")) == bool(gold) for q, gold in rows]
    return sum(right) / len(right)


@needs_package
def test_a_task_of_ones_own_is_asked_of_both_models(task, tmp_path, capfd):
    import torch

    from weitiao.api.begin import source_of
    from weitiao.models.load import load_model, load_tokenizer
    from weitiao.models.pair import Voice

    source = source_of(load_recipe())
    tokenizer = load_tokenizer(source)
    base, tuned = (load_model(source, torch.float32, torch.device("cpu")) for _ in range(2))
    torch.manual_seed(1)
    with torch.no_grad():
        weights = tuned.get_input_embeddings().weight
        weights += 0.1 * torch.randn_like(weights)
    path, heard = tmp_path / "lm_eval.json", []
    tasks = find_tasks([task])
    capfd.readouterr()
    found = measure_lm_eval(
        tasks, (Voice(base), Voice(tuned)), tokenizer, path,
        EventLog(None, (heard.append,)), batch_size=2,
    )  # fmt: skip
    assert [event.data["which"] for event in heard] == ["base", "tuned"]
    (line,) = found.lines
    assert (line.task, line.metric, line.version, line.rows) == ("sums", "acc", "3", len(ROWS))
    assert line.base == share_right(base, tokenizer, ROWS)
    assert line.tuned == share_right(tuned, tokenizer, ROWS)
    assert line.base != line.tuned, "choose another seed: this test needs two models"
    assert load_lm_eval(path) == found
    assert capfd.readouterr() == ("", ""), "the package's own bars and warnings"


@needs_package
def test_tasks_that_are_none_are_told_with_near_ones(task):
    Path("broken.yaml").write_text(TASK.format(name="gone", rows="gone.jsonl"))
    with pytest.raises(RecipeError, match=r"arc_esay.*arc_easy"):
        find_tasks(["arc_esay"])
    with pytest.raises(RecipeError, match=r"no task file nope\.yaml"):
        find_tasks(["nope.yaml"])
    with pytest.raises(RunError, match=r"broken\.yaml cannot be loaded.*gone\.jsonl"):
        find_tasks(["broken.yaml"])
