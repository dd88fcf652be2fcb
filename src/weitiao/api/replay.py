"""One form of a run's model answers held-out rows, in a process of its own.

``python -m weitiao.api.replay SPEC`` reads a :class:`Replay` from the file SPEC and writes
into its ``out`` what the parity gate compares. A process of its own, because the peak of
memory can be told apart in no other way, and nothing of one form stays for the next.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from weitiao.evaluation.answers import Answered, Generated
    from weitiao.export.parity import Likeness
    from weitiao.models.pair import Voice
    from weitiao.plan.plan import Plan
    from weitiao.plan.recipe import Recipe
    from weitiao.records.record import Record
    from weitiao.records.render import ChatFormat, Sample
    from weitiao.runs import Run

ANSWERS, LOG_PROBS = "answers.jsonl", "log_probs.npz"

LIKENESS_TOKENS = 256
"""Tokens whose distributions are compared: 156 MB on the disk for a vocabulary of 152k."""

OPENING = 100
"""The most characters of a passage that are asked to be gone on with."""

Kind = Literal["trained", "folder", "gguf", "openvino", "server"]


@dataclass(frozen=True, slots=True)
class Replay:
    """What a process is to do.

    ``kind``: the run's own model as trained, a folder of an adapter or a model, a GGUF file read
    by transformers, or by OpenVINO, or ``weitiao serve`` on the run. ``rows``: which of the run's
    test rows. ``like``: the folder in which the trained model's distributions are; None: none
    are compared.
    """

    run: str
    kind: Kind
    path: str
    rows: tuple[int, ...]
    out: str
    like: str | None = None


class _Timed:
    """Counts the tokens and the seconds of all answers."""

    def __init__(self, generate: Callable[[list[list[int]]], Sequence[Generated]]) -> None:
        self._generate = generate
        self.tokens, self.seconds = 0, 0.0

    def __call__(self, prompts: list[list[int]]) -> Sequence[Generated]:
        started = time.perf_counter()
        answers = self._generate(prompts)
        self.seconds += time.perf_counter() - started
        self.tokens += sum(len(answer.ids) + answer.stopped for answer in answers)
        return answers

    @property
    def rate(self) -> float:
        return self.tokens / max(self.seconds, 1e-9)


def replay(spec: Replay) -> None:
    """Answer the rows and write :data:`ANSWERS` and what else was found into ``spec.out``.

    Raises:
        ModelError: the form cannot be loaded.
        RunError: the results cannot be written.
    """
    from weitiao.api.begin import recipe_of
    from weitiao.plan.plan import read_plan
    from weitiao.runs import Run

    run = Run(Path(spec.run))
    recipe, settled = recipe_of(run), read_plan(run.plan)
    if spec.kind in ("openvino", "server"):
        from weitiao.api.replay_served import by_openvino, by_server

        way = by_openvino if spec.kind == "openvino" else by_server
        way(spec, run, recipe, settled)
    else:
        _by_transformers(spec, run, recipe, settled)


def _by_transformers(spec: Replay, run: Run, recipe: Recipe, settled: Plan) -> None:
    from weitiao.evaluation.answers import answerer
    from weitiao.export.parity import Told, write_told
    from weitiao.models.generate import Sampling
    from weitiao.training.memory import peak_memory

    voice, chat = _voice(spec, run, recipe, settled)
    tokenizer: Any = chat.tokenizer
    made = answerer(
        voice.model,
        chat,
        Sampling(settled.max_new_tokens, repetition_penalty=recipe.evaluate.repetition_penalty),
        pad_id=tokenizer.pad_token_id,
        identity=f"{spec.kind} {spec.path}",
        loss_budget=settled.micro_batch_tokens,
        context=voice.speaking,
        reasoning=recipe.data.reasoning,
    )
    records, answers, rate = answers_of(spec, run, settled, made)
    peak = peak_memory(voice.model.device)
    likeness = None
    if spec.kind == "trained":
        samples = _samples(records, answers, chat)
        _write_log_probs(voice, samples, Path(spec.out) / LOG_PROBS)
    elif spec.like is not None:
        likeness = _likeness(voice, Path(spec.like) / LOG_PROBS)
    prompts = prompts_of(records, lambda record: question(record, chat))
    write_told(Path(spec.out), Told(prompts, peak, rate, likeness))


def _voice(spec: Replay, run: Run, recipe: Recipe, settled: Plan) -> tuple[Voice, ChatFormat]:
    """Return the model and its own tokenizer's chat format, loaded as anybody would load them."""
    import torch

    from weitiao.api.begin import chat_format, load_pair_of, source_of
    from weitiao.models.load import TYPES, ModelSource, load_model, load_tokenizer
    from weitiao.models.pair import Voice, load_pair
    from weitiao.records.render import ChatFormat

    if spec.kind == "trained":
        return load_pair_of(run, recipe, settled)[1], chat_format(recipe)
    device, dtype = torch.device(settled.device), TYPES[settled.precision]
    folder = Path(spec.path)
    if spec.kind == "gguf":
        from weitiao.models.load import load_gguf

        model, tokenizer = load_gguf(folder, dtype, device)
        return Voice(model), ChatFormat(tokenizer)
    own = ModelSource(spec.path, spec.path, None, recipe.model.trust_remote_code)
    chat = ChatFormat(load_tokenizer(own))
    if (folder / "adapter_config.json").is_file():
        return load_pair(source_of(recipe), folder, dtype, device, settled.quantization)[1], chat
    return Voice(load_model(own, dtype, device)), chat


def question(record: Record, chat: ChatFormat) -> list[int]:
    """Return the ids after which the model is to go on: for a passage, of its :func:`opening`.

    Raises:
        ModelError: the template refuses this conversation.
    """
    if record.text is None:
        return chat.prompt_ids(record.prompt, record.tools)
    tokenizer: Any = chat.tokenizer
    ids: list[int] = tokenizer.encode(opening(record.text), add_special_tokens=False)
    return ids


def opening(text: str) -> str:
    """Return the part of a passage that a model is given; it goes on from there by itself."""
    return text[: max(1, min(OPENING, len(text) // 2))]


def answers_of(
    spec: Replay, run: Run, settled: Plan, made: Any
) -> tuple[list[Record], list[Answered], float]:
    """Return the rows, what ``made`` (an Answerer) said to them, and its tokens a second.

    An answer to a passage is how it was gone on with.
    """
    from dataclasses import asdict, replace

    import orjson

    from weitiao.evaluation.answers import answer_rows
    from weitiao.events import EventLog
    from weitiao.records.files import write_atomic
    from weitiao.records.prepare import load_records

    records = load_records(run.records / "test.jsonl")
    timed = _Timed(made.generate)
    path = Path(spec.out) / ANSWERS
    answers = answer_rows(
        records,
        spec.rows,
        replace(made, generate=timed),
        path,
        EventLog(),
        batch_size=len(spec.rows),
        max_tokens=settled.max_tokens,
    )
    passages = [i for i, answer in enumerate(answers) if records[answer.row].text is not None]
    if passages:
        asked = [question(records[answers[i].row], made.chat) for i in passages]
        for i, said in zip(passages, timed(asked), strict=True):
            answers[i] = replace(answers[i], text=made.decode(said.ids))
        lines = (orjson.dumps(asdict(a), option=orjson.OPT_APPEND_NEWLINE) for a in answers)
        write_atomic(path, b"".join(lines))
    return [records[i] for i in spec.rows], answers, timed.rate


def prompts_of(
    records: Sequence[Record], render: Callable[[Record], Sequence[int]]
) -> tuple[tuple[int, ...], ...]:
    """Return the ids after which each row is answered; none where they cannot be made."""
    from weitiao.errors import ModelError

    found = []
    for record in records:
        try:
            found.append(tuple(render(record)))
        except ModelError:
            found.append(())
    return tuple(found)


def _samples(
    records: Sequence[Record], answers: Sequence[Answered], chat: ChatFormat
) -> list[Sample]:
    """Return each question with the answer that was given to it, whose tokens are compared."""
    import numpy as np

    from weitiao.records.render import Sample

    encode: Any = chat.tokenizer.encode
    found: list[Sample] = []
    left = LIKENESS_TOKENS
    each = max(4, LIKENESS_TOKENS // max(len(answers), 1))
    for record, answer in zip(records, answers, strict=True):
        if not left:
            continue
        prompt = question(record, chat)
        said = encode(answer.text, add_special_tokens=False)[: min(each, left)]
        left -= len(said)
        scored = np.zeros(len(prompt) + len(said), dtype=bool)
        scored[len(prompt) :] = True
        if len(said):
            found.append(Sample(np.array([*prompt, *said], dtype=np.int32), scored, len(found)))
    return found


def _write_log_probs(voice: Voice, samples: Sequence[Sample], path: Path) -> None:
    import numpy as np

    from weitiao.models.divergence import log_probs

    parts = [part.cpu().numpy() for part in log_probs(voice, samples)]
    lines = [len(sample.ids) for sample in samples]
    ids = np.concatenate([sample.ids for sample in samples]) if samples else np.zeros(0, np.int32)
    starts = [int(sample.scored.argmax()) for sample in samples]
    log_p_SV = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
    np.savez(path, log_p_SV=log_p_SV, ids=ids, lengths=lines, starts=starts)


def _likeness(voice: Voice, path: Path) -> Likeness | None:
    """Compare with what the trained model expected after the same words."""
    import numpy as np

    from weitiao.export.parity import Likeness
    from weitiao.models.divergence import log_probs
    from weitiao.records.render import Sample

    with np.load(path) as kept:
        trained_SV, ids, lengths, starts = (
            kept[name] for name in ("log_p_SV", "ids", "lengths", "starts")
        )
    if not len(trained_SV):
        return None
    parts = np.split(ids, lengths.cumsum()[:-1])
    samples = [
        Sample(row, np.arange(len(row)) >= start, i)
        for i, (row, start) in enumerate(zip(parts, starts, strict=True))
    ]
    form_SV = np.concatenate([part.cpu().numpy() for part in log_probs(voice, samples)])
    # Files may hold unused entries that fill a vocabulary up.
    width = min(trained_SV.shape[1], form_SV.shape[1])
    trained_SV, form_SV = trained_SV[:, :width], form_SV[:, :width]
    kl = float((np.exp(trained_SV) * (trained_SV - form_SV)).sum(1).mean())
    agreed = float((trained_SV.argmax(1) == form_SV.argmax(1)).mean())
    return Likeness(len(trained_SV), max(kl, 0.0), agreed)


def main() -> None:
    """Do what the file named on the command line asks; a mistake of the user's is one sentence."""
    from pydantic import TypeAdapter

    from weitiao.errors import WeitiaoError
    from weitiao.models.runtime import leave_out_bitsandbytes, prepare_process
    from weitiao.plan.plan import read_plan
    from weitiao.runs import Run

    prepare_process()
    spec = TypeAdapter(Replay).validate_json(Path(sys.argv[1]).read_bytes())
    try:
        if read_plan(Run(Path(spec.run)).plan).quantization == "none":
            leave_out_bitsandbytes()
        replay(spec)
    except WeitiaoError as error:
        print(error.sentence(), file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
