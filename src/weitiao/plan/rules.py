"""The rules behind each derived setting: numbers in, a value and its reason out.

Each rule names where it comes from: a paper, or measurements on our own embedded model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from math import ceil

from weitiao.plan.cost import Rates
from weitiao.plan.job import Job
from weitiao.plan.machine import Machine
from weitiao.plan.recipe import Device, Method, Objective, Precision, Quantization, Strategy
from weitiao.words import Language, say

TINY_PARAMS = 20_000_000
SMALL_PARAMS = 100_000_000
LARGE_PARAMS = 5_000_000_000

EVALUATIONS = 6
PATIENCE = 3
LOOKS_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a setting is as it is: an entry of the catalogue and the values in it."""

    key: str
    values: Mapping[str, str | int | float] = field(default_factory=dict)
    parts: tuple["Reason", ...] = ()

    def sentence(self, language: Language | None = None) -> str:
        """Return the reason in one line; its ``parts`` stand where the entry says ``{parts}``."""
        if not self.parts:
            return say(self.key, language, **self.values)
        told = say("plan.and", language).join(part.sentence(language) for part in self.parts)
        return say(self.key, language, **self.values, parts=told)


def because(key: str, **values: str | int | float) -> Reason:
    """Return the reason ``key`` with ``values``."""
    return Reason(key, values)


def millions(params: int) -> str:
    """Return a parameter count for people: ``7.1 M``, ``1.5 B``."""
    return f"{params / 1e9:.1f} B" if params >= 1e9 else f"{params / 1e6:.1f} M"


def method(objective: Objective, params: int) -> tuple[Method, Reason]:
    """LoRA, but all weights where a small model reads whole texts.

    LoRA learns a task from instructions as well as full fine-tuning does, and forgets less;
    at continued pretraining it falls behind (Biderman et al. 2024, arXiv 2405.09673).
    """
    if objective == "pretrain" and params < SMALL_PARAMS:
        return "full", because("plan.reason.method_full", params=millions(params))
    return "lora", because("plan.reason.method_lora")


def quantization(how: Method, bits: int) -> tuple[Quantization, Reason]:
    """QLoRA's base in the bits asked for; every other base is whole."""
    if how != "qlora":
        return "none", because("plan.reason.default")
    kind: Quantization = "nf4" if bits == 4 else "int8"
    return kind, because("plan.reason.quantization", bits=bits)


FORKED_WIDTH = 1024
"""In wider models most of a step are products that a processor's cores share well. Measured, two
processes of one thread against one of two: 1.3 times as fast at a width of 256, 1.2 at 512."""

FORKED_MOST = 8
"""A core each: with more, there would be little left for each to do."""


def processes(machine: Machine, device: Device, batch: int) -> tuple[int, Reason]:
    """One for each GPU of the first one's kind, as long as each has a row of every step."""
    gpus = machine.gpus if device == "cuda" else ()
    alike = len(list(takewhile(lambda gpu: gpu.name == gpus[0].name, gpus)))
    if alike < 2:
        return 1, because("plan.reason.default")
    return min(alike, batch), because("plan.reason.processes", gpus=alike)


def forked(machine: Machine, device: Device, several: int, strategy: Strategy) -> bool:
    """Return whether ``several`` processes are made from one, whose weights they share.

    Each has one thread: more of them do not outlive a fork. Only Linux's libraries stand it.
    """
    alike = device == "cpu" and strategy in ("auto", "ddp") and machine.os.startswith("Linux")
    return alike and several > 1 and several >= machine.cores


def processes_of_cores(
    machine: Machine, how: Method, whole: bool, width: int, batch: int
) -> tuple[int, Reason]:
    """One for each core of a CPU, where a small model's adapter is trained on two rows each.

    Of other methods each process would hold gradients, optimizer state or weights of its own.
    """
    cores, adapted = machine.cores, how in ("lora", "ia3", "prefix") and whole
    may = adapted and width <= FORKED_WIDTH and 2 * cores <= batch and cores <= FORKED_MOST
    if may and forked(machine, "cpu", cores, "ddp"):
        return cores, because("plan.reason.processes_cores", cores=cores)
    return 1, because("plan.reason.default")


def spreading_refused(strategy: Strategy, job: Job) -> Reason | None:
    """Return why ``strategy`` cannot spread the weights of ``job`` out; None where it can."""
    if job.quantization != "none":
        return because("plan.problem.spread_quantized", strategy=strategy)
    if job.optimizer != "adamw" and (job.method == "full" or strategy == "deepspeed"):
        return because("plan.problem.spread_optimizer", strategy=strategy)
    if job.precision == "fp16" and strategy == "deepspeed":
        return because("plan.problem.spread_fp16")
    return None


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
    """The 16-bit format that the hardware multiplies itself, where it is faster than fp32.

    bf16 has fp32's range; cards before Ampere only have fp16, which needs its loss scaled
    (Micikevicius et al. 2017, arXiv 1710.03740).
    """
    times = round(rates.half / rates.fp32, 1)
    if where == "cpu" and machine.cpu_bf16 != "fast":
        return "fp32", because("plan.reason.precision_no_bf16")
    if times <= 1.1:
        return "fp32", because("plan.reason.precision_not_faster", times=times)
    if where == "cuda" and not machine.gpus[0].bf16:
        return "fp16", because("plan.reason.precision_fp16", times=times)
    return "bf16", because("plan.reason.precision_bf16", times=times)


def computes(precision: Precision, where: Device, machine: Machine) -> bool:
    """Return whether the hardware computes in ``precision``; a CPU emulates bf16, not fp16."""
    if where == "cpu":
        return precision != "fp16"
    return precision != "bf16" or machine.gpus[0].bf16


def batch_size(rows: int) -> tuple[int, Reason]:
    """8 to 32 rows, by the number of training rows, so that an epoch has some dozen steps.

    QLoRA used 16 (Dettmers et al. 2023, arXiv 2305.14314, table 9); LoRA loses more from
    large batches than full fine-tuning (Schulman et al. 2025, LoRA Without Regret).
    """
    size = 8 if rows < 500 else 16 if rows < 5_000 else 32
    return min(size, rows), because("plan.reason.batch_size", rows=rows)


def epochs(rows: int) -> tuple[int, Reason]:
    """5 to 3 epochs under 10,000 rows, fewer above; early stopping ends what is too long.

    Alpaca saw its 52,000 rows 3 times (Taori et al. 2023), LIMA its 1,000 rows 15 times
    (Zhou et al. 2023, arXiv 2305.11206).
    """
    if rows < 10_000:
        return (5 if rows < 2_000 else 3), because("plan.reason.epochs_few", rows=rows)
    return (2 if rows < 100_000 else 1), because("plan.reason.epochs_many", rows=rows)


def learning_rate(how: Method, objective: Objective, params: int) -> tuple[float, Reason]:
    """Higher for adapters, and the higher the smaller the model.

    LoRA: 2e-4, and 1e-4 for large models (Dettmers et al. 2023, arXiv 2305.14314, table 9);
    full: 1e-5 to 2e-5, a tenth of LoRA's (Taori et al. 2023; Biderman et al. 2024, arXiv
    2405.09673); IA³: 3e-3 (Liu et al. 2022, arXiv 2205.05638); small models: measured on our
    embedded one. Prefix-tuning: PEFT draws virtual keys and values from N(0, 1), whatever the
    model, and AdamW moves each by about the rate in a step, so that the 1e-2 of PEFT's guide
    needs thousands of steps. On our embedded model 80 steps on the bank rows ended at a loss of
    3.32 with 1e-2, 2.92 with 3e-2 and 1.92 with 1e-1 (docs/LOG.md). Larger models: less bold.
    """
    shown = millions(params)
    if how == "ia3":
        return 3e-3, because("plan.reason.learning_rate_ia3")
    if how == "prefix":
        rate = 1e-1 if params < SMALL_PARAMS else 3e-2
        return rate, because("plan.reason.learning_rate_prefix")
    if how == "full":
        return _full_rate(objective, params)
    if params < SMALL_PARAMS:
        rate = 5e-3 if params < TINY_PARAMS else 5e-4
        return rate, because("plan.reason.learning_rate_lora_tiny", params=shown)
    rate = 1e-4 if params >= LARGE_PARAMS else 2e-4
    return rate, because("plan.reason.learning_rate_lora", params=shown)


def _full_rate(objective: Objective, params: int) -> tuple[float, Reason]:
    shown = millions(params)
    if params < SMALL_PARAMS:
        rate = 1e-3 if objective == "pretrain" else 3e-4
        return rate, because("plan.reason.learning_rate_full_small", params=shown)
    rate = 1e-5 if params >= LARGE_PARAMS else 2e-5
    return rate, because("plan.reason.learning_rate_full", params=shown)


BITS_PER_WEIGHT = 2
"""What a trained weight can hold (Allen-Zhu & Li 2024, arXiv 2404.05405)."""

LARGEST_RANK = 64


def lora_rank(rows: int, params: int, scored: int, weights_per_rank: int) -> tuple[int, Reason]:
    """8 where few rows would only be learnt by heart, else 16, and more for very many tokens.

    Where all linear layers are adapted the rank matters little (Dettmers et al. 2023, arXiv
    2305.14314, figure 4) until the adapter is full: it must hold about a bit for each scored
    token (Schulman et al. 2025, LoRA Without Regret), and holds two in a weight.
    """
    if params < SMALL_PARAMS:
        return 16, because("plan.reason.lora_rank_tiny", params=millions(params))
    if rows < 1_000:
        return 8, because("plan.reason.lora_rank_few", rows=rows)
    rank = 16
    while rank < LARGEST_RANK and scored > BITS_PER_WEIGHT * rank * weights_per_rank:
        rank *= 2
    if rank > 16:
        return rank, because("plan.reason.lora_rank_many", tokens=millions(scored))
    return rank, because("plan.reason.lora_rank", rows=rows)


def lora_alpha(rank: int) -> tuple[int, Reason]:
    """Twice the rank, so that the adapter's scale stays the same whatever its rank.

    Biderman et al. 2024, arXiv 2405.09673, section 4.
    """
    return 2 * rank, because("plan.reason.lora_alpha", rank=rank)


def warmup_ratio(steps: int) -> tuple[float, Reason]:
    """10% to 3% of the steps, the share falling with their number (3%: arXiv 2305.14314)."""
    ratio = 0.1 if steps < 200 else 0.05 if steps < 1_000 else 0.03
    return ratio, because("plan.reason.warmup", steps=steps)


def eval_every(steps: int, look_share: float) -> tuple[int, Reason]:
    """So that the validation loss is looked at about six times, in a tenth of the time at most.

    ``look_share``: the time of one look, of that of all steps.
    """
    affordable = max(1, int(LOOKS_SHARE / max(look_share, 1e-9)))
    times = min(EVALUATIONS, affordable)
    key = "plan.reason.eval_every" if times == EVALUATIONS else "plan.reason.eval_every_time"
    return max(1, ceil(steps / times)), because(key, times=times)


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
    """A quarter more than the ``longest`` answers in the data, in steps of 16 tokens."""
    if objective == "pretrain" or not longest:
        return 128, because("plan.reason.max_new_tokens_text")
    wanted = min(1024, max(32, ceil(longest * 1.25 / 16) * 16))
    return wanted, because("plan.reason.max_new_tokens", longest=longest)


MOST_QUESTIONS = 220
"""The general questions that ship with the package (a test compares)."""


def general_questions(asked: int | None, device: Device, params: int) -> int:
    """All of them, but fewer where a model that is not tiny has only a CPU: a few minutes."""
    usual = 60 if device == "cpu" and params > TINY_PARAMS else MOST_QUESTIONS
    return min(MOST_QUESTIONS, usual if asked is None else asked)


def rows_by_heart(asked: int | None, device: Device) -> int:
    """The training rows that are asked again: on a CPU fewer."""
    return {"cpu": 40, "cuda": 100}[device] if asked is None else asked
