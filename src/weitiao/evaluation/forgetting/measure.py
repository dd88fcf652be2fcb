"""Base and tuned model over the base's own answers to the probe: loss, KL divergence, agreement."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from weitiao.errors import ModelError
from weitiao.evaluation.beside import Both, reader, write_measure
from weitiao.evaluation.compare import FEWEST_ROWS
from weitiao.evaluation.forgetting.probe import (
    PROBE_VERSION,
    Category,
    Question,
    load_probe,
    probe_digest,
)
from weitiao.evaluation.resample import Estimate, Floats
from weitiao.events import EventLog
from weitiao.plan.evaluate_options import EvaluateOptions
from weitiao.records.record import Message
from weitiao.records.render import Sample
from weitiao.words import LANGUAGES, Language

Level = Literal["none", "some", "much"]

ANSWER_TOKENS = 32
"""How far the base answers each question: enough to be about it, and seconds for all of them."""

SOME, MUCH = 0.9, 0.5
"""Agreement below which something, or much, counts as forgotten: one word in ten, and most words.

Measured with the embedded model and 60 steps of LoRA on the bundled bank data: against itself
1.00 (KL 0 exactly); at a tenth of the planned learning rate 0.75 [0.73, 0.77], KL 0.08; at the
planned one, high as it is for so small a model, 0.33 [0.30, 0.37], KL 0.98; at ten times that
0.03 [0.02, 0.04], KL 4.0.
"""


@dataclass(frozen=True, slots=True)
class Part:
    """A group of questions: of one ``category`` or one ``language``; both None: all of them.

    ``questions``: those to which the base said anything, ``tokens`` long together. Per token of
    the base's answers: ``base_loss`` and ``tuned_loss`` are -log p in nats, ``rise`` their
    difference; ``kl`` is KL(base‖tuned) in nats; ``agreement`` the share of tokens for which
    both models hold the same one likeliest. Intervals: percentile bootstrap over questions;
    none for fewer than five.
    """

    category: Category | None
    language: Language | None
    questions: int
    tokens: int
    base_loss: float
    tuned_loss: float
    rise: Estimate
    kl: Estimate
    agreement: Estimate


@dataclass(frozen=True, slots=True)
class Forgetting:
    """The content of ``forgetting.json``.

    ``asked`` of ``available`` questions of the probe with this version and SHA-256 were asked,
    and answered by the base in at most ``answer_tokens`` tokens. ``level``: how much the tuned
    model has forgotten, by the agreement of ``whole`` (see :data:`SOME`). ``parts``: each
    language, then each category.
    """

    probe_version: int
    probe_sha256: str
    asked: int
    available: int
    answer_tokens: int
    level: Level
    whole: Part
    parts: tuple[Part, ...]
    confidence: float
    resamples: int
    seed: int
    seconds: float


load_forgetting = reader(Forgetting)
"""Read ``forgetting.json``; RunError where it is missing or is not of this version."""


def measure_forgetting(
    both: Both, options: EvaluateOptions, path: Path, events: EventLog, count: int | None = None
) -> Forgetting:
    """Ask ``count`` questions of the probe (all by default) and write ``path``.

    Cheap enough to be done anew after a kill. Emits ``forgetting.progress``: done, total.

    Raises:
        ModelError: the base says nothing at all, or a model gives no numbers.
        RunError: the file cannot be written.
    """
    started = time.monotonic()
    questions = load_probe(count)
    sums_N5 = _sums(both, questions, events)
    if not sums_N5[:, 0].any():
        raise ModelError("error.probe_unanswered")
    if not np.isfinite(sums_N5).all():
        raise ModelError("error.probe_no_numbers")

    def part(category: Category | None = None, language: Language | None = None) -> Part | None:
        chosen = [
            category in (None, q.category) and language in (None, q.language) for q in questions
        ]
        rows_N5 = sums_N5[np.array(chosen) & (sums_N5[:, 0] > 0)]
        return _part(rows_N5, options, category, language) if len(rows_N5) else None

    whole = part()
    assert whole is not None
    kinds = [part(language=language) for language in LANGUAGES]
    kinds += [part(category=category) for category in get_args(Category)]
    forgetting = Forgetting(
        probe_version=PROBE_VERSION,
        probe_sha256=probe_digest(),
        asked=len(questions),
        available=len(load_probe()),
        answer_tokens=ANSWER_TOKENS,
        level=level_of(whole.agreement.value),
        whole=whole,
        parts=tuple(kind for kind in kinds if kind is not None),
        confidence=options.confidence,
        resamples=options.resamples,
        seed=options.seed,
        seconds=round(time.monotonic() - started, 1),
    )
    write_measure(path, forgetting)
    return forgetting


def level_of(agreement: float) -> Level:
    """Return how much was forgotten where both models agree on so large a share of tokens."""
    return "none" if agreement >= SOME else "some" if agreement >= MUCH else "much"


def _sums(both: Both, questions: Sequence[Question], events: EventLog) -> Floats:
    """Return tokens, base loss, tuned loss, KL and agreed tokens of each answer [N, 5]."""
    from weitiao.models.divergence import divergences

    def told(done: int, _tokens: int = 0) -> None:
        events.emit("forgetting.progress", done=done, total=len(questions))

    prompts = [both.chat.prompt_ids([Message("user", q.prompt)]) for q in questions]
    told(0)
    # These rows are short beside those that the batch size was planned for.
    wide = replace(both, batch_size=4 * both.batch_size)
    answers = [answer.ids for answer in wide.greedy(both.base, prompts, ANSWER_TOKENS, told)]
    samples = []
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids = np.array([*prompt, *answer], dtype=np.int32)
        samples.append(Sample(ids, np.arange(len(ids)) >= len(prompt), row))
    found = divergences(both.base, both.tuned, samples, both.budget)
    return np.array([(d.tokens, d.base_loss, d.tuned_loss, d.kl, d.agreed) for d in found], float)


def _part(
    sums_N5: Floats, options: EvaluateOptions, category: Category | None, language: Language | None
) -> Part:
    def per_token(sums: Floats) -> Floats:
        """Return base loss, tuned loss, rise, KL and agreement of sums [..., 5]."""
        base, tuned, kl, agreed = np.moveaxis(sums[..., 1:] / sums[..., :1], -1, 0)
        return np.stack([base, tuned, tuned - base, kl, agreed], axis=-1)

    count = len(sums_N5)
    base, tuned, *values = per_token(sums_N5.sum(0)).tolist()
    estimates = [Estimate(value) for value in values]
    if count >= FEWEST_ROWS:
        draw = np.random.default_rng(options.seed)
        times_RN = draw.multinomial(count, np.full(count, 1 / count), size=options.resamples)
        tail = (1 - options.confidence) / 2
        drawn = per_token(times_RN @ sums_N5)[:, 2:]
        ends = np.quantile(drawn, [tail, 1 - tail], axis=0).T.tolist()
        estimates = [Estimate(v, *between) for v, between in zip(values, ends, strict=True)]
    rise, kl, agreement = estimates
    tokens = int(sums_N5[:, 0].sum())
    return Part(category, language, count, tokens, base, tuned, rise, kl, agreement)
