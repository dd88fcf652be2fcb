"""Forgetting, memorising and speed beside the scores: told, made up for, never in the way."""

import json
import shutil

import pytest

from weitiao import api
from weitiao.errors import RunError
from weitiao.evaluation import speed
from weitiao.evaluation.forgetting import load_forgetting
from weitiao.evaluation.memorising import load_memorising
from weitiao.evaluation.speed import load_speed

FILES = ("forgetting.json", "memorising.json", "speed.json")


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run."""
    shutil.copytree(finished / "runs" / "tea", tmp_path / "tea")
    return api.open_run(str(tmp_path / "tea"))


def test_a_run_measures_all_three(run):
    found = load_forgetting(run.evaluation / "forgetting.json")
    assert (found.asked, found.available) == (10, 220)
    # The answers of this data are shorter than what says anything of memorising.
    assert load_memorising(run.evaluation / "memorising.json").asked == 0
    assert load_speed(run.evaluation / "speed.json").device == "cpu"


def test_only_what_is_missing_is_measured(run):
    before = {name: (run.evaluation / name).read_bytes() for name in FILES}
    results = run.evaluation.joinpath("results.json").read_bytes()
    run.evaluation.joinpath("forgetting.json").unlink()
    run.evaluation.joinpath("memorising.json").write_text('{"of": "another version"}')
    kinds = set()
    api.evaluate(run, (lambda event: kinds.add(event.kind),))
    assert kinds == {"forgetting.progress"}
    assert load_memorising(run.evaluation / "memorising.json").asked == 0
    assert run.evaluation.joinpath("speed.json").read_bytes() == before["speed.json"]
    assert run.evaluation.joinpath("results.json").read_bytes() == results
    kinds.clear()
    api.evaluate(run, (lambda event: kinds.add(event.kind),))
    assert kinds == set()


def test_a_measure_that_fails_leaves_the_rest(run, monkeypatch):
    for name in FILES:
        run.evaluation.joinpath(name).unlink()

    def failing(*_):
        raise RuntimeError("out of memory\nat great length")

    told = []
    with monkeypatch.context() as patch:
        patch.setattr("weitiao.evaluation.forgetting.measure_forgetting", failing)
        results = api.evaluate(run, (told.append,))
    assert results.rows > 0
    failed = [dict(event.data) for event in told if event.kind == "evaluation.failed"]
    assert failed == [{"which": "forgetting", "cause": "out of memory"}]
    assert not run.evaluation.joinpath("forgetting.json").exists()
    load_speed(run.evaluation / "speed.json")
    api.evaluate(run)
    load_forgetting(run.evaluation / "forgetting.json")


def test_the_screen_tells_what_failed(run, weitiao, monkeypatch):
    run.evaluation.joinpath("speed.json").unlink()

    def failing(*_):
        raise RuntimeError("no clock")

    monkeypatch.setattr(speed, "measure_speed", failing)
    said = weitiao("eval", run.path)
    assert said.code == 0
    assert "Not measured: speed. no clock" in said.out + said.err
    assert "general questions" in said.out


def test_results_of_another_version_are_made_again_from_the_answers(run):
    results = run.evaluation / "results.json"
    before, answers = results.read_bytes(), (run.evaluation / "tuned.jsonl").read_bytes()
    results.write_text('{"of": "another version"}')
    again = api.evaluate(run)
    assert again.rows > 0
    assert json.loads(results.read_bytes())["scores"] == json.loads(before)["scores"]
    assert (run.evaluation / "tuned.jsonl").read_bytes() == answers


def test_a_measure_can_be_asked_for_afterwards(run):
    recipe = api.recipe_of(run)
    off = {"evaluate": recipe.evaluate.model_copy(update={"forgetting": 0})}
    path = run.evaluation / "forgetting.json"
    with pytest.raises(RunError, match="forgetting"):
        api.open_or_start(str(run.path), recipe.model_copy(update=off), None, "resume")
    path.unlink()
    api.open_or_start(str(run.path), recipe.model_copy(update=off), None, "resume")
    api.evaluate(run)
    assert not path.exists()


def test_what_may_be_nothing_can_be_unset_and_what_the_plan_settles_stays(run):
    def said(*settings: str):
        recipe = api.recipe_for(None, overrides=settings)
        api.open_or_start(str(run.path), recipe, None, "resume")
        return api.recipe_of(run)

    (run.evaluation / "forgetting.json").unlink(missing_ok=True)
    (run.evaluation / "results.json").unlink(missing_ok=True)
    epochs = api.recipe_of(run).train.epochs
    assert said("evaluate.toxicity_url=http://127.0.0.1:9/s").evaluate.toxicity_url
    assert said("epochs=null", "evaluate.toxicity_url=null").evaluate.toxicity_url is None
    assert api.recipe_of(run).train.epochs == epochs is not None
