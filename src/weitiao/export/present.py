"""The gate's report in words and written numbers, for the terminal, the page and the card."""

from weitiao.evaluation.present import score_name, written, written_change
from weitiao.export.parity import Form, Parity
from weitiao.words import Language, say

COLUMNS = (
    "target",
    "size",
    "memory",
    "speed",
    "score",
    "difference",
    "answers",
    "likeness",
    "outcome",
)
"""The columns of the table; each is ``parity.column.…`` in the catalogue."""


def headings(language: Language | None = None) -> list[str]:
    """Return the table's headings."""
    return [say(f"parity.column.{name}", language) for name in COLUMNS]


def trained_row(parity: Parity, language: Language | None = None) -> list[str]:
    """Return the line of the model as trained, which the others are held against."""
    score = parity.score()
    value = written(score.name, score.trained) if score else "–"
    label = say("parity.trained", language)
    return [label, *_costs(parity.trained), value, "", "", "", ""]


def row(parity: Parity, language: Language | None = None) -> list[str]:
    """Return the line of one form."""
    score, likeness = parity.score(), parity.likeness
    return [
        parity.target if parity.runner == "transformers" else f"{parity.target}, {parity.runner}",
        *_costs(parity.form),
        written(score.name, score.form) if score else "–",
        _interval(parity, language) if score else "–",
        f"{parity.answers_equal} / {parity.prompts}",
        f"{100 * likeness.agreed:.1f}%, KL {likeness.kl:.1g}" if likeness else "–",
        outcome(parity, language),
    ]


def score_label(parity: Parity, language: Language | None = None) -> str:
    """Return what the score that decides is called."""
    return score_name(parity.verdict_score, language)


def outcome(parity: Parity, language: Language | None = None) -> str:
    """Return in a word or two what came out."""
    if not parity.failures:
        return say("parity.outcome.passed", language)
    key = "parity.outcome.forced" if parity.forced else "parity.outcome.failed"
    return say(key, language)


def sentences(parity: Parity, language: Language | None = None) -> list[str]:
    """Return what is wrong with a form, a sentence for each failure; or that nothing is."""
    values = {"target": parity.target, "prompts": parity.prompts}
    found = []
    for failure in parity.failures:
        score = parity.score()
        if failure == "prompts":
            found.append(say("parity.prompts", language, differ=parity.prompts_differ, **values))
        elif score is not None:
            found.append(
                say(
                    "parity.lost",
                    language,
                    score=score_name(score.name, language),
                    trained=written(score.name, score.trained),
                    form=written(score.name, score.form),
                    interval=_interval(parity, language),
                    **values,
                )
            )
    if not found and parity.score() is None:
        return [say("parity.unmeasured", language, equal=parity.answers_equal, **values)]
    return found or [say("parity.kept", language, equal=parity.answers_equal, **values)]


def written_size(size: int) -> str:
    """Write a number of bytes: ``1.5 GB``, ``24 MB``; a dash where there is no file."""
    if not size:
        return "–"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _costs(form: Form) -> list[str]:
    return [written_size(form.size), written_size(form.memory), f"{form.tokens_per_second:,.0f}"]


def _interval(parity: Parity, language: Language | None) -> str:
    score = parity.score()
    if score is None or score.low is None or score.high is None:
        return "–"
    return written_change(score.name, score.low, score.high, language=language)
