"""Half a minute of the real thing: what training on a token will take on this machine.

Models of the same shape with one layer and with a few, random weights in them, take real
optimizer steps on the user's rows; time grows evenly with the layers, so that two of them say
what all will take.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from weitiao.events import EventLog
from weitiao.models.adapters import add_adapter
from weitiao.models.flat import fast_path
from weitiao.models.load import ModelSource, load_model
from weitiao.plan.plan import Plan
from weitiao.records.render import Sample
from weitiao.runs import Run
from weitiao.training.dry_run import TYPES, shortened
from weitiao.training.forked import in_forks
from weitiao.training.step import preflight, take_step
from weitiao.training.team import ALONE, Team
from weitiao.training.work import Work, begin

SECONDS = 30.0
"""What the probe may take, making the models included."""

_FEW, _STEP_SECONDS, _MOST_STEPS = 4, 2.0, 12
_NEVER = 2**31


@dataclass(slots=True)
class _Pace:
    """Seconds a computed token of each step taken."""

    steps: list[float]

    @property
    def usual(self) -> float:
        """The middle one; the first step makes kernels and buffers, and does not count."""
        return median(self.steps[1:] or self.steps)


def token_seconds(
    source: ModelSource, plan: Plan, samples: Sequence[Sample], seconds: float | None = None
) -> float:
    """Return the seconds that training as planned takes for each computed token, all told.

    Raises:
        ModelError: the model's configuration cannot be read, or its kind cannot be trained.
        TrainingError: there is no memory even for this.
    """
    layers, until = plan.shape.layers, perf_counter() + (seconds or SECONDS)
    few = min(_FEW, layers)
    # A whole step may be more than there is time for.
    pace = plan.predicted.tokens_per_second * layers / few
    mean = sum(len(sample.ids) for sample in samples) / len(samples)
    forks = plan.processes if plan.forked else 1
    rows = max(forks, min(plan.batch_size, int(_STEP_SECONDS * pace / mean)))
    changed = {
        "batch_size": rows,
        "steps": _NEVER,
        "eval_every": _NEVER,
        "save_every": _NEVER,
        "processes": forks,
    }
    short = plan.model_copy(update=changed)
    more = _pace(source, short, samples, few, perf_counter() + (until - perf_counter()) * 0.6)
    if few == 1:
        return more.usual
    one = _pace(source, short, samples, 1, until, len(more.steps))
    each = max(0.0, more.usual - one.usual) / (few - 1)
    return one.usual + each * (layers - 1)


def _pace(
    source: ModelSource,
    plan: Plan,
    samples: Sequence[Sample],
    layers: int,
    until: float,
    steps: int = _MOST_STEPS,
) -> _Pace:
    """Take optimizer steps with ``layers`` layers: two at least, more while there is time."""
    with TemporaryDirectory(prefix="weitiao-") as folder:
        base = _random_model(source, plan, layers, Path(folder))
        model = base if plan.method == "full" else add_adapter(base, plan)
        work = Work(model, plan, samples, (), (), Run(Path(folder)), EventLog(None), lambda _: None)

        def pace(team: Team) -> _Pace:
            engine, found = begin(replace(work, team=team)), list[float]()
            with fast_path(model):
                preflight(engine)
                while len(found) < steps and team.least(len(found) < 2 or perf_counter() < until):
                    began, before = perf_counter(), engine.progress.executed_tokens
                    take_step(engine)
                    tokens = engine.progress.executed_tokens - before
                    found.append((perf_counter() - began) / tokens)
            return _Pace(found)

        return in_forks(plan.processes, Path(folder), pace) if plan.forked else pace(ALONE)


def _random_model(source: ModelSource, plan: Plan, layers: int, folder: Path) -> PreTrainedModel:
    """Return a model of the same shape with ``layers`` layers, as the plan would hold it."""
    config = shortened(source, layers)
    dtype = torch.float32 if plan.method == "full" else TYPES[plan.precision]
    device = torch.device(plan.device)
    if plan.quantization == "none":
        with device:
            return AutoModelForCausalLM.from_config(  # type: ignore[no-any-return]
                config, dtype=dtype, trust_remote_code=source.trust_remote_code
            )
    # Weights are quantised while they are read, so they must stand in a file.
    with device:
        AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder)
    written = ModelSource(source.name, str(folder), None, source.trust_remote_code)
    return load_model(written, dtype, device, quantization=plan.quantization)
