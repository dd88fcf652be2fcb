"""What a model answers on held-out rows, and how surely it expects the reference answers."""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from weitiao.events import EventLog
from weitiao.records.files import write_atomic, write_error
from weitiao.records.options import Reasoning
from weitiao.records.record import Record
from weitiao.records.render import ChatFormat, Sample

if TYPE_CHECKING:
    from weitiao.models.generate import Sampling


@dataclass(frozen=True, slots=True)
class Answered:
    """One held-out row with what a model made of it.

    ``row`` counts the held-out rows from 0. ``text`` is the answer as generated, ``answer``
    the same without reasoning. ``loss_sum`` is the sum of -log p in nats over the
    ``loss_tokens`` tokens of the reference answer and its end of turn; ``seconds`` is the row's
    share of its batch. ``key`` tells which model, prompt and sampling it came from. A passage
    for continued pretraining has a loss, and nothing asked or answered.
    ``loss_sum`` is None where the model's loss is not a number.
    """

    row: int
    key: str
    file: str
    line: int
    prompt: tuple[tuple[str, str], ...]
    reference: str
    text: str
    answer: str
    stopped: bool
    tokens: int
    loss_sum: float | None
    loss_tokens: int
    seconds: float


class Generated(Protocol):
    """What is used of ``models.generate.Generation``."""

    @property
    def ids(self) -> Sequence[int]:
        """The generated token ids, the stop token left out."""

    @property
    def stopped(self) -> bool:
        """Whether the model ended its answer itself."""


@dataclass(frozen=True, slots=True)
class Answerer:
    """A model as evaluation sees it.

    ``generate`` maps prompts (token ids) to answers, ``losses`` maps samples to
    (sum of -log p in nats, scored tokens), ``decode`` ids to text. ``identity`` tells this
    model and its sampling from any other: answers with the same identity are not made twice.
    ``reasoning`` says what training did with it, so that the loss is that of what was trained.
    """

    chat: ChatFormat
    generate: Callable[[list[list[int]]], Sequence[Generated]]
    losses: Callable[[list[Sample]], Sequence[tuple[float, int]]]
    decode: Callable[[Sequence[int]], str]
    identity: str
    reasoning: Reasoning = "learn"


@dataclass(frozen=True, slots=True)
class _Row:
    """A row made ready: the prompt's tokens as in training (none for a passage), its samples."""

    row: int
    key: str
    record: Record
    prompt_ids: list[int]
    samples: list[Sample]


def answer_rows(
    records: Sequence[Record],
    rows: Sequence[int],
    answerer: Answerer,
    path: Path,
    events: EventLog,
    *,
    batch_size: int,
    max_tokens: int,
) -> list[Answered]:
    """Answer ``records[i]`` for each i of ``rows`` and write ``path`` (JSONL, ordered by row).

    Finished batches are kept beside ``path`` until all are done, so a killed evaluation
    goes on where it was; rows of an earlier file with the same key are taken as they are.
    Rows that this chat format cannot render are left out. Emits ``evaluation.progress``:
    which (the file's stem), done, total, tokens_per_second, eta_seconds.

    Raises:
        RunError: the answers cannot be written.
    """
    ready = [row for i in rows if (row := _prepare(records[i], i, answerer, max_tokens))]
    partial = path.with_name(path.name + ".partial")
    known = {a.key: a for p in (path, partial) if p.exists() for a in read_answers(p)}
    done = [known[row.key] for row in ready if row.key in known]
    # Longest first: neighbours of like length waste little padding, and the batch that
    # needs most memory comes at once, not after half an hour.
    todo = sorted((r for r in ready if r.key not in known), key=lambda r: -len(r.prompt_ids))
    started, tokens = time.monotonic(), 0
    _report(events, path.stem, len(done), len(ready), 0.0, None)
    for start in range(0, len(todo), batch_size):
        batch = _answer_batch(todo[start : start + batch_size], answerer)
        _append(partial, batch)
        done += batch
        tokens += sum(a.tokens for a in batch)
        spent = time.monotonic() - started
        here = start + len(batch)
        eta = spent / here * (len(todo) - here)
        _report(events, path.stem, len(done), len(ready), tokens / max(spent, 1e-9), eta)
    done.sort(key=lambda a: a.row)
    write_atomic(path, b"".join(_line(a) for a in done))
    partial.unlink(missing_ok=True)
    return done


def read_answers(path: Path) -> list[Answered]:
    """Return the answers of a file; a last line that a kill left broken is passed over."""
    answers = []
    for line in path.read_bytes().split(b"\n"):
        try:
            row = orjson.loads(line)
            row["prompt"] = tuple((role, content) for role, content in row["prompt"])
            answers.append(Answered(**row))
        except (ValueError, TypeError, KeyError):
            continue
    return answers


def answerer(
    model: Any,
    chat: ChatFormat,
    sampling: "Sampling",
    *,
    pad_id: int,
    identity: str,
    loss_budget: int = 4096,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    reasoning: Reasoning = "learn",
) -> Answerer:
    """Return a model of ours as an :class:`Answerer`.

    ``loss_budget`` is the most tokens in one forward pass of the loss; ``context`` is entered
    around each call (``model.disable_adapter`` makes the base of a tuned model).
    """
    from weitiao.models.flat import answer_losses
    from weitiao.models.generate import generate

    tokenizer: Any = chat.tokenizer

    def answers(prompts: list[list[int]]) -> Sequence[Generated]:
        with context():
            return generate(model, prompts, sampling, chat.stop_ids, pad_id, len(prompts))

    def losses(samples: list[Sample]) -> Sequence[tuple[float, int]]:
        with context():
            return answer_losses(model, samples, loss_budget)

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    return Answerer(chat, answers, losses, decode, f"{identity} {sampling}", reasoning)


def _prepare(record: Record, row: int, answerer: Answerer, max_tokens: int) -> _Row | None:
    # The sample of the last turn is what training would have seen, shortened in the same
    # way; what precedes its scored tokens is the prompt.
    rendered = partial(
        answerer.chat.samples, record, row, max_tokens=max_tokens, score_turns="last"
    )
    kept = answerer.reasoning != "drop"
    samples = rendered(reasoning="learn" if kept else "drop")
    measured = rendered(reasoning=answerer.reasoning)
    if not isinstance(samples, list) or not isinstance(measured, list):
        return None
    prompt_ids: list[int] = []
    if record.text is None:
        last = samples[-1]
        prompt_ids = last.ids[: int(last.scored.argmax())].tolist()
    digest = hashlib.sha256(answerer.identity.encode())
    for sample in measured:
        digest.update(sample.ids.tobytes() + sample.scored.tobytes())
    # Rows with the same words are still different rows.
    digest.update(f"{row} {record.origin.file} {record.origin.line}".encode())
    return _Row(row, digest.hexdigest()[:16], record, prompt_ids, measured)


def _answer_batch(batch: Sequence[_Row], answerer: Answerer) -> list[Answered]:
    started = time.monotonic()
    asked = [row for row in batch if row.prompt_ids]
    generated = answerer.generate([row.prompt_ids for row in asked]) if asked else []
    answers = {row.row: answer for row, answer in zip(asked, generated, strict=True)}
    samples = [sample for row in batch for sample in row.samples]
    losses = dict.fromkeys((row.row for row in batch), (0.0, 0))
    for sample, (loss, count) in zip(samples, answerer.losses(samples), strict=True):
        before = losses[sample.row]
        losses[sample.row] = (before[0] + loss, before[1] + count)
    seconds = (time.monotonic() - started) / len(batch)
    return [
        _answered(row, answers.get(row.row), losses[row.row], seconds, answerer) for row in batch
    ]


def _answered(
    row: _Row,
    generated: Generated | None,
    loss: tuple[float, int],
    seconds: float,
    answerer: Answerer,
) -> Answered:
    record, chat = row.record, answerer.chat
    ids = list(generated.ids) if generated else []
    text = answerer.decode(ids)
    return Answered(
        row=row.row,
        key=row.key,
        file=record.origin.file,
        line=record.origin.line,
        prompt=tuple((m.role, m.content) for m in record.prompt),
        # A reference without reasoning stands as it is, though such a *generated* text
        # would be taken for reasoning that never ended.
        reference=chat.answer_text(record.answer) or record.answer.strip(),
        text=text,
        answer=chat.answer_text(text),
        stopped=bool(generated and generated.stopped),
        tokens=len(ids),
        # A model that broke in training can give nan, which JSON cannot hold.
        loss_sum=loss[0] if math.isfinite(loss[0]) else None,
        loss_tokens=loss[1],
        seconds=round(seconds, 4),
    )


def _line(answered: Answered) -> bytes:
    return orjson.dumps(asdict(answered), option=orjson.OPT_APPEND_NEWLINE)


def _append(path: Path, answers: Sequence[Answered]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as out:
            # The newline in front closes a line that a kill left broken.
            out.write(b"\n" + b"".join(_line(a) for a in answers))
    except OSError as error:
        raise write_error(path, error) from error


def _report(
    events: EventLog, which: str, done: int, total: int, rate: float, eta: float | None
) -> None:
    events.emit(
        "evaluation.progress",
        which=which,
        done=done,
        total=total,
        tokens_per_second=round(rate, 1),
        eta_seconds=None if eta is None else round(eta, 1),
    )
