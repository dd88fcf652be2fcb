"""What a judge said, in sentences for the terminal and the report alike."""

from weitiao.evaluation.judge.results import Judged
from weitiao.words import Language, say


def judge_sentences(judged: Judged, language: Language | None = None) -> list[str]:
    """Return the verdict with its numbers, then what to know about the judge."""
    certain = judged.p_value is not None and judged.p_value <= 1 - judged.confidence
    outcome = ("better" if judged.wins > judged.losses else "worse") if certain else "same"
    rate = judged.win_rate
    said = [
        say(
            f"judge.verdict.{outcome}",
            language,
            model=judged.model,
            rows=judged.rows,
            wins=judged.wins,
            ties=judged.ties,
            losses=judged.losses,
            rate=f"{rate.value:.0%}",
            confidence=f"{100 * judged.confidence:g}%",
            interval=f"{rate.low or 0:.0%}–{rate.high or 0:.0%}",
        )
    ]
    if judged.disagreed:
        said.append(say("judge.disagreed", language, share=f"{judged.disagreed:.0%}"))
    said += [
        say(f"judge.left_out.{reason}", language, rows=rows)
        for reason, rows in judged.left_out.items()
    ]
    return said
