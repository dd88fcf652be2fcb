"""What of the recipe is about evaluation."""

from pydantic import Field

from weitiao.records.options import Options


class JudgeOptions(Options):
    """Another model, at the recipe's endpoint, says which of two answers is better."""

    enabled: bool = False
    """Ask the model of endpoint.url, after everything else is measured."""

    rows: int = Field(default=50, ge=1)
    """The most rows to judge; each is asked twice, with the answers in either order."""

    instructions: str | None = None
    """What matters in your trade, in your words; it is told to the judge."""

    temperature: float | None = Field(default=0, ge=0, le=2)
    """The judge's temperature; leave it empty for a service that takes none."""

    price_in: float | None = Field(default=None, ge=0)
    """What a million tokens sent cost, in any currency."""

    price_out: float | None = Field(default=None, ge=0)
    """What a million tokens answered cost."""

    max_tokens_total: int | None = Field(default=None, ge=1)
    """Do not begin where more tokens than this are expected, and stop where they are spent."""

    max_cost: float | None = Field(default=None, gt=0)
    """Do not begin where it is expected to cost more than this, and stop where it is spent."""


class EvaluateOptions(Options):
    """How base and tuned model are compared on held-out rows."""

    suite: str = "question_answering"
    """question_answering, intents, maths, general, poetry, story, or a YAML file of your own."""

    overlap: bool = False
    """Go on although the suite's own rows were trained on in part."""

    rows: int = Field(default=200, ge=1)
    """The most held-out rows to answer."""

    max_new_tokens: int | None = Field(default=None, ge=1)
    """The longest answer in tokens."""

    temperature: float = Field(default=0.0, ge=0, le=10)
    """0 always takes the likeliest token; higher values vary the answers."""

    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample only from the likeliest tokens that together have this probability."""

    repetition_penalty: float = Field(default=1.0, gt=0, le=10)
    """Above 1, tokens that occurred before become less likely."""

    batch_size: int = Field(default=64, ge=1)
    """Questions answered at the same time."""

    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """The confidence of the intervals."""

    resamples: int = Field(default=2000, ge=100)
    """Resamples of the paired bootstrap."""

    seed: int = Field(default=42, ge=0, lt=2**32)
    """The number that decides sampling and resampling."""

    examples: int = Field(default=3, ge=0)
    """Answers shown side by side at the end."""

    forgetting: int | None = Field(default=None, ge=0)
    """General questions asked for what was forgotten, at most 220; 0: none."""

    memorising: int | None = Field(default=None, ge=0)
    """Training questions asked again for what was learnt by heart; 0: none."""

    speed: bool = True
    """Measure how fast both models answer."""

    toxicity_url: str | None = None
    """Your own scorer of toxicity: it takes {"texts": […]} and answers {"scores": […]}, 0 to 1."""

    judge: JudgeOptions = JudgeOptions()
    """A judge of the answers."""
