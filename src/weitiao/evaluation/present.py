"""Results in words and written numbers, for the terminal and the report alike."""

from weitiao.evaluation.compare import Category, Results, ScoreResult
from weitiao.evaluation.resample import Estimate
from weitiao.evaluation.suite import form_of
from weitiao.words import Language, say


def score_name(name: str, language: Language | None = None) -> str:
    """Return what a score is called; ``field:intent`` is a JSON field."""
    if name.startswith("field:"):
        return say("score.field.name", language, field=name.removeprefix("field:"))
    return say(f"score.{name}.name", language)


def score_how(name: str, language: Language | None = None) -> str:
    """Return in a few words what a score counts, and in which units."""
    return say("score.field.how" if ":" in name else f"score.{name}.how", language)


def written(name: str, value: float) -> str:
    """Write a value of the score called ``name``: ``83.5%``, ``2.417``, ``31.0``."""
    form = form_of(name)
    if form == "share":
        return f"{100 * value:.1f}%"
    if form == "number":
        return f"{value:.3f}" if value < 100 else f"{value:.4g}"
    return f"{value:.1f}"


def written_change(name: str, *values: float, language: Language | None = None) -> str:
    """Write one difference with its sign, or the two ends of its interval: ``+1.2 … +3.4``.

    Shares differ by percentage points.
    """
    share, number = form_of(name) == "share", form_of(name) == "number"
    digits = 3 if number and all(abs(value) < 100 for value in values) else 1
    rounded = [round(100 * value if share else value, digits) for value in values]
    # Rounding must not leave a sign before nothing.
    text = " … ".join(f"{v:+.{digits}f}" if v else f"{0:.{digits}f}" for v in rounded)
    return say("unit.points", language, value=text) if share else text


def written_chance(p_value: float) -> str:
    """Write a p-value: ``p = 0.031``, ``p < 0.001``."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def written_interval(name: str, estimate: Estimate, language: Language | None = None) -> str:
    """Write the interval of a difference; empty where there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    return written_change(name, estimate.low, estimate.high, language=language)


def in_numbers(line: ScoreResult, language: Language | None = None) -> dict[str, str]:
    """Return what sentences say of a score: its name, both values, the change, its interval."""
    return {
        "score": score_name(line.name, language),
        "base": written(line.name, line.base.value),
        "tuned": written(line.name, line.tuned.value),
        "change": written_change(line.name, line.difference.value, language=language),
        "interval": written_interval(line.name, line.difference, language),
    }


def verdict_sentence(results: Results, language: Language | None = None) -> str:
    """Return the verdict in one sentence, with its numbers."""
    verdict = results.verdict
    if all(line.name != verdict.score for line in results.scores):
        return say("verdict.no_score", language, suite=results.suite.name)
    if verdict.outcome == "cannot_tell":
        return say("verdict.cannot_tell", language, rows=verdict.rows)
    asked = "verdict.rows.overlap" if results.overlap else "verdict.rows.kept_out"
    said = say(
        f"verdict.{verdict.outcome}",
        language,
        **in_numbers(results.score(verdict.score), language),
        asked=say(asked, language, rows=verdict.rows),
        confidence=f"{100 * results.confidence:g}%",
    )
    if verdict.more_rows is None:
        return said
    return said + say("verdict.more_rows", language, more=_about(verdict.more_rows))


def _about(rows: int) -> str:
    """Write a number of rows to the two digits that can be meant."""
    digits = max(0, len(str(rows)) - 2)
    return f"{-(-rows // 10**digits) * 10**digits:,}"


def caution_sentence(results: Results, name: str, language: Language | None = None) -> str:
    """Return the sentence for one of ``results.verdict.cautions``: a score that got worse."""
    return say("verdict.caution", language, **in_numbers(results.score(name), language))


def category_name(category: Category, language: Language | None = None) -> str:
    """Return what a category is called: as in the data, or in words for the rest together."""
    return say("report.category_rest", language) if category.name is None else category.name


def turned_sentence(results: Results, language: Language | None = None) -> str:
    """Say how many rows turned from right to wrong; empty where answers are neither."""
    turned = results.turned
    if turned is None:
        return ""
    return say("report.turned", language, wrong=turned.wrong, rows=turned.rows, right=turned.right)


def worst_category_sentence(results: Results, language: Language | None = None) -> str:
    """Say in which category it got worse the most; empty where it got worse for certain in none."""
    worse = [c for c in results.categories if c.line.change == "worse"]
    if not worse:
        return ""
    line, name = worse[0].line, category_name(worse[0], language)
    numbers = in_numbers(line, language)
    return say("report.worst_category", language, name=name, rows=line.rows, **numbers)
