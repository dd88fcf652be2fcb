"""The recipe as it is written into the run: every value resolved, derived ones with reasons."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from weitiao.plan.evaluate_options import JudgeOptions
from weitiao.plan.plan import Plan
from weitiao.plan.recipe import Recipe
from weitiao.plan.rules import because
from weitiao.plan.yaml_file import OptionsModel
from weitiao.records.options import EndpointOptions
from weitiao.words import Language, say

_DERIVED: dict[tuple[str, ...], str] = {
    ("train", "method"): "method",
    ("train", "epochs"): "epochs",
    ("train", "batch_size"): "batch_size",
    ("train", "learning_rate"): "learning_rate",
    ("train", "warmup_ratio"): "warmup_ratio",
    ("train", "precision"): "precision",
    ("train", "gradient_checkpointing"): "gradient_checkpointing",
    ("train", "share_prefixes"): "share_prefixes",
    ("train", "micro_batch_tokens"): "micro_batch_tokens",
    ("train", "eval_every"): "eval_every",
    ("train", "save_every"): "save_every",
    ("train", "early_stopping_patience"): "early_stopping_patience",
    ("train", "device"): "device",
    ("train", "processes"): "processes",
    ("train", "strategy"): "strategy",
    ("train", "lora", "rank"): "lora_rank",
    ("train", "lora", "alpha"): "lora_alpha",
    ("evaluate", "max_new_tokens"): "max_new_tokens",
    ("evaluate", "batch_size"): "eval_batch_size",
}
"""Options that the plan fills in: where each stands in the recipe → the plan's field."""


def derived(setting: str) -> bool:
    """Return whether ``setting`` (``train.epochs``) is the plan's to decide if it is left out."""
    return tuple(setting.split(".")) in _DERIVED


AFTERWARDS = (
    "evaluate.suite",
    "evaluate.overlap",
    *(f"evaluate.judge.{name}" for name in JudgeOptions.model_fields),
    *(f"endpoint.{name}" for name in EndpointOptions.model_fields),
)
"""Options that can be changed even when all is measured: what they ask for is counted again."""

CHANGEABLE: dict[str, str | None] = {
    "train.micro_batch_tokens": "micro_batch_tokens",
    "train.gradient_checkpointing": "gradient_checkpointing",
    "train.save_every": "save_every",
    "train.keep_checkpoints": "keep_checkpoints",
    "train.trackers": "trackers",
    "evaluate.max_new_tokens": "max_new_tokens",
    "evaluate.batch_size": "eval_batch_size",
    "evaluate.toxicity_url": None,
    "evaluate.forgetting": None,
    "evaluate.memorising": None,
    "evaluate.speed": None,
    **dict.fromkeys(AFTERWARDS),
}
"""Options that a run under way can be gone on with changed → the plan's field, if it has one."""


def change(
    recipe: Recipe, plan: Plan | None, changes: Mapping[str, Any]
) -> tuple[Recipe, Plan | None]:
    """Return recipe and plan with ``changes``: values by the names in :data:`CHANGEABLE`."""
    for key, value in changes.items():
        recipe = _with(recipe, key.split("."), value)
        name, held = CHANGEABLE[key], tuple(value) if isinstance(value, list) else value
        if plan is not None and name is not None:
            reasons = {**plan.reasons, name: because("plan.reason.asked")}
            plan = plan.model_copy(update={name: held, "reasons": reasons})
    return recipe, plan


def _with(options: OptionsModel, path: Sequence[str], value: Any) -> OptionsModel:
    """Return ``options`` with ``value`` at ``path``."""
    name, *below = path
    if below:
        value = _with(getattr(options, name), below, value)
    return options.model_copy(update={name: value})


def resolve(recipe: Recipe, plan: Plan) -> Recipe:
    """Return the recipe with the plan's value wherever the plan was left to decide."""
    data = recipe.model_dump(mode="json")
    for path, name in _DERIVED.items():
        group = data
        for part in path[:-1]:
            group = group[part]
        group[path[-1]] = getattr(plan, name)
    return Recipe.model_validate_json(json.dumps(data))


def as_asked(recipe: Recipe, plan: Plan) -> Recipe:
    """Return what :func:`resolve` was given: without the values that ``plan`` filled in."""
    data = recipe.model_dump(mode="json", exclude_defaults=True)
    for path, name in _DERIVED.items():
        group = data
        for part in path[:-1]:
            group = group.get(part, {})
        if plan.reasons[name].key != "plan.reason.asked":
            group.pop(path[-1], None)
    return Recipe.model_validate_json(json.dumps(data))


def recipe_yaml(recipe: Recipe, plan: Plan | None, language: Language | None = None) -> str:
    """Return the recipe as YAML that :func:`~weitiao.plan.recipe.load_recipe` reads back.

    What was left to the plan holds the plan's value, with its reason as a comment in
    ``language`` (by default the one spoken now); before there is a plan, null.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    def commented(value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, dict):
            group = CommentedMap()
            for name, below in value.items():
                here = (*path, name)
                group[name] = commented(below, here)
                if plan is not None and (comment := _comment(plan, here, language)):
                    group.yaml_add_eol_comment(comment, name, column=0)
            return group
        if isinstance(value, list):
            row = CommentedSeq(value)
            row.fa.set_flow_style()
            return row
        return value

    settled = recipe if plan is None else resolve(recipe, plan)
    document = commented(settled.model_dump(mode="json"), ())
    document.yaml_set_start_comment(say("plan.recipe_header", language))
    writer = YAML()
    writer.width = 4096
    writer.allow_unicode = True
    out = io.StringIO()
    writer.dump(document, out)
    return out.getvalue()


def _comment(plan: Plan, path: tuple[str, ...], language: Language | None) -> str | None:
    reason = plan.reasons.get(_DERIVED.get(path, ""))
    if reason is None or reason.key in ("plan.reason.asked", "plan.reason.default"):
        return None
    return reason.sentence(language)
