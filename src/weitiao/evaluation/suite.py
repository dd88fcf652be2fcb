"""The table of scores, the suites that choose from it, and what kind of answers a set holds."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
from pydantic import Field

from weitiao.errors import RecipeError
from weitiao.evaluation import scores
from weitiao.evaluation.answers import Answered
from weitiao.evaluation.poems import scores as poems
from weitiao.evaluation.poems.poem import Rhymes
from weitiao.evaluation.poems.read import read_poem
from weitiao.evaluation.resample import Floats, Total
from weitiao.evaluation.stories import grades
from weitiao.evaluation.stories import scores as stories
from weitiao.evaluation.units import units
from weitiao.plan.yaml_file import KeyPath, Source, load_yaml, validated
from weitiao.records.options import Options
from weitiao.records.reading import find_files
from weitiao.words import say

DEFAULT = "question_answering"
_SHIPPED = Path(__file__).parent / "suites"

Kind = Literal["json", "short", "text", "passage"]
"""What the reference answers are; told once for the whole set by :func:`kind_of`."""

Form = Literal["share", "number", "points", "characters"]
"""How a score's numbers are written: a share of 1, a plain number, 0–100, a length."""

Tokenisation = Literal["tokens", "whole", "units", "units_marks", "characters", "sacrebleu"]
"""What a score counts; its sentence ``score.<name>.how`` says it in words.

``tokens``: of the model's own tokenizer. ``whole``: the answer or a value in it. ``units``:
see ``units.py``; ``units_marks``: with punctuation. ``sacrebleu``: its ``zh`` or ``13a``.
"""

_ANSWERS: tuple[Kind, ...] = ("json", "short", "text")
_WORDS: tuple[Kind, ...] = ("short", "text")
_EVERY: tuple[Kind, ...] = (*_ANSWERS, "passage")


@dataclass(frozen=True, slots=True)
class Score:
    """A score of the table; its name and how it counts are in the catalogue as ``score.<name>``.

    ``statistics`` gives a row's vector, or None where the score does not apply to the row;
    ``total`` turns sums of them into the score. ``higher_is_better`` None: neither.
    """

    name: str
    higher_is_better: bool | None
    form: Form
    kinds: tuple[Kind, ...]
    statistics: Callable[[Answered], Sequence[float] | None]
    total: Total
    tokenisation: Tokenisation = "whole"


def _mean(sums: Floats) -> Floats:
    return np.asarray(sums[..., 0] / sums[..., 1])


def _perplexity(sums: Floats) -> Floats:
    # exp overflows beyond 709; a loss of 700 nats a token means a broken model anyhow.
    return np.exp(np.minimum(_mean(sums), 700.0))


def _bleu_statistics(row: Answered) -> Sequence[float]:
    found = scores.bleu_statistics(row.answer, row.reference)
    return [*found.counts, *found.totals, found.sys_len, found.ref_len]


def _chrf(row: Answered) -> Sequence[float] | None:
    return scores.chrf_statistics(row.answer, row.reference)


def _loss(row: Answered) -> Sequence[float] | None:
    return None if row.loss_sum is None or not row.loss_tokens else (row.loss_sum, row.loss_tokens)


def _of_pair(
    function: Callable[[str, str], float | None],
) -> Callable[[Answered], tuple[float, float] | None]:
    def statistics(row: Answered) -> tuple[float, float] | None:
        value = function(row.answer, row.reference)
        return None if value is None else (value, 1.0)

    return statistics


def _of_answer(function: Callable[[str], float]) -> Callable[[Answered], tuple[float, float]]:
    return lambda row: (function(row.answer), 1.0)


def _share(
    name: str,
    function: Callable[[str, str], float | None],
    kinds: tuple[Kind, ...],
    tokenisation: Tokenisation = "whole",
) -> Score:
    """Return a score of pairs, whose mean is a share; more is better."""
    return Score(name, True, "share", kinds, _of_pair(function), _mean, tokenisation)


def _of_story(
    name: str,
    function: Callable[[str, str], float | None],
    form: Form,
    tokenisation: Tokenisation = "units",
) -> Score:
    """Return a score of stories of which neither more nor less is better."""
    return Score(name, None, form, ("text",), _of_pair(function), _mean, tokenisation)


_POEMS = {
    "poem_form": poems.poem_form,
    "poem_rhymes": poems.poem_rhymes,
    "poem_tones": poems.poem_tones,
    "poem_links": poems.poem_links,
}

_TABLE = (
    Score("answer_loss", False, "number", _EVERY, _loss, _mean, "tokens"),
    Score("perplexity", False, "number", _EVERY, _loss, _perplexity, "tokens"),
    _share("json_fields", scores.json_fields, ("json",)),
    _share("json_valid", scores.json_valid, ("json",)),
    _share("exact_match", scores.exact_match, _ANSWERS),
    _share("normalised_match", scores.normalised_match, _ANSWERS),
    _share("token_f1", scores.token_f1, _WORDS, "units"),
    _share("rouge_1", scores.rouge_1, ("text",), "units"),
    _share("rouge_2", scores.rouge_2, ("text",), "units"),
    _share("rouge_l", scores.rouge_l, _ANSWERS, "units"),
    _share("meteor", scores.meteor, ("text",), "units"),
    # Answers of fewer than four tokens have no 4-gram: BLEU-4 would read 0 for perfect ones.
    Score(
        "bleu", True, "points", ("json", "text"), _bleu_statistics, scores.bleu_total, "sacrebleu"
    ),
    Score("chrf", True, "points", ("text",), _chrf, scores.chrf_total, "characters"),
    Score("stop_rate", True, "share", _ANSWERS, lambda row: (float(row.stopped), 1.0), _mean),
    Score(
        "repetition",
        False,
        "share",
        _ANSWERS,
        _of_answer(scores.repetition),
        _mean,
        "units_marks",
    ),
    Score("length", None, "characters", _ANSWERS, _of_answer(scores.length), _mean, "characters"),
)
SCORES: dict[str, Score] = {score.name: score for score in _TABLE}
"""Scores with intervals that fit answers on any subject: all that stand in the default suite."""

_SPECIAL = (
    _share("number_match", scores.number_match, _WORDS),
    *(_share(name, score, ("text",)) for name, score in _POEMS.items()),
    _share("story_common", stories.common_share, ("text",), "units"),
    _of_story("story_sentence", stories.sentence_length, "characters"),
    _of_story("story_word_length", stories.word_length, "characters", "characters"),
    _of_story("story_dialogue", stories.dialogue_share, "share"),
)
SPECIAL_SCORES: dict[str, Score] = {score.name: score for score in _SPECIAL}
"""Scores for one subject; they are counted where a suite asks for them."""

TOXICITY, TOXICITY_HTTP = "toxicity", "toxicity_http"
DISTINCT = "distinct_2"
WHOLE_SET: dict[str, Callable[[Iterable[str]], float | None]] = {
    f"distinct_{n}": partial(scores.distinct, n=n) for n in (1, 2, 3)
}
"""Numbers of all answers of a set together, which have no interval."""

NAMES = (
    *SCORES,
    *SPECIAL_SCORES,
    *grades.SHOWN,
    *scores.LABEL_TOTALS,
    TOXICITY,
    TOXICITY_HTTP,
    *WHOLE_SET,
)
"""Every score that a suite may ask for."""

UNDECIDED = {*WHOLE_SET, *(s.name for s in (*_TABLE, *_SPECIAL) if s.higher_is_better is None)}
"""Scores that give no verdict: neither more nor less is better, or they have no interval."""


def score_for(
    name: str,
    references: Sequence[str],
    suite: "Suite | None" = None,
    toxic: Mapping[str, float] | None = None,
) -> Score | None:
    """Return the score called ``name``, made for a set with these references.

    Scores of labels know the labels by the references; None where these are no labels: more
    than :data:`scores.MOST_LABELS` of them, or most rows have one of their own. The lists that
    ``suite`` names stand for our own. ``toxic``: answer → what the user's scorer said of it.

    Raises:
        DataError: a list cannot be read.
    """
    if name in scores.LABEL_TOTALS:
        return _label_score(name, references)
    if name == TOXICITY:
        path = suite.toxic_words if suite else None
        words = scores.read_list(Path(path)) if path else scores.shipped_list()
        found = _of_answer(scores.finder(words))
        return Score(TOXICITY, False, "share", _ANSWERS, found, _mean, "units")
    if name == TOXICITY_HTTP:
        told = _of_pair(lambda answer, _: (toxic or {}).get(answer))
        return Score(TOXICITY_HTTP, False, "share", _ANSWERS, told, _mean)
    if suite is not None and name in _POEMS:
        return _share(name, partial(_POEMS[name], rhymes=suite.rhymes), ("text",))
    if name in grades.SHOWN:
        share = grades.share_by(grades.SHOWN[name], suite.story_words if suite else None)
        return _share(name, share, ("text",), "units")
    return SCORES.get(name) or SPECIAL_SCORES[name]


def _label_score(name: str, references: Sequence[str]) -> Score | None:
    places = scores.label_places(references)
    if len(places) > min(scores.MOST_LABELS, len(references) / 2):
        return None

    def statistics(row: Answered) -> Sequence[float]:
        return scores.label_statistics(row.answer, row.reference, places)

    return Score(name, True, "share", _WORDS, statistics, scores.LABEL_TOTALS[name])


def tokenisation_of(name: str) -> Tokenisation:
    """Return what the score called ``name`` counts."""
    if name in WHOLE_SET or name in grades.SHOWN or name == TOXICITY:
        return "units"
    known = SCORES.get(name) or SPECIAL_SCORES.get(name)
    return known.tokenisation if known else "whole"


def field_score(path: str) -> Score:
    """Return the share of answers whose JSON field ``path`` equals the reference's.

    Rows whose reference has no such field do not count. The name is ``field:<path>``.
    """

    def statistics(row: Answered) -> tuple[float, float] | None:
        found = scores.field_matches(row.answer, row.reference)
        return (float(found[path]), 1.0) if path in found else None

    return Score(f"field:{path}", True, "share", ("json",), statistics, _mean)


def form_of(name: str) -> Form:
    """Return how the numbers of the score called ``name`` are written."""
    known = SCORES.get(name) or SPECIAL_SCORES.get(name)
    return known.form if known else "share"


@dataclass(frozen=True, slots=True)
class Suite:
    """Which scores are reported, in order; ``version`` changes with their meaning.

    ``verdict``: the score that decides, where it applies. ``rows``, ``toxic_words`` and
    ``story_words``: files of the user's. ``digest`` is of all that the suite's files hold: two
    suites with the same are the same. ``tokenisation``: score → what it counts. Results made
    before version 2 have neither. ``rhymes``: the rhyme book that poems are read by.
    """

    name: str
    version: int
    scores: tuple[str, ...]
    verdict: str | None = None
    rows: str | None = None
    toxic_words: str | None = None
    story_words: str | None = None
    digest: str = ""
    tokenisation: dict[str, Tokenisation] = field(default_factory=dict, hash=False)
    rhymes: Rhymes = "pingshui"


class _SuiteFile(Options):
    """What a suite's YAML file may say. Paths are seen from the file's folder."""

    name: str | None = None
    version: int = Field(default=1, ge=1)
    scores: tuple[str, ...] = ()
    verdict: str | None = None
    rows: str | None = None
    toxic_words: str | None = None
    story_words: str | None = None
    rhymes: Rhymes = "pingshui"


def suite_names() -> list[str]:
    """Return the names of the suites that ship with the package."""
    return sorted(p.stem for p in _SHIPPED.glob("*.yaml"))


def load_suite(which: str = DEFAULT) -> Suite:
    """Read the suite called ``which``, or the user's own YAML file at that path.

    Raises:
        RecipeError: there is no such suite, or its file names a score that there is not or
            none that can decide, or cannot be understood.
        DataError: its rows or a list of words cannot be read.
    """
    path = _SHIPPED / f"{which}.yaml"
    if which not in suite_names():
        path = Path(which)
        if path.suffix.lower() not in (".yaml", ".yml"):
            raise RecipeError("error.suite_unknown", name=which, names=", ".join(suite_names()))
    data, positions = load_yaml(path, "suite")
    source = Source(str(path), positions)
    asked = validated(_SuiteFile, data, source, _unknown_scores(data, source))
    if not asked.scores:
        raise RecipeError("error.suite_no_scores", path=path, names=", ".join(NAMES))
    digest = hashlib.sha256(path.read_bytes())
    words, taught, rows = (
        str((path.parent / name).resolve()) if name else None
        for name in (asked.toxic_words, asked.story_words, asked.rows)
    )
    if words:
        digest.update("\n".join(scores.read_list(Path(words))).encode())
    if taught:
        digest.update(repr(sorted(grades.read_grades(Path(taught)).items())).encode())
    for part in find_files(Path(rows)) if rows else ():
        digest.update(part.read_bytes())
    named = tuple(dict.fromkeys((*asked.scores, *filter(None, [asked.verdict]))))
    if UNDECIDED.issuperset(deciding := [asked.verdict] if asked.verdict else named):
        raise RecipeError("error.suite_undecided", path=path, names=", ".join(deciding))
    return Suite(
        name=asked.name or path.stem,
        version=asked.version,
        scores=named,
        verdict=asked.verdict,
        rows=rows,
        toxic_words=words,
        story_words=taught,
        digest=digest.hexdigest()[:16],
        tokenisation={name: tokenisation_of(name) for name in named},
        rhymes=asked.rhymes,
    )


def _unknown_scores(data: Mapping[str, Any], source: Source) -> list[str]:
    """Return a sentence for each score that there is not, with those that are written alike."""
    listed = data.get("scores")
    places: list[tuple[KeyPath, object]] = [(("verdict",), data.get("verdict"))]
    places += (
        [(("scores", i), name) for i, name in enumerate(listed)] if isinstance(listed, list) else []
    )
    return [
        say(
            "error.score_unknown",
            where=source.where(path),
            name=name,
            near=", ".join(get_close_matches(name.lower(), NAMES, n=3, cutoff=0.4) or NAMES),
        )
        for path, name in places
        if isinstance(name, str) and name not in NAMES
    ]


def require_suite(which: str) -> None:
    """Make sure that :func:`load_suite` gives a suite whose scores can be counted here.

    Raises:
        RecipeError: as :func:`load_suite` does, or a library is not installed.
        DataError: as :func:`load_suite` does.
    """
    if any(name in _POEMS for name in load_suite(which).scores):
        read_poem("一")


def kind_of(references: Sequence[str]) -> Kind:
    """Tell what kind of answers a set asks for.

    ``passage``: no answers at all. ``json``: at least 90% of the references are JSON objects.
    ``short``: half of them have at most 3 units, or at most 10 with every answer wanted about
    four times or more (labels). Else ``text``.
    """
    if not any(references):
        return "passage"
    if sum(scores.json_object(r) is not None for r in references) >= 0.9 * len(references):
        return "json"
    typical = median(len(units(r)) for r in references)
    labels = len(set(references)) * 4 <= len(references)
    return "short" if typical <= 3 or (typical <= 10 and labels) else "text"
