"""Is what leaves the house what was trained? The gate that every export goes through.

The model as it was trained answers held-out prompts; each other form of it is asked the same.
Token ids of the prompts must be equal, scores must not fall for certain.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from weitiao.evaluation.beside import reader, write_measure

PARITY, TOLD = "parity.json", "told.json"

LOSS_MARGIN = 0.02
"""A loss may rise by this share of itself. It is measured so finely that any rounding of the
weights shows for certain, long before it shows in an answer."""

Failure = Literal["prompts", "score"]


@dataclass(frozen=True, slots=True)
class ScoreKept:
    """One score of the model as trained and of the form; ``low``, ``high``: of the difference.

    ``lost``: it fell for certain (for a loss: rose, by more than :data:`LOSS_MARGIN`).
    """

    name: str
    trained: float
    form: float
    low: float | None
    high: float | None
    lost: bool


@dataclass(frozen=True, slots=True)
class Likeness:
    """Next-token distributions after the same words, over ``tokens`` of the trained answers.

    ``kl``: the mean of Σ p_trained (log p_trained - log p_form) in nats; ``agreed``: the share
    of tokens for which both hold the same one likeliest.
    """

    tokens: int
    kl: float
    agreed: float


@dataclass(frozen=True, slots=True)
class Form:
    """What a form of the model costs: bytes on the disk and at the peak, tokens a second."""

    size: int
    memory: int
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class Parity:
    """The gate's report on one form of the model; the content of ``parity.json``.

    ``runner``: what answered (transformers, openvino, server). ``prompts_differ``: prompts whose
    token ids are not those of training. ``answers_equal``: greedy answers with the very same
    text. ``likeness`` is None where the runner does not tell its distributions.
    ``forced``: kept although it failed.
    """

    target: str
    runner: str
    prompts: int
    prompts_differ: int
    answers_equal: int
    likeness: Likeness | None
    verdict_score: str
    scores: tuple[ScoreKept, ...]
    trained: Form
    form: Form
    weights: str = ""
    """Tells what was trained from all else; see ``api.serving.fingerprint``."""
    forced: bool = False

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Why it is no success; empty where it is one."""
        found: list[Failure] = ["prompts"] if self.prompts_differ else []
        if any(score.lost for score in self.scores if score.name == self.verdict_score):
            found.append("score")
        return tuple(found)

    def score(self) -> ScoreKept | None:
        """Return the score that decides, if it was measured."""
        return next((s for s in self.scores if s.name == self.verdict_score), None)


@dataclass(frozen=True, slots=True)
class Told:
    """What a process found beside the answers: the ids of each row's prompt by its own tokenizer,
    bytes at the peak, tokens a second with all prompts at once, and how like it is."""

    prompts: tuple[tuple[int, ...], ...]
    memory: int
    tokens_per_second: float
    likeness: Likeness | None = None


def write_told(folder: Path, told: Told) -> None:
    """Write what a process found into its folder."""
    write_measure(folder / TOLD, told)


load_told = reader(Told, "error.parity_unreadable")
"""Read what a process wrote, from its file :data:`TOLD`."""

load_parity = reader(Parity, "error.parity_unreadable")
"""Read a form's :data:`PARITY`."""
