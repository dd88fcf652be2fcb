"""Another model as the judge of two answers, at any service that speaks OpenAI's protocol."""

from weitiao.evaluation.judge.judge import judge_answers, require_affordable, settings_of
from weitiao.evaluation.judge.present import judge_sentences
from weitiao.evaluation.judge.results import Judged, RowVerdict, RubricLine, load_judged

__all__ = [
    "Judged",
    "RowVerdict",
    "RubricLine",
    "judge_answers",
    "judge_sentences",
    "load_judged",
    "require_affordable",
    "settings_of",
]
