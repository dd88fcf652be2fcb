"""Knowing beforehand: a plan for this machine, measured if asked, or for one that is not here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from weitiao.api.begin import chat_format, data_path, find_run, recipe_of, source_of
from weitiao.events import EventLog, Listener

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from weitiao.plan.cost import Rates
    from weitiao.plan.machine import Machine
    from weitiao.plan.plan import Plan
    from weitiao.plan.recipe import Device, Recipe
    from weitiao.records.options import DataOptions
    from weitiao.records.record import Record
    from weitiao.records.render import ChatFormat, Sample
    from weitiao.runs import Run


def make(
    recipe: Recipe,
    records: Mapping[str, Sequence[Record]],
    chat: ChatFormat,
    machine: Machine,
    *,
    probe: bool,
) -> Plan:
    """Return the plan for training on ``machine``; nothing is written.

    ``records``: those of train, val and test. The plan's time rests on published or measured
    rates of the hardware, with ``probe`` on half a minute of training. A machine that is
    elsewhere is not measured.

    Raises:
        PlanError: there are no training rows.
    """
    import numpy as np

    from weitiao.models.load import read_config, weights_on_disk
    from weitiao.plan.plan import make_plan
    from weitiao.plan.settle import choose_device
    from weitiao.plan.shape import ModelShape
    from weitiao.plan.sharing import executed_tokens
    from weitiao.records.prepare import load_samples

    samples = load_samples(records["train"], chat, recipe.data)
    others = load_samples([*records["val"], *records["test"]], chat, recipe.data)
    source = source_of(recipe)
    shape = ModelShape.from_config(read_config(source), weights_on_disk(source))
    device, _ = choose_device(recipe, machine)
    rates = _rates(machine, device, shape.hidden_size)
    lengths = np.array([len(sample.ids) for sample in samples])
    scored = np.array([int(sample.scored.sum()) for sample in samples])
    given = partial(
        make_plan,
        *(recipe, shape, lengths, scored, machine),
        answers=_answers(samples, records["train"], chat, recipe.data),
        held_out=max((len(sample.ids) for sample in others), default=0),
    )
    made = given(rates)
    rows = [sample.ids for sample in samples]
    executed = executed_tokens(
        rows, made.batch_size, made.micro_batch_tokens, made.seed, made.processes
    )
    kept = 1.0
    if not shape.known:
        from weitiao.training.dry_run import kept_share

        kept = kept_share(source, made)

    given = partial(given, executed_tokens=executed, kept_share=kept)
    made = given(rates)
    if probe and made.fits:
        from weitiao.training.probe import token_seconds

        made = given(replace(rates, token_seconds=token_seconds(source, made, samples)))
    return made


def _rates(machine: Machine, device: Device, width: int) -> Rates:
    """Return what ``device`` computes in a second; of a card that is not here, by its data."""
    from weitiao.plan.cost import default_rates, measure_rates

    if machine.elsewhere and device == "cuda":
        return default_rates(machine, device)
    return measure_rates(machine, device, width)


def _answers(
    samples: Sequence[Sample], records: Sequence[Record], chat: ChatFormat, options: DataOptions
) -> npt.NDArray[np.integer]:
    """Return the tokens that the model is to say of each sample, the longest of its answers.

    Reasoning that is only read in training is said by the model too. Of a text there is no
    answer: it was all learnt.
    """
    import numpy as np

    from weitiao.records.prepare import load_samples

    if options.reasoning == "context":
        samples = load_samples(records, chat, options.model_copy(update={"reasoning": "learn"}))
    said = []
    for sample in samples:
        if records[sample.row].text is None:
            edges = np.flatnonzero(np.diff(sample.scored, prepend=False, append=False))
            said.append((edges[1::2] - edges[::2]).max(initial=0))
    return np.array(said, dtype=np.int64)


def _asked_of(run: Run, said: Recipe) -> Recipe:
    """Return what was asked of ``run``, without what its plan filled in, and ``said`` over it."""
    from weitiao.plan.plan import read_plan
    from weitiao.plan.resolved import as_asked

    begun = recipe_of(run)
    if run.stage_done("plan"):
        begun = as_asked(begun, read_plan(run.plan))
    asked: Recipe = _laid_over(begun, said)
    return asked


def _laid_over(below: Any, said: Any) -> Any:
    """Return the options ``below`` with those that were given in ``said``."""
    given = {name: getattr(said, name) for name in said.model_fields_set - {"path", "description"}}
    return below.model_copy(
        update={
            name: _laid_over(getattr(below, name), value)
            if hasattr(value, "model_fields_set")
            else value
            for name, value in given.items()
        }
    )


def forecast(
    target: str,
    recipe: Recipe,
    *,
    gpu: str | None = None,
    memory: str | None = None,
    listeners: tuple[Listener, ...] = (),
) -> Plan:
    """Return the plan for a machine that is not here; no run is made and none is changed.

    ``target``: a data file or a run; ``gpu``: a card or the size of its memory, none for a
    machine without one; ``memory``: the computer's. The model's weights are not needed.

    Raises:
        DataError: the data cannot be read, or no row of it can be used.
        ModelError: the model's configuration or tokenizer cannot be read.
        PlanError: the card is not known, or there are no training rows.
    """
    from weitiao.plan.cards import elsewhere
    from weitiao.plan.machine import probe
    from weitiao.records.prepare import check, load_records
    from weitiao.records.split import PARTS

    machine = elsewhere(probe(torch_allowed=False), gpu, memory)
    run = find_run(target)
    asked = recipe if run is None else _asked_of(run, recipe)
    formatted = chat_format(asked)
    records: dict[str, Sequence[Record]]
    if run is not None and run.stage_done("records"):
        records = {part: load_records(run.records / f"{part}.jsonl") for part in PARTS}
    else:
        checked = check(data_path(asked), asked.data, formatted, EventLog(None, listeners))
        records = {part: [checked.records[i] for i in rows] for part, rows in checked.split.items()}
    return make(asked, records, formatted, machine, probe=False)
