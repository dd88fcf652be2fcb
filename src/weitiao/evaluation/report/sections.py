"""What was measured beside the scores, each as a section of the page."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from markupsafe import Markup, escape

from weitiao.evaluation import notes
from weitiao.evaluation.forgetting import Forgetting, Part
from weitiao.evaluation.judge import Judged, judge_sentences
from weitiao.evaluation.lm_eval_tasks import CONFIDENCE, LmEval, TaskLine
from weitiao.evaluation.memorising import Memorising
from weitiao.evaluation.people import People
from weitiao.evaluation.people import present as of_people
from weitiao.evaluation.present import written_chance
from weitiao.evaluation.report.bilingual import in_both, said
from weitiao.evaluation.report.facts import Facts
from weitiao.evaluation.resample import Estimate
from weitiao.evaluation.speed import Speed
from weitiao.words import Language, say

Row = tuple[Markup, ...]


@dataclass(frozen=True, slots=True)
class Won:
    """Rows on which the first side was better, neither, and the second, with their names."""

    names: tuple[Markup, Markup]
    first: int
    ties: int
    second: int

    @property
    def parts(self) -> tuple[tuple[str, int, Markup], ...]:
        """(style, rows, what they are) in the order in which they are drawn."""
        return (
            ("tuned", self.second, self.names[1]),
            ("tie", self.ties, said("report.ties")),
            ("base", self.first, self.names[0]),
        )


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, what came out in a sentence, drawings and tables, and small print.

    ``facts``: what it is, its number. ``remarks``: what people wrote, beside who and of what.
    """

    title: Markup
    sentence: Markup
    warns: bool = False
    won: Won | None = None
    head: Row = ()
    rows: tuple[Row, ...] = ()
    facts: tuple[tuple[Markup, Markup], ...] = ()
    remarks: tuple[tuple[str, str], ...] = ()
    notes: tuple[Markup, ...] = ()


def sections(facts: Facts) -> Iterator[Section]:
    """Yield a section for each measure that there is."""
    if facts.forgetting:
        yield _forgetting(facts.forgetting)
    if facts.memorising:
        yield _memorising(facts.memorising)
    if facts.speed:
        yield _speed(facts.speed)
    if facts.judged:
        yield _judge(facts.judged)
    if facts.people:
        yield _people(facts.people)
    if facts.lm_eval:
        yield _lm_eval(facts.lm_eval)


def _forgetting(forgetting: Forgetting) -> Section:
    return Section(
        title=said("report.forgetting.title"),
        sentence=in_both(notes.forgetting_sentence, forgetting),
        warns=forgetting.level != "none",
        head=(
            said("report.forgetting.questions"),
            said("report.forgetting.agreement"),
            said("report.forgetting.kl"),
            said("report.forgetting.rise"),
        ),
        rows=tuple(_part(part) for part in (forgetting.whole, *forgetting.parts)),
        notes=(
            said(
                "report.forgetting.note",
                asked=forgetting.asked,
                available=forgetting.available,
                version=forgetting.probe_version,
                confidence=f"{100 * forgetting.confidence:g}%",
            ),
        ),
    )


def _part(part: Part) -> Row:
    name = part.category or part.language or "whole"
    return (
        Markup("{} <small>{}</small>").format(said(f"report.probe.{name}"), part.questions),
        _with_interval(part.agreement, lambda value: f"{100 * value:.0f}%"),
        _with_interval(part.kl, lambda value: f"{value:.2f}"),
        _with_interval(part.rise, lambda value: f"{value:+.2f}"),
    )


def _memorising(memorising: Memorising) -> Section:
    rows: tuple[Row, ...] = ()
    if memorising.asked:
        base, tuned, asked = memorising.base, memorising.tuned, memorising.asked
        rows = ((said("report.memorising.whole"), *map(escape, (asked, base.whole, tuned.whole))),)
    if memorising.asked_long:
        long = memorising.asked_long
        what = said("report.memorising.passages", units=memorising.run_units)
        rows += ((what, *map(escape, (long, base.passages, tuned.passages))),)
    return Section(
        title=said("report.memorising.title"),
        sentence=in_both(notes.memorising_sentence, memorising),
        head=(Markup(), said("report.memorising.asked"), said("report.base"), said("report.tuned")),
        rows=rows,
        notes=(said("report.memorising.note", units=memorising.units),) if rows else (),
    )


def _speed(speed: Speed) -> Section:
    base, tuned = speed.base, speed.tuned

    def row(what: Markup, *values: str) -> Row:
        return (what, *map(escape, values))

    def rate(value: float) -> str:
        return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"

    both = (base, tuned)
    return Section(
        title=said("report.pace.title"),
        sentence=in_both(notes.speed_sentence, speed),
        head=(Markup(), said("report.base"), said("report.tuned")),
        rows=(
            row(said("report.pace.first"), *(f"{p.first_token_seconds:.3f}" for p in both)),
            row(said("report.pace.rate"), *(rate(p.tokens_per_second) for p in both)),
            row(
                said("report.pace.long", tokens=speed.long_tokens),
                *(f"{'≈ ' * p.extrapolated}{p.long_seconds:.1f}" for p in both),
            ),
            row(
                said("report.pace.batch", size=speed.batch_size),
                *(rate(p.batch_tokens_per_second) for p in both),
            ),
            row(said("report.pace.memory"), *(f"{p.memory_bytes / 2**30:.2f}" for p in both)),
        ),
        notes=(said("report.pace.note", device=speed.device, tokens=speed.prompt_tokens),),
    )


def _judge(judged: Judged) -> Section:
    sentences = [in_both(_one_of, judged, i) for i in range(len(judge_sentences(judged)))]
    if judged.cost is not None:
        sentences.append(said("report.judge.cost", cost=f"{judged.cost:.4g}"))
    spent = {"requests": f"{judged.requests:,}", "cached": f"{judged.cached:,}"}
    spent["tokens"] = f"{judged.prompt_tokens + judged.completion_tokens:,}"
    names = in_both(_better, "base"), in_both(_better, "tuned")
    return Section(
        title=said("report.judge.title"),
        sentence=sentences[0],
        won=Won(names, judged.losses, judged.ties, judged.wins),
        head=(
            said("report.judge.level"),
            said("report.base"),
            said("report.tuned"),
            said("report.difference"),
            Markup(),
        ),
        rows=tuple(
            (
                said(f"judge.level.{level.name}.name"),
                escape(f"{level.base.value:.2f}"),
                escape(f"{level.tuned.value:.2f}"),
                _with_interval(level.difference, lambda value: f"{value:+.2f}"),
                escape(written_chance(level.p_value)),
            )
            for level in judged.rubric
        ),
        notes=(*sentences[1:], said("report.judge.spent", **spent)),
    )


def _one_of(judged: Judged, which: int, spoken: Language) -> str:
    return judge_sentences(judged, spoken)[which]


def _people(people: People) -> Section:
    names = in_both(_better, people.one), in_both(_better, people.other)
    numbers = range(len(of_people.facts(people)))
    return Section(
        title=said("report.people.title"),
        sentence=in_both(of_people.headline, people),
        won=Won(names, people.one_better, people.ties, people.other_better),
        facts=tuple((in_both(_fact, people, i, 0), in_both(_fact, people, i, 1)) for i in numbers),
        remarks=tuple((f"{c.reviewer} · {c.question}", c.text) for c in people.comments),
    )


def _fact(people: People, which: int, part: int, spoken: Language) -> str:
    return of_people.facts(people, spoken)[which][part]


def _lm_eval(found: LmEval) -> Section:
    return Section(
        title=said("report.lm_eval.title"),
        sentence=said("report.lm_eval.sentence", package=found.package),
        head=(
            said("report.lm_eval.task"),
            said("report.base"),
            said("report.tuned"),
            said("report.difference"),
            Markup(),
        ),
        rows=tuple(_task(line) for line in found.lines),
        notes=(said("cli.benchmark.note", confidence=f"{100 * CONFIDENCE:g}%"),),
    )


def _task(line: TaskLine) -> Row:
    def value(number: float, error: float | None) -> Markup:
        small = "" if error is None else f"± {error:.3f}"
        return Markup("{} <small>{}</small>").format(f"{number:.3f}", small)

    return (
        said("compare.lm_eval", task=line.task, metric=line.metric, rows=line.rows),
        value(line.base, line.base_error),
        value(line.tuned, line.tuned_error),
        escape(f"{line.difference:+.3f}"),
        said(f"report.change.{line.change}") if line.change else Markup(),
    )


def _better(side: str, spoken: Language) -> str:
    return say("report.side_better", spoken, name=of_people.side_name(side, spoken))


def _with_interval(estimate: Estimate, write: Callable[[float], str]) -> Markup:
    if estimate.low is None or estimate.high is None:
        return escape(write(estimate.value))
    return Markup("{} <small>{} … {}</small>").format(
        *map(write, (estimate.value, estimate.low, estimate.high))
    )
