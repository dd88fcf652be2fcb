"""What people found, in words and written numbers: for the terminal, the page and the report."""

from weitiao.evaluation.people.results import LevelResult, People
from weitiao.evaluation.present import written_change
from weitiao.words import Language, say


def headline(people: People, language: Language | None = None) -> str:
    """Return in one sentence which side people prefer."""
    one, other = side_name(people.one, language), side_name(people.other, language)
    key = "people.result.same" if people.outcome == "same" else "people.result.better"
    winner, loser = (one, other) if people.outcome == "one" else (other, one)
    won, lost = people.other_better, people.one_better
    if people.outcome == "one":
        won, lost = lost, won
    return say(
        key,
        language,
        winner=winner,
        loser=loser,
        won=won,
        lost=lost,
        ties=people.ties,
        rows=people.rows,
    )


def side_name(name: str, language: Language | None = None) -> str:
    """Return what a side is called: base and tuned in words, a run by its own name."""
    if name == "base":
        return say("people.result.base", language)
    return say("people.result.tuned", language) if name == "tuned" else name


def facts(people: People, language: Language | None = None) -> list[tuple[str, str]]:
    """Return the numbers, each with what it is."""
    rate, confidence = people.win_rate, f"{100 * people.confidence:g}%"
    other = side_name(people.other, language)
    rate_is = f"{_share(rate.value)} ({_share(rate.low)} … {_share(rate.high)})"
    found = [
        (say("people.result.win_rate", language, name=other, confidence=confidence), rate_is),
        (say("people.result.p_value", language), _number(people.p_value)),
    ]
    found += [
        (
            say(
                "people.result.level",
                language,
                level=say(f"people.level.{level.level}", language),
                rows=level.rows,
            ),
            _level(people, level, language),
        )
        for level in people.levels
    ]
    names = ", ".join(f"{name} {rows}" for name, rows in people.reviewers.items())
    judged = say("people.result.judged_of", language, rows=people.rows, all=people.rows_to_judge)
    found += [
        (say("people.result.judged", language), judged),
        (say("people.result.reviewers", language), names),
    ]
    if people.identical:
        found.append((say("people.result.identical", language), str(people.identical)))
    return found + _agreement(people, language)


def _agreement(people: People, language: Language | None) -> list[tuple[str, str]]:
    agreement = people.agreement
    if agreement is None:
        return []
    kappa = "people.result.kappa" if agreement.kappa is not None else "people.result.alpha"
    value = agreement.alpha if agreement.kappa is None else agreement.kappa
    found = [
        (say("people.result.alike", language, rows=agreement.rows), _share(agreement.alike)),
        (say(kappa, language), f"{value:.2f}"),
    ]
    if people.disputed:
        settled = say(
            "people.result.settled_of", language, settled=people.settled, rows=people.disputed
        )
        who = f" ({', '.join(people.adjudicators)})" if people.adjudicators else ""
        found.append((say("people.result.disputed", language), settled + who))
    return found


def _level(people: People, level: LevelResult, language: Language | None) -> str:
    one, other = side_name(people.one, language), side_name(people.other, language)
    low, high = level.difference.low, level.difference.high
    change = ""
    if low is not None and high is not None:
        change = f" ({written_change(level.level, low, high, language=language)})"
    return f"{one} {_share(level.one.value)}, {other} {_share(level.other.value)}{change}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}%"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
