"""Two answers to each row go before the judge, in both orders; its verdict is written down."""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import orjson

from weitiao.endpoint import Answer, Endpoint, EndpointError
from weitiao.errors import DataError, RecipeError
from weitiao.evaluation.answers import Answered
from weitiao.evaluation.evaluate import held_out
from weitiao.evaluation.judge.budget import REPLY_TOKENS, Budget, cost, require_within
from weitiao.evaluation.judge.prompts import (
    LEVELS,
    PROMPT_VERSION,
    STORY_LEVELS,
    Vote,
    Winner,
    again,
    read_vote,
    request,
)
from weitiao.evaluation.judge.results import Judged, Outcome, RowVerdict, RubricLine, Side
from weitiao.evaluation.proportions import sign_test, win_rate
from weitiao.evaluation.resample import Floats, compare_paired, holm
from weitiao.evaluation.suite import Suite
from weitiao.evaluation.units import units
from weitiao.events import EventLog
from weitiao.plan.evaluate_options import EvaluateOptions, JudgeOptions
from weitiao.plan.recipe import Recipe
from weitiao.records.files import write_atomic

_ORDERS = 2
_TOKENS_A_UNIT = 1.3
"""Of an English word, by common tokenizers; a Han character takes less."""

_PATIENCE = 5
"""After so many rows without a verdict, and none with one, the judge is at fault."""

Pair = tuple[Answered, Answered]

_BASE_FIRST: dict[Winner, Side] = {"A": "base", "B": "tuned", "tie": "tie"}
_TUNED_FIRST: dict[Winner, Side] = {"A": "tuned", "B": "base", "tie": "tie"}
_OUTCOMES: dict[Side, Outcome] = {"tuned": "win", "base": "loss", "tie": "tie"}


@dataclass(frozen=True, slots=True)
class _Asked:
    """What came of one row: a verdict or why there is none, and what it took."""

    verdict: RowVerdict | Literal["nonsense", "no_answer"]
    answers: tuple[Answer, ...]


def judge_answers(
    base: Sequence[Answered],
    tuned: Sequence[Answered],
    endpoint: Endpoint,
    recipe: Recipe,
    suite: Suite,
    path: Path,
    events: EventLog,
) -> Judged:
    """Let the model at ``endpoint`` compare at most ``evaluate.judge.rows`` rows; write ``path``.

    tuned wins a row, or loses it, where the judge says so in both orders; else it is a tie.
    Emits ``judge.estimate`` (rows, requests, tokens, cost) before the first request,
    ``judge.progress`` (done, total) and ``judge.done`` (rows, wins, ties, losses, seconds).

    Raises:
        DataError: no row has two answers.
        RecipeError: more is expected, or could be spent, than the settings allow.
        EndpointError: the judge cannot be asked, or answers nothing that can be read. What it
            answered is in the endpoint's cache.
        RunError: the verdict cannot be written.
    """
    options, started = recipe.evaluate, time.monotonic()
    other = {t.row: t for t in tuned if t.prompt}
    pairs = [(b, other[b.row]) for b in base if b.row in other]
    if not pairs:
        raise DataError("error.judge_no_rows")
    drawn = [pairs[i] for i in held_out(len(pairs), options.judge.rows, options.seed)]
    levels = levels_for(suite)
    expected = _expected(drawn, levels, options.judge)
    require_within(options.judge, *expected)
    events.emit(
        "judge.estimate",
        rows=len(drawn),
        requests=_ORDERS * len(drawn),
        tokens=sum(expected),
        cost=cost(options.judge, *expected),
    )
    asked = _ask_all(drawn, endpoint, options.judge, levels, events)
    judged = _judged(asked, levels, options, endpoint, settings_of(recipe, suite, base, tuned))
    write_atomic(path, orjson.dumps(asdict(judged), option=orjson.OPT_INDENT_2))
    events.emit(
        "judge.done",
        rows=judged.rows,
        wins=judged.wins,
        ties=judged.ties,
        losses=judged.losses,
        seconds=round(time.monotonic() - started, 1),
    )
    return judged


def levels_for(suite: Suite) -> tuple[str, ...]:
    """Return the levels of the rubric; stories have some of their own."""
    return STORY_LEVELS if any(n.startswith("story_") for n in suite.scores) else LEVELS


def settings_of(
    recipe: Recipe, suite: Suite, base: Sequence[Answered], tuned: Sequence[Answered]
) -> str:
    """Return a digest of all that decides what the judge is asked, the answers included."""
    options = recipe.evaluate.judge.model_dump(mode="json")
    place = (recipe.endpoint.url, recipe.endpoint.model)
    answers = [(one.key, one.answer) for one in (*base, *tuned)]
    asked = [place, options, PROMPT_VERSION, levels_for(suite), answers]
    said = json.dumps(asked, sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def require_affordable(recipe: Recipe) -> None:
    """Make sure that the judge's settings agree, as far as can be told before there are answers.

    Raises:
        RecipeError: it needs more requests than are allowed, or a cost is bounded without a price.
    """
    judge, most = recipe.evaluate.judge, recipe.endpoint.max_requests
    needed = _ORDERS * min(judge.rows, recipe.evaluate.rows)
    if needed > most:
        raise RecipeError("error.judge_requests", needed=needed, limit=most)
    if judge.max_cost is not None and cost(judge, 0, 0) is None:
        raise RecipeError("error.judge_no_price")


def _expected(
    pairs: Sequence[Pair], levels: tuple[str, ...], judge: JudgeOptions
) -> tuple[int, int]:
    """Return about how many tokens are sent and answered."""
    sent = 0
    for base, tuned in pairs:
        (message,) = request(base, base.answer, tuned.answer, levels, judge.instructions)
        sent += round(_TOKENS_A_UNIT * len(units(message["content"], punctuation=True)))
    return _ORDERS * sent, _ORDERS * len(pairs) * REPLY_TOKENS


def _ask_all(
    pairs: Sequence[Pair],
    endpoint: Endpoint,
    judge: JudgeOptions,
    levels: tuple[str, ...],
    events: EventLog,
) -> list[_Asked]:
    asked: list[_Asked] = []
    verdicts, budget = 0, Budget(judge, endpoint)
    for one in endpoint.map(lambda pair: _ask(pair, budget, judge, levels), pairs):
        asked.append(one)
        verdicts += isinstance(one.verdict, RowVerdict)
        if not verdicts and len(asked) in (_PATIENCE, len(pairs)):
            raise _fault(one, endpoint)
        events.emit("judge.progress", done=len(asked), total=len(pairs))
    return asked


def _fault(one: _Asked, endpoint: Endpoint) -> EndpointError:
    last = one.answers[-1]
    said = " ".join(last.text.split())[:80]
    return last.error or EndpointError("error.judge_nonsense", model=endpoint.model, reply=said)


def _ask(pair: Pair, budget: Budget, judge: JudgeOptions, levels: tuple[str, ...]) -> _Asked:
    """Ask about one row in both orders; a reply that cannot be read is asked for once more."""
    base, tuned = pair
    sampling = {} if judge.temperature is None else {"temperature": judge.temperature}
    answers: list[Answer] = []
    votes: list[Vote] = []
    for a, b in ((base.answer, tuned.answer), (tuned.answer, base.answer)):
        messages = request(base, a, b, levels, judge.instructions)
        vote = None
        for _ in range(2):
            answers.append(budget.ask(messages, **sampling))
            if answers[-1].error is not None:
                return _Asked("no_answer", tuple(answers))
            if vote := read_vote(answers[-1].text, levels):
                break
            messages = again(messages, answers[-1].text)
        if vote is None:
            return _Asked("nonsense", tuple(answers))
        votes.append(vote)
    return _Asked(_verdict(base.row, *votes), tuple(answers))


def _verdict(row: int, first: Vote, second: Vote) -> RowVerdict:
    """Return what two votes come to: base stood first in the one, tuned in the other."""
    base_first, tuned_first = _BASE_FIRST[first.winner], _TUNED_FIRST[second.winner]
    return RowVerdict(
        row=row,
        outcome=_OUTCOMES[base_first] if base_first == tuned_first else "tie",
        base_first=base_first,
        tuned_first=tuned_first,
        base=_means(first.a, second.b),
        tuned=_means(first.b, second.a),
        why=first.why,
    )


def _means(first: tuple[float, ...], second: tuple[float, ...]) -> tuple[float, ...]:
    return tuple((one + other) / 2 for one, other in zip(first, second, strict=True))


def _judged(
    asked: Sequence[_Asked],
    levels: tuple[str, ...],
    options: EvaluateOptions,
    endpoint: Endpoint,
    settings: str,
) -> Judged:
    verdicts = tuple(a.verdict for a in asked if isinstance(a.verdict, RowVerdict))
    counts = Counter(verdict.outcome for verdict in verdicts)
    wins, ties, losses = (counts[outcome] for outcome in ("win", "tie", "loss"))
    answers = [answer for one in asked for answer in one.answers]
    sent = sum(answer.prompt_tokens for answer in answers)
    answered = sum(answer.completion_tokens for answer in answers)
    return Judged(
        model=endpoint.model,
        prompt_version=PROMPT_VERSION,
        rows=len(verdicts),
        wins=wins,
        ties=ties,
        losses=losses,
        win_rate=win_rate(wins, ties, losses, options.confidence),
        p_value=sign_test(wins, losses),
        disagreed=sum(v.base_first != v.tuned_first for v in verdicts) / len(verdicts),
        rubric=_rubric(verdicts, levels, options),
        left_out=dict(Counter(a.verdict for a in asked if isinstance(a.verdict, str))),
        verdicts=verdicts,
        confidence=options.confidence,
        requests=len(answers),
        cached=sum(answer.cached for answer in answers),
        prompt_tokens=sent,
        completion_tokens=answered,
        cost=cost(options.judge, sent, answered),
        settings=settings,
    )


def _rubric(
    verdicts: Sequence[RowVerdict], levels: tuple[str, ...], options: EvaluateOptions
) -> tuple[RubricLine, ...]:
    def column(values: Sequence[float]) -> Floats:
        return np.array([(value, 1.0) for value in values])

    found = [
        compare_paired(
            column([verdict.base[i] for verdict in verdicts]),
            column([verdict.tuned[i] for verdict in verdicts]),
            lambda sums: sums[..., 0] / sums[..., 1],
            confidence=options.confidence,
            resamples=options.resamples,
            seed=options.seed,
        )
        for i in range(len(levels))
    ]
    adjusted = holm([line.p_value for line in found])
    return tuple(
        RubricLine(name, line.base, line.tuned, line.difference, p_value)
        for name, line, p_value in zip(levels, found, adjusted, strict=True)
    )
