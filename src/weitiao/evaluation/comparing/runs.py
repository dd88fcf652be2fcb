"""Several runs side by side, and the tuned answers of each against those of the first.

Scores are functions of the answers alone, so all of them are computed anew here, by one suite:
that of the first run, whatever the others were evaluated with.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from weitiao.errors import RunError
from weitiao.evaluation.answers import Answered
from weitiao.evaluation.common_rows import asked_answers, in_common
from weitiao.evaluation.compare import Results, compare
from weitiao.evaluation.evaluate import load_results
from weitiao.evaluation.forgetting import Forgetting, load_forgetting
from weitiao.evaluation.judge import Judged, load_judged
from weitiao.evaluation.lm_eval_tasks import LmEval, load_lm_eval
from weitiao.evaluation.memorising import Memorising, load_memorising
from weitiao.evaluation.resample import holm
from weitiao.evaluation.speed import Speed, load_speed
from weitiao.evaluation.suite import Suite
from weitiao.plan.evaluate_options import EvaluateOptions
from weitiao.plan.plan import Plan, read_plan
from weitiao.plan.recipe import Recipe, load_recipe
from weitiao.plan.rules import Reason, because
from weitiao.runs import Run

_OF_NO_ANSWER = ("description", "endpoint.", "evaluate.judge.")
"""Settings that decide neither what is learnt nor what is answered."""

Content = TypeVar("Content")


@dataclass(frozen=True, slots=True)
class Column:
    """One run. ``results``: its base against its tuned model, on its own test rows.

    The measures beside the scores are None where they were not taken.
    """

    name: str
    plan: Plan
    results: Results
    forgetting: Forgetting | None
    memorising: Memorising | None
    speed: Speed | None
    judged: Judged | None
    lm_eval: LmEval | None


@dataclass(frozen=True, slots=True)
class Against:
    """A run's tuned answers (in ``results``: tuned) against the first run's (there: base).

    The rows are those that both answered. The verdict counts how many runs stand against the
    first one (Holm), besides how many scores were looked at.
    """

    name: str
    results: Results


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting that is not the same in all runs, with its value in each as it is written."""

    setting: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunsCompared:
    """What came out. ``against``: of every run but the first; ``notes``: what to bear in mind."""

    columns: tuple[Column, ...]
    against: tuple[Against, ...]
    notes: tuple[Reason, ...]
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class _Read:
    """What is read of a run: ``results`` as they were written, the answers of both models."""

    name: str
    run: Run
    recipe: Recipe
    plan: Plan
    results: Results
    base: list[Answered]
    tuned: list[Answered]


def compare_runs(runs: Sequence[Run]) -> RunsCompared:
    """Compare evaluated runs with the first of them.

    Raises:
        DataError: a list of words that the first run's suite names is gone.
        RecipeError: a run's recipe was changed and cannot be understood any more.
        RunError: they are fewer than two, or one is named twice, is not evaluated, answers no
            questions or has none in common with the first; a file is of another version.
    """
    if len(runs) < 2:
        raise RunError("error.compare_one")
    first, *others = read = [_read(run, name) for run, name in zip(runs, _names(runs), strict=True)]
    suite, options = first.results.suite, first.recipe.evaluate
    notes = [*_suite_notes(read), *_answer_notes(first, others)]
    against = []
    for other in others:
        pairs = in_common(first.tuned, other.tuned, (first.name, other.name))
        if any(a.loss_tokens != b.loss_tokens for a, b in pairs):
            pairs = [(replace(a, loss_sum=None), replace(b, loss_sum=None)) for a, b in pairs]
            notes.append(because("compare.note.tokens", name=other.name, first=first.name))
        against.append(Against(other.name, _compared(pairs, options, suite)))
    counted = _adjusted(against)
    for before, after in zip(against, counted, strict=True):
        if before != after:
            notes.append(because("compare.note.several", name=after.name, runs=len(others)))
    columns = tuple(_column(one, options, suite) for one in read)
    notes += _measure_notes(columns)
    if len({*(c.results.rows for c in columns), *(a.results.rows for a in counted)}) > 1:
        notes.append(because("compare.note.rows"))
    return RunsCompared(columns, tuple(counted), tuple(notes), tuple(_differences(read)))


def _names(runs: Sequence[Run]) -> list[str]:
    """Return what the runs are called: by their paths where two have the same name."""
    places = [run.path.resolve() for run in runs]
    for run, place in zip(runs, places, strict=True):
        if places.count(place) > 1:
            raise RunError("error.compare_twice", name=run.path)
    names = [place.name for place in places]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _read(run: Run, name: str) -> _Read:
    if not run.stage_done("evaluate"):
        raise RunError("error.compare_unevaluated", name=name, path=run.path)
    results = load_results(run.evaluation / "results.json")
    if results.kind == "passage":
        raise RunError("error.compare_passages", name=name)
    base, tuned = (asked_answers(run.evaluation / f"{side}.jsonl") for side in ("base", "tuned"))
    recipe = load_recipe(str(run.recipe))
    return _Read(name, run, recipe, read_plan(run.plan), results, base, tuned)


def _compared(
    pairs: Sequence[tuple[Answered, Answered]], options: EvaluateOptions, suite: Suite
) -> Results:
    """Compare pairs of answers, whatever numbers their rows had."""
    one = [replace(a, row=row) for row, (a, _) in enumerate(pairs)]
    other = [replace(b, row=row) for row, (_, b) in enumerate(pairs)]
    return compare(one, other, options, suite)


def _column(read: _Read, options: EvaluateOptions, suite: Suite) -> Column:
    def measure(name: str, load: Callable[[Path], Content]) -> Content | None:
        path = read.run.evaluation / f"{name}.json"
        return load(path) if path.exists() else None

    return Column(
        name=read.name,
        plan=read.plan,
        results=compare(read.base, read.tuned, options, suite),
        forgetting=measure("forgetting", load_forgetting),
        memorising=measure("memorising", load_memorising),
        speed=measure("speed", load_speed),
        judged=measure("judge", load_judged),
        lm_eval=measure("lm_eval", load_lm_eval),
    )


def _adjusted(against: Sequence[Against]) -> list[Against]:
    """Return the comparisons with verdicts that count that they are several."""
    told = [one for one in against if one.results.verdict.outcome != "cannot_tell"]
    lines = [one.results.score(one.results.verdict.score) for one in told]
    p_values = holm([line.p_value if line.p_value is not None else 1.0 for line in lines])
    chance = {
        one.name for one, p in zip(told, p_values, strict=True) if p > 1 - one.results.confidence
    }
    return [_as_chance(one) if one.name in chance else one for one in against]


def _as_chance(one: Against) -> Against:
    verdict = replace(one.results.verdict, outcome="same")
    return replace(one, results=replace(one.results, verdict=verdict))


def _suite_notes(read: Sequence[_Read]) -> Iterator[Reason]:
    """Say which runs were evaluated with something else than the first one."""
    suite = read[0].results.suite
    for one in read[1:]:
        other = one.results.suite
        if (other.name, other.version, other.digest) != (suite.name, suite.version, suite.digest):
            yield because(
                "compare.note.suite",
                name=one.name,
                suite=_written(other),
                first=read[0].name,
                used=_written(suite),
            )
    if any(one.recipe.evaluate.toxicity_url for one in read):
        yield because("compare.note.toxicity")


def _written(suite: Suite) -> str:
    return f"{suite.name} {suite.version} ({suite.digest[:8] or '–'})"


def _answer_notes(first: _Read, others: Sequence[_Read]) -> Iterator[Reason]:
    """Say whose answers were made in another way than the first run's."""
    wanted = _way_of_answering(first)
    for other in others:
        differing = [
            f"{setting}: {wanted[setting]} / {value}"
            for setting, value in _way_of_answering(other).items()
            if value != wanted.get(setting, value)
        ]
        if differing:
            told = "; ".join(differing)
            yield because("compare.note.answers", name=other.name, first=first.name, told=told)


def _way_of_answering(read: _Read) -> dict[str, object]:
    asked = read.recipe.evaluate
    drawn = {"evaluate.top_p": asked.top_p, "evaluate.seed": asked.seed}
    return {
        "evaluate.temperature": asked.temperature,
        **(drawn if asked.temperature else {}),
        "evaluate.repetition_penalty": asked.repetition_penalty,
        "evaluate.max_new_tokens": read.plan.max_new_tokens,
        "data.max_tokens": read.plan.max_tokens,
        "data.reasoning": read.recipe.data.reasoning,
    }


def _measure_notes(columns: Sequence[Column]) -> Iterator[Reason]:
    """Say what beside the scores was not measured in the same way in all runs."""
    asked = {
        c.name: f"{c.forgetting.asked}, v{c.forgetting.probe_version}"
        for c in columns
        if c.forgetting
    }
    judges = {c.name: (c.judged.model, c.judged.settings) for c in columns if c.judged}
    devices = {c.name: c.speed.device for c in columns if c.speed}
    if len(set(asked.values())) > 1:
        yield because("compare.note.forgetting", told=_told(asked))
    if len(set(judges.values())) > 1:
        yield because("compare.note.judge", told=_told({n: m for n, (m, _) in judges.items()}))
    if len(set(devices.values())) > 1:
        yield because("compare.note.speed", told=_told(devices))


def _told(values: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in values.items())


def _differences(read: Sequence[_Read]) -> Iterator[Difference]:
    settings = [dict(_flat(one.recipe.model_dump(mode="json"))) for one in read]
    for setting in dict.fromkeys(name for one in settings for name in one):
        values = tuple(one.get(setting) for one in settings)
        if any(value != values[0] for value in values) and not setting.startswith(_OF_NO_ANSWER):
            yield Difference(setting, tuple(map(_value, values)))


def _value(value: object) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _flat(options: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in options.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value
