"""What the user asks for: one typed recipe, from a shipped name or a file, and ``key=value``."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator

from weitiao.errors import RecipeError
from weitiao.plan.evaluate_options import EvaluateOptions
from weitiao.plan.yaml_file import (
    KeyPath,
    OptionsModel,
    Source,
    dotted,
    load_yaml,
    option_paths,
    parse_yaml,
    validated,
)
from weitiao.records.options import DataOptions, EndpointOptions, Options
from weitiao.words import say

Objective = Literal["sft", "pretrain"]
Method = Literal["lora", "qlora", "full", "prefix", "ia3"]
Precision = Literal["bf16", "fp16", "fp32"]
Device = Literal["cpu", "cuda"]
Optimizer = Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor"]
Schedule = Literal["cosine", "linear", "constant"]
Checkpointing = Literal["off", "selective", "full"]
Quantization = Literal["none", "nf4", "int8"]
Tracker = Literal["tensorboard", "trackio", "mlflow", "wandb", "swanlab"]
Strategy = Literal["auto", "ddp", "fsdp", "deepspeed"]


class ModelOptions(Options):
    """Which base model is fine-tuned."""

    name: str = Field(default="embedded", min_length=1)
    """The base model: embedded (comes with weitiao), a folder, or a name on the hub."""

    revision: str | None = None
    """The branch, tag or commit of a model on the hub."""

    trust_remote_code: bool = False
    """Let the model's own Python code run on this machine; only for models you trust."""


class LoraOptions(Options):
    """The low-rank adapter (Hu et al. 2021, arXiv 2106.09685)."""

    rank: int | None = Field(default=None, ge=1, le=1024)
    """The rank r of the adapter: how much it can hold."""

    alpha: int | None = Field(default=None, ge=1, le=4096)
    """The adapter's strength: its update is multiplied by alpha / rank."""

    dropout: float = Field(default=0.0, ge=0, lt=1)
    """The share of the adapter's inputs set to zero while training."""

    targets: Literal["all-linear"] | list[str] = "all-linear"
    """The layers that get an adapter: all-linear, or a list such as [q_proj, v_proj]."""

    rslora: bool = False
    """Multiply the update by alpha / sqrt(rank) (Kalajdzievski 2023, arXiv 2312.03732)."""

    dora: bool = False
    """Learn each weight's length apart from its direction (Liu et al. 2024, arXiv 2402.09353)."""

    init: Literal["default", "pissa"] = "default"
    """pissa begins with the weights' principal parts (Meng et al. 2024, arXiv 2404.02948)."""


class QloraOptions(Options):
    """LoRA on a base held in few bits (Dettmers et al. 2023, arXiv 2305.14314)."""

    bits: Literal[4, 8] = 4
    """4: NF4, about 0.55 bytes a weight; 8: int8."""


class PrefixOptions(Options):
    """Prefix-tuning (Li & Liang 2021, arXiv 2101.00190)."""

    tokens: int = Field(default=16, ge=1, le=512)
    """Virtual tokens whose keys and values are learnt, before every row."""


class DeepspeedOptions(Options):
    """ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054), with strategy=deepspeed."""

    stage: Literal[2, 3] = 2
    """2 spreads gradients and the optimizer's state over the processes, 3 the weights, too."""


class TrainOptions(Options):
    """How the model is trained; what is not given is derived from the data and the machine."""

    objective: Objective = "sft"
    """sft learns the assistant's answers; pretrain learns whole texts."""

    method: Method | None = None
    """lora trains a small adapter, qlora one on a base of 4 bits, full every weight.

    prefix learns virtual tokens before every row, ia3 a factor for each key, value and MLP unit.
    """

    epochs: int | None = Field(default=None, ge=1, le=1000)
    """How many times every training row is seen."""

    batch_size: int | None = Field(default=None, ge=1)
    """Rows in one optimizer step, whatever the memory."""

    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """The highest learning rate, reached after the warm-up."""

    warmup_ratio: float | None = Field(default=None, ge=0, le=0.5)
    """The share of all steps in which the learning rate rises from zero."""

    schedule: Schedule = "cosine"
    """How the learning rate falls after the warm-up: cosine, linear, or constant (not at all)."""

    optimizer: Optimizer = "adamw"
    """What turns gradients into steps; 8bit, paged and adafactor take less memory."""

    weight_decay: float = Field(default=0.0, ge=0, le=1)
    """AdamW's weight decay."""

    max_grad_norm: float = Field(default=1.0, gt=0, le=1000)
    """Gradients are scaled down to this norm where they are larger."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """The share of each target that is spread over all tokens (Szegedy 2015, arXiv 1512.00567)."""

    neftune_alpha: float = Field(default=0.0, ge=0, le=100)
    """Noise on the embeddings while training (Jain et al. 2023, arXiv 2310.05914); 5 is usual."""

    precision: Literal["auto"] | Precision = "auto"
    """The number format of the arithmetic: bf16 and fp16 take half of fp32's memory."""

    gradient_checkpointing: Checkpointing | None = None
    """Compute activations twice rather than keep them: less memory, more time.

    selective does so in every second layer, full in all of them.
    """

    share_prefixes: bool | None = None
    """Compute the beginning that rows share, such as a system prompt, once a micro-batch."""

    micro_batch_tokens: int | None = Field(default=None, ge=16)
    """The most tokens that go through the model at once."""

    eval_every: int | None = Field(default=None, ge=1)
    """Steps between two looks at the validation loss."""

    save_every: int | None = Field(default=None, ge=1)
    """Steps between two checkpoints."""

    early_stopping_patience: int | None = Field(default=None, ge=0)
    """Stop after this many looks without a better validation loss; 0 never stops early."""

    keep_checkpoints: int = Field(default=2, ge=1, le=1000)
    """Checkpoints kept on the disk, the newest; the best weights are kept apart."""

    cuda_graphs: bool = False
    """Record a GPU's work on short steps and play it again; new, and not yet run on many cards."""

    max_steps: int | None = Field(default=None, ge=1)
    """Stop after this many optimizer steps, whatever the epochs."""

    seed: int = Field(default=42, ge=0, lt=2**32)
    """The number that decides the order of the rows and the adapter's first values."""

    device: Literal["auto"] | Device = "auto"
    """Where to train: cpu or cuda."""

    processes: int | None = Field(default=None, ge=1, le=65536)
    """Processes that share the work; where not given, one for each GPU of the same kind."""

    strategy: Strategy = "auto"
    """How several processes share the work: ddp, fsdp or deepspeed; auto takes what fits."""

    trackers: list[Tracker] = Field(default_factory=list)
    """Where progress is told besides the run's own files, such as [tensorboard]."""

    lora: LoraOptions = LoraOptions()
    """The adapter's own options."""

    qlora: QloraOptions = QloraOptions()
    """How the base is held under a qlora adapter."""

    prefix: PrefixOptions = PrefixOptions()
    """Prefix-tuning's own options."""

    deepspeed: DeepspeedOptions = DeepspeedOptions()
    """DeepSpeed's own options."""

    @field_validator("gradient_checkpointing", mode="before")
    @classmethod
    def _spoken(cls, value: Any) -> Any:
        """Take yes and no for all and none, as other tools write it."""
        return {True: "full", False: "off"}.get(value, value) if isinstance(value, bool) else value


class Recipe(Options):
    """Everything a run is asked to do."""

    description: str | None = None
    """What the recipe is for."""

    model: ModelOptions = ModelOptions()
    """The base model."""

    data: DataOptions = DataOptions()
    """The data file."""

    train: TrainOptions = TrainOptions()
    """Training."""

    evaluate: EvaluateOptions = EvaluateOptions()
    """Evaluation."""

    endpoint: EndpointOptions = EndpointOptions()
    """A service that speaks OpenAI's protocol."""


def shelf() -> dict[str, Path]:
    """Return the shipped recipes: name → file."""
    folder = Path(str(resources.files(__package__))) / "shelf"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_recipe(name_or_file: str | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """Return a shipped recipe by name (``default`` where none is given) or one from a file.

    ``overrides`` are ``key=value``: the key dotted (``train.epochs``) or the last name alone
    where only one option has it (``epochs``); the value in YAML.

    Raises:
        RecipeError: all problems of the file and of the overrides, one sentence each.
    """
    path = _recipe_path(name_or_file or "default")
    data, positions = load_yaml(path)
    data = _without_empty_groups(data, Recipe)
    arguments, problems = _override(Recipe, data, overrides)
    return validated(Recipe, data, Source(str(path), positions, arguments), problems)


def options_from(
    kind: type[OptionsModel], settings: Sequence[str], data: dict[str, Any]
) -> OptionsModel:
    """Return the options ``data`` with ``settings`` (``key=value``, as for a recipe) put in.

    Raises:
        RecipeError: all problems, one sentence each.
    """
    arguments, problems = _override(kind, data, settings)
    return validated(kind, data, Source("", {}, arguments), problems)


def _override(
    kind: type[BaseModel], data: dict[str, Any], overrides: Sequence[str]
) -> tuple[dict[KeyPath, str], list[str]]:
    """Put ``overrides`` into ``data``; return which argument set which option, and problems."""
    arguments: dict[KeyPath, str] = {}
    problems: list[str] = []
    for text in overrides:
        key, equals, value = text.partition("=")
        target = _override_path(kind, key.strip())
        if not equals or not key.strip():
            problems.append(say("error.override_form", text=text))
        elif isinstance(target, list):
            choices = ", ".join(dotted(p) for p in target)
            problems.append(say("error.override_ambiguous", key=key.strip(), choices=choices))
        else:
            arguments[target] = text
            _put(data, target, override_value(value.strip()))
    return arguments, problems


def _recipe_path(name_or_file: str) -> Path:
    shipped = shelf()
    if name_or_file in shipped:
        return shipped[name_or_file]
    path = Path(name_or_file).expanduser()
    if path.exists() or path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        return path
    near = get_close_matches(name_or_file, shipped, n=1)
    key = "error.recipe_unknown_near" if near else "error.recipe_unknown"
    raise RecipeError(
        key, name=name_or_file, near="".join(near), names=", ".join(shipped)
    ) from None


def _override_path(kind: type[BaseModel], key: str) -> KeyPath | list[KeyPath]:
    """Return where ``key``, an option's path or its end, points; all candidates if several do.

    An option goes before those in groups beside it.

    A name that nothing is called keeps its own path, to be reported as an unknown key.
    """
    asked = tuple(key.split("."))
    if asked[0] in kind.model_fields:
        return asked
    found = sorted((p for p in option_paths(kind) if p[-len(asked) :] == asked), key=len)
    if found and all(path[: len(found[0]) - 1] == found[0][:-1] for path in found):
        return found[0]
    return found or asked


def override_value(text: str) -> Any:
    """Return the value typed after ``=``, read as YAML; text that is not YAML stays text.

    A sentence that happens to hold ``: `` or ``#`` is text: only a value that opens with a
    bracket or a quote is read as a list, a mapping or a quoted string. A mapping of numbers
    may go without the blank that YAML wants: ``{a:2}``.
    """
    if text.startswith("{"):
        text = re.sub(r":(?=[\d.])", ": ", text)
    try:
        value = parse_yaml(f"value: {text}", "value")[0].get("value")
    except RecipeError:
        return text
    plain = value is None or isinstance(value, bool | int | float)
    return value if plain or text[:1] in tuple("[{\"'") else text


def _put(data: dict[str, Any], path: KeyPath, value: Any) -> None:
    for part in path[:-1]:
        below = data.get(str(part))
        if not isinstance(below, dict):
            below = data[str(part)] = {}
        data = below
    data[str(path[-1])] = value


def _without_empty_groups(data: dict[str, Any], kind: type[BaseModel]) -> dict[str, Any]:
    """Leave out groups with nothing under them, such as ``train:`` with all lines commented."""
    kept: dict[str, Any] = {}
    for name, value in data.items():
        info = kind.model_fields.get(name)
        group = info.annotation if info else None
        if isinstance(group, type) and issubclass(group, BaseModel):
            if value is None:
                continue
            if isinstance(value, dict):
                value = _without_empty_groups(value, group)
        kept[name] = value
    return kept
