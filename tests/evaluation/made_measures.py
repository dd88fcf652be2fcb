"""What is measured beside the scores, made up, in a run's folder."""

from pathlib import Path

from weitiao.evaluation.beside import write_measure
from weitiao.evaluation.forgetting import Forgetting, Part
from weitiao.evaluation.judge import Judged, RubricLine
from weitiao.evaluation.lm_eval_tasks import LmEval, TaskLine
from weitiao.evaluation.memorising import Memorising, Repeated
from weitiao.evaluation.people import People
from weitiao.evaluation.people.results import Agreement, Comment, LevelResult
from weitiao.evaluation.resample import Estimate
from weitiao.evaluation.speed import Pace, Speed

HOSTILE = "<b>{{ 7 * 7 }}</b><script>"
CATEGORIES = ("knowledge", "reasoning", "instruction", "chat", "safety")


def made_measures(folder: Path) -> None:
    """Write a file of each kind into ``folder``."""
    for name, measure in (
        ("forgetting", _forgetting()),
        ("memorising", _memorising()),
        ("speed", _speed()),
        ("judge", _judged()),
        ("people", _people()),
        ("lm_eval", _lm_eval()),
    ):
        write_measure(folder / f"{name}.json", measure)


def _forgetting() -> Forgetting:
    def part(category: str | None, language: str | None, questions: int, agreement: float) -> Part:
        around = Estimate(agreement, agreement - 0.04, agreement + 0.04)
        kl = Estimate(1.3 - agreement, 1.2 - agreement, 1.4 - agreement)
        rise = Estimate(0.9 - agreement, 0.8 - agreement, 1.0 - agreement)
        return Part(category, language, questions, 30 * questions, 1.2, 1.5, rise, kl, around)

    languages = [part(None, "en", 110, 0.35), part(None, "zh", 110, 0.31)]
    parts = [part(name, None, 44, 0.3 + 0.05 * i) for i, name in enumerate(CATEGORIES)]
    return Forgetting(
        probe_version=1,
        probe_sha256="5e" * 32,
        asked=220,
        available=220,
        answer_tokens=32,
        level="much",
        whole=part(None, None, 220, 0.33),
        parts=(*languages, *parts),
        confidence=0.95,
        resamples=500,
        seed=42,
        seconds=31.2,
    )


def _memorising() -> Memorising:
    return Memorising(
        training_rows=1010,
        suitable=870,
        asked=40,
        asked_long=33,
        base=Repeated(0, 1),
        tuned=Repeated(9, 17),
        test_rows=101,
        test_found=4,
        units=20,
        run_units=30,
        tokens=256,
        seed=42,
        seconds=18.0,
    )


def _speed() -> Speed:
    return Speed(
        base=Pace(0.031, 212.4, 0.97, False, 2, 1240.0, 1_400_000_000),
        tuned=Pace(0.034, 188.2, 1.09, True, 2, 1112.0, 1_420_000_000),
        device="cpu",
        prompt_tokens=43,
        batch_size=16,
        batch_tokens=32,
        long_tokens=200,
    )


def _judged() -> Judged:
    def level(name: str, base: float, tuned: float) -> RubricLine:
        change = tuned - base
        return RubricLine(
            name,
            Estimate(base, base - 0.1, base + 0.1),
            Estimate(tuned, tuned - 0.1, tuned + 0.1),
            Estimate(change, change - 0.2, change + 0.2),
            0.0005,
        )

    return Judged(
        model=f"judge-9 {HOSTILE}",
        prompt_version=1,
        rows=120,
        wins=78,
        ties=24,
        losses=18,
        win_rate=Estimate(0.75, 0.67, 0.82),
        p_value=0.0001,
        disagreed=0.11,
        rubric=(level("correct", 2.1, 4.2), level("helpful", 2.8, 4.0), level("readers", 3.1, 3.9)),
        left_out={"nonsense": 2},
        verdicts=(),
        confidence=0.95,
        requests=240,
        cached=12,
        prompt_tokens=61_000,
        completion_tokens=9_000,
        cost=0.42,
        settings="d1",
    )


def _people() -> People:
    return People(
        version=1,
        one="base",
        other="tuned",
        rows=60,
        rows_to_judge=60,
        identical=3,
        votes=118,
        reviewers={"小王": 60, HOSTILE: 58},
        one_better=11,
        ties=12,
        other_better=37,
        win_rate=Estimate(0.716, 0.59, 0.81),
        p_value=0.0002,
        outcome="other",
        levels=(
            LevelResult(
                "correct",
                60,
                Estimate(0.4, 0.3, 0.5),
                Estimate(0.9, 0.8, 0.97),
                Estimate(0.5, 0.4, 0.6),
            ),
        ),
        agreement=Agreement(rows=58, alike=0.81, kappa=0.62, alpha=0.61),
        disputed=11,
        settled=4,
        adjudicators=("小王",),
        comments=(Comment("我的卡丢了", "小王", "other", f"语气更亲切。{HOSTILE}"),),
        confidence=0.95,
        resamples=500,
        seed=42,
    )


def _lm_eval() -> LmEval:
    line = TaskLine(
        task="arc_easy",
        metric="acc",
        version="1",
        rows=200,
        shots=0,
        base=0.61,
        tuned=0.43,
        base_error=0.034,
        tuned_error=0.035,
        difference=-0.18,
        error=0.049,
        p_adjusted=0.001,
        change="worse",
    )
    return LmEval(("arc_easy",), (line,), 200, False, "0.4.9", 90.0)
