"""The rules behind each derived setting: numbers in, a value and its reason out.

The neighbourhood is that of the tutorials: LoRA of rank 8–16 on all linear layers, alpha
twice the rank, 3–5 epochs under 10,000 rows, learning rate 1e-4 to 2e-4, warm-up, cosine.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil

from weitiao.plan.cost import Rates
from weitiao.plan.machine import Machine
from weitiao.plan.recipe import Device, Method, Objective, Precision, Quantization
from weitiao.words import Language, say

TINY_PARAMS = 20_000_000
SMALL_PARAMS = 100_000_000
LARGE_PARAMS = 5_000_000_000

EVALUATIONS = 6
PATIENCE = 3


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a setting is as it is: an entry of the catalogue and the values in it."""

    key: str
    values: Mapping[str, str | int | float] = field(default_factory=dict)

    def sentence(self, language: Language | None = None) -> str:
        """Return the reason in one line."""
        return say(self.key, language, **self.values)


def because(key: str, **values: str | int | float) -> Reason:
    """Return the reason ``key`` with ``values``."""
    return Reason(key, values)


def millions(params: int) -> str:
    """Return a parameter count for people: ``7.1 M``, ``1.5 B``."""
    return f"{params / 1e9:.1f} B" if params >= 1e9 else f"{params / 1e6:.1f} M"


def method(objective: Objective, params: int) -> tuple[Method, Reason]:
    """LoRA, but all weights where a small model reads whole texts."""
    if objective == "pretrain" and params < SMALL_PARAMS:
        return "full", because("plan.reason.method_full", params=millions(params))
    return "lora", because("plan.reason.method_lora")


def quantization(how: Method, bits: int) -> tuple[Quantization, Reason]:
    """QLoRA's base in the bits asked for; every other base is whole."""
    if how != "qlora":
        return "none", because("plan.reason.default")
    kind: Quantization = "nf4" if bits == 4 else "int8"
    return kind, because("plan.reason.quantization", bits=bits)


def share_prefixes(asked: bool | None, noisy: bool) -> tuple[bool, Reason]:
    """Share, but where each row must draw its own noise: dropout or NEFTune."""
    if noisy:
        return False, because("plan.reason.share_prefixes_noise")
    if asked is not None:
        return asked, because("plan.reason.asked")
    return True, because("plan.reason.share_prefixes")


def device(machine: Machine) -> tuple[Device, Reason]:
    """The first GPU where there is one."""
    if machine.gpus:
        return "cuda", because("plan.reason.device_cuda", gpu=machine.gpus[0].name)
    return "cpu", because("plan.reason.device_cpu", cores=machine.cores)


def precision(where: Device, machine: Machine, rates: Rates) -> tuple[Precision, Reason]:
    """bf16 where the processor has it and it is faster."""
    native = machine.gpus[0].bf16 if where == "cuda" else machine.cpu_bf16 == "fast"
    times = round(rates.bf16 / rates.fp32, 1)
    if not native:
        return "fp32", because("plan.reason.precision_no_bf16")
    if times <= 1.1:
        return "fp32", because("plan.reason.precision_not_faster", times=times)
    return "bf16", because("plan.reason.precision_bf16", times=times)


def batch_size(rows: int) -> tuple[int, Reason]:
    """8 to 32 rows, by the number of training rows."""
    size = 8 if rows < 500 else 16 if rows < 5_000 else 32
    return min(size, rows), because("plan.reason.batch_size", rows=rows)


def epochs(rows: int) -> tuple[int, Reason]:
    """5 to 3 epochs under 10,000 rows, fewer above."""
    if rows < 10_000:
        return (5 if rows < 2_000 else 3), because("plan.reason.epochs_few", rows=rows)
    return (2 if rows < 100_000 else 1), because("plan.reason.epochs_many", rows=rows)


def learning_rate(how: Method, objective: Objective, params: int) -> tuple[float, Reason]:
    """Higher for adapters, and the higher the smaller the model."""
    shown = millions(params)
    if how != "full":
        if params < TINY_PARAMS:
            return 5e-3, because("plan.reason.learning_rate_lora_tiny", params=shown)
        if params < SMALL_PARAMS:
            return 5e-4, because("plan.reason.learning_rate_lora_tiny", params=shown)
        rate = 1e-4 if params >= LARGE_PARAMS else 2e-4
        return rate, because("plan.reason.learning_rate_lora", params=shown)
    if params < SMALL_PARAMS:
        rate = 1e-3 if objective == "pretrain" else 3e-4
        return rate, because("plan.reason.learning_rate_full_small", params=shown)
    rate = 1e-5 if params >= LARGE_PARAMS else 2e-5
    return rate, because("plan.reason.learning_rate_full", params=shown)


def lora_rank(rows: int, params: int) -> tuple[int, Reason]:
    """8 where few rows would only be learnt by heart, else 16."""
    if params < SMALL_PARAMS:
        return 16, because("plan.reason.lora_rank_tiny", params=millions(params))
    if rows < 1_000:
        return 8, because("plan.reason.lora_rank_few", rows=rows)
    return 16, because("plan.reason.lora_rank", rows=rows)


def lora_alpha(rank: int) -> tuple[int, Reason]:
    """Twice the rank, so that the adapter's scale stays the same whatever its rank."""
    return 2 * rank, because("plan.reason.lora_alpha", rank=rank)


def warmup_ratio(steps: int) -> tuple[float, Reason]:
    """10% to 3% of the steps, the share falling with their number."""
    ratio = 0.1 if steps < 200 else 0.05 if steps < 1_000 else 0.03
    return ratio, because("plan.reason.warmup", steps=steps)


def eval_every(steps: int) -> tuple[int, Reason]:
    """So that the validation loss is looked at about six times."""
    return max(1, ceil(steps / EVALUATIONS)), because("plan.reason.eval_every", times=EVALUATIONS)


def save_every(eval_steps: int, step_seconds: float) -> tuple[int, Reason]:
    """With every evaluation, and at least every ten minutes."""
    in_ten_minutes = max(1, int(600 / max(step_seconds, 1e-9)))
    if in_ten_minutes < eval_steps:
        return in_ten_minutes, because("plan.reason.save_minutes")
    return eval_steps, because("plan.reason.save_with_eval")


def patience() -> tuple[int, Reason]:
    """Half of the evaluations of a run."""
    return PATIENCE, because("plan.reason.patience", times=PATIENCE)


def max_new_tokens(objective: Objective, longest: int) -> tuple[int, Reason]:
    """A quarter more than the longest answers in the data, in steps of 16 tokens."""
    if objective == "pretrain":
        return 128, because("plan.reason.max_new_tokens_text")
    wanted = min(1024, max(32, ceil(longest * 1.25 / 16) * 16))
    return wanted, because("plan.reason.max_new_tokens", longest=longest)
