"""Looking at data before and at a model after: nothing here changes a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from weitiao.api.begin import chat_format, load_pair_of, recipe_of
from weitiao.api.stages import split
from weitiao.errors import DataError, RunError
from weitiao.runs import Run

if TYPE_CHECKING:
    from weitiao.models.conversation import Conversation
    from weitiao.models.generate import Sampling
    from weitiao.plan.recipe import Recipe
    from weitiao.records.record import Record


def kept_rows(run: Run) -> list[Record]:
    """Return the usable rows of ``run``, in the order of the data file."""
    from weitiao.records.prepare import load_records

    split(run)
    return load_records(run.records / "kept.jsonl")


@dataclass(frozen=True, slots=True)
class Shown:
    """A row as the model sees it: each token's text, and whether it is learnt from."""

    record: Record
    tokens: tuple[tuple[str, bool], ...]


def show(records: Sequence[Record], recipe: Recipe, number: int) -> list[Shown]:
    """Return row ``number`` (from 1) of ``records`` as the model sees it, one item a sample.

    Raises:
        DataError: there is no such row.
    """
    from weitiao.records.prepare import load_samples

    if not 1 <= number <= len(records):
        raise DataError("error.no_such_row", number=number, rows=len(records))
    record = records[number - 1]
    formatted = chat_format(recipe)
    decode: Any = formatted.tokenizer.decode  # type: ignore[attr-defined]
    return [
        Shown(
            record,
            tuple(
                (decode([token]), bool(scored))
                for token, scored in zip(sample.ids.tolist(), sample.scored, strict=True)
            ),
        )
        for sample in load_samples([record], formatted, recipe.data)
    ]


def require_trained(run: Run) -> None:
    """Raise where there is nothing yet to talk to.

    Raises:
        RunError: no weights were kept so far.
    """
    if not run.adapter.is_dir() and not run.model.is_dir():
        raise RunError("error.not_trained", path=run.path)


def chat(run: Run, sampling: Sampling | None = None) -> Conversation:
    """Load the tuned model of ``run``, ready to talk; it can answer as its base too.

    The system prompt is the one that the training rows were given with ``data.system``.

    Raises:
        RunError: nothing was trained yet.
        ModelError: it cannot be loaded.
    """
    from weitiao.models.conversation import Conversation
    from weitiao.models.generate import Sampling as Settings
    from weitiao.plan.plan import read_plan

    require_trained(run)
    recipe = recipe_of(run)
    formatted = chat_format(recipe)
    base, tuned = load_pair_of(run, recipe, read_plan(run.plan))
    tokenizer: Any = formatted.tokenizer
    return Conversation(
        tuned=tuned,
        base=base,
        chat=formatted,
        decode=partial(tokenizer.decode, skip_special_tokens=True),
        sampling=sampling or Settings(),
        system=system_prompt(run),
    )


def system_prompt(run: Run) -> str | None:
    """Return the system prompt that all training rows share, if they do."""
    from weitiao.records.prepare import load_records

    heads = {record.messages[:1] for record in load_records(run.records / "train.jsonl")}
    head = heads.pop() if len(heads) == 1 else ()
    return head[0].content if head and head[0].role == "system" else None
