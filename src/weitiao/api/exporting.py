"""What was trained, written in other forms, each asked the same as the model as trained."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from weitiao.api.begin import base_of_run, chat_format, log_of, recipe_of
from weitiao.api.card import card_facts, manner_of
from weitiao.api.look import require_trained
from weitiao.api.replay import ANSWERS, Kind, Replay
from weitiao.api.serving import fingerprint
from weitiao.errors import DataError, RunError
from weitiao.events import EventLog, Listener
from weitiao.runs import Run
from weitiao.words import language

if TYPE_CHECKING:
    from weitiao.evaluation.answers import Answered
    from weitiao.evaluation.compare import Results
    from weitiao.export.merge import Tell, Trained
    from weitiao.export.parity import Parity, ScoreKept
    from weitiao.export.write import Material, Target
    from weitiao.plan.recipe import Recipe

PROMPTS = 32
"""Held-out rows that every form answers."""

CALIBRATION = 128
"""Training rows by which a form of few bits is calibrated."""


@dataclass(frozen=True, slots=True)
class Exported:
    """One form: where it stands, and the gate's report; ``path`` None: it failed and is gone.

    The last one is no file but ``server``: what ``weitiao serve`` answers on the run.
    """

    target: Target | Literal["server"]
    path: Path | None
    parity: Parity
    note: str | None = None
    """Why a GGUF has no Modelfile beside it, as a sentence."""


@dataclass(frozen=True, slots=True)
class _Gate:
    """What every form is asked, and what the model as trained answered to it."""

    run: Run
    recipe: Recipe
    trained: Trained
    work: Path
    rows: tuple[int, ...]
    log: EventLog

    def ask(self, target: str, kind: Kind, path: Path, out: Path) -> None:
        """Let a process of its own answer the rows with the form at ``path``."""
        import orjson

        from weitiao.records.files import write_atomic

        out.mkdir(parents=True)
        like = None if kind == "trained" else str(self.work / "trained")
        spec = Replay(str(self.run.path), kind, str(path), self.rows, str(out), like)
        write_atomic(out / "spec.json", orjson.dumps(spec))
        self.log.emit("export.asking", target=target, rows=len(self.rows))
        done = subprocess.run(
            [sys.executable, "-m", "weitiao.api.replay", str(out / "spec.json")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=os.environ | {"WEITIAO_LANG": language()},
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
            raise RunError("error.replay_failed", target=target, cause=lines[-1])


def export(
    run: Run,
    targets: Sequence[Target],
    listeners: tuple[Listener, ...] = (),
    *,
    out: Path | None = None,
    prompts: int = PROMPTS,
    force: bool = False,
    server: bool = True,
) -> Iterator[Exported]:
    """Write each of ``targets`` into ``out`` (the run's ``exports``) and yield it as it is done.

    Each form answers ``prompts`` test rows in a process of its own. One whose prompts have
    other token ids, or whose score falls for certain, is deleted again unless ``force`` keeps
    it; its ``parity.json`` says so either way.

    Raises:
        RunError: nothing was trained yet, a form is there already, or it cannot be written.
        ModelError: the architecture or the method cannot be written in that form.
        DataError: there are no held-out rows.
    """
    from weitiao.evaluation.evaluate import held_out
    from weitiao.export.write import require_target
    from weitiao.records.prepare import load_records

    require_trained(run)
    recipe = recipe_of(run)
    folder = out or run.path / "exports"
    material = _material(run, recipe)
    for target in targets:
        if (folder / target).exists():
            raise RunError("error.export_exists", path=folder / target)
        require_target(target, material)
    records = load_records(run.records / "test.jsonl")
    if not records:
        raise DataError("error.no_held_out_rows")
    rows = tuple(held_out(len(records), prompts, recipe.evaluate.seed))
    with run.lock(), _work(folder) as work:
        gate = _Gate(run, recipe, material.trained, work, rows, log_of(run, listeners))
        gate.ask("trained", "trained", material.trained.folder, work / "trained")
        if sum(target != "adapter" for target in targets) > 1:
            material = replace(material, merged=_merged(material, work / "merged", gate.log))
        for target in targets:
            yield _one(gate, target, material, folder, force=force)
        if server:
            yield _by_server(gate, folder)


@contextmanager
def _work(folder: Path) -> Iterator[Path]:
    """Yield a folder for what is not done yet, on the same disk as the exports; it goes again."""
    work = folder / ".work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _one(gate: _Gate, target: Target, material: Material, folder: Path, *, force: bool) -> Exported:
    """Write one form, ask it, and keep it if it is what was trained."""
    from weitiao.evaluation.beside import write_measure
    from weitiao.export.parity import PARITY
    from weitiao.export.write import write_export

    made = gate.work / "forms" / target
    gate.log.emit("export.writing", target=target)
    note = write_export(target, material, made, _teller(gate.log, target)).ollama_refused
    parity = replace(_parity(gate, target, made), forced=force)
    if parity.failures and not force:
        shutil.rmtree(made)
        write_measure(folder / f"{target}.{PARITY}", parity)
        return Exported(target, None, parity, note)
    if not parity.failures:
        parity = replace(parity, forced=False)
    write_measure(made / PARITY, parity)
    _tell_card(made / "README.md", parity)
    final = folder / target
    made.rename(final)
    (folder / f"{target}.{PARITY}").unlink(missing_ok=True)
    gate.log.emit("export.done", target=target, path=str(final))
    return Exported(target, final, parity, note)


def _by_server(gate: _Gate, folder: Path) -> Exported:
    """Ask the server that people will ask; it reads what was exported before, if it can use it."""
    from weitiao.evaluation.beside import write_measure
    from weitiao.export.parity import PARITY

    out = gate.work / "asked" / "server"
    gate.ask("server", "server", gate.run.path, out)
    parity = _compared(gate, "server", "weitiao serve", out, None, 0)
    write_measure(folder / f"server.{PARITY}", parity)
    return Exported("server", None if parity.failures else folder, parity)


def _tell_card(card: Path, parity: Parity) -> None:
    """Add to the model card what the gate found."""
    from weitiao.export.present import sentences
    from weitiao.records.files import write_atomic
    from weitiao.words import LANGUAGES, say

    told = [
        f"## {say('parity.title', tongue)}\n\n" + "\n".join(sentences(parity, tongue)) + "\n"
        for tongue in LANGUAGES
    ]
    write_atomic(card, "\n".join([card.read_text(encoding="utf-8"), *told]))


def _parity(gate: _Gate, target: Target, made: Path) -> Parity:
    """Ask the form at ``made`` and hold its answers against those of the model as trained."""
    out, gguf = gate.work / "asked" / target, next(iter(made.glob("*.gguf")), None)
    gate.ask(target, "folder" if gguf is None else "gguf", gguf or made, out)
    if gguf is None or not _has_openvino():
        return _compared(gate, target, "transformers", out, out, _size(made))
    by_runner = gate.work / "asked" / f"{target}-openvino"
    try:
        gate.ask(target, "openvino", gguf, by_runner)
    except RunError:
        # OpenVINO takes fewer models than GGUF does; the report names who answered.
        return _compared(gate, target, "transformers", out, out, _size(made))
    return _compared(gate, target, "openvino", by_runner, out, _size(made))


def _compared(
    gate: _Gate, target: str, runner: str, out: Path, read: Path | None, size: int
) -> Parity:
    """Compare the answers in ``out``.

    ``read`` is the folder of another process that told losses and distributions of the same
    weights, where ``runner`` tells none.
    """
    from weitiao.evaluation.answers import read_answers
    from weitiao.evaluation.compare import compare
    from weitiao.evaluation.suite import load_suite
    from weitiao.export.parity import TOLD, Form, Parity, load_told

    trained, told = load_told(gate.work / "trained" / TOLD), load_told(out / TOLD)
    before, after = read_answers(gate.work / "trained" / ANSWERS), read_answers(out / ANSWERS)
    if read is not None and read != out:
        told = replace(told, likeness=load_told(read / TOLD).likeness)
        after = _with_losses(after, read_answers(read / ANSWERS))
    asked = gate.recipe.evaluate
    results = compare(before, after, asked, load_suite(asked.suite))
    prompts = zip(trained.prompts, told.prompts, strict=True)
    words = {answer.row: answer.text for answer in before}
    return Parity(
        target=target,
        runner=runner,
        prompts=len(before),
        prompts_differ=sum(a != b for a, b in prompts),
        answers_equal=sum(words[answer.row] == answer.text for answer in after),
        likeness=told.likeness,
        verdict_score=results.verdict.score,
        scores=_scores(results),
        trained=Form(_trained_size(gate.trained), trained.memory, trained.tokens_per_second),
        form=Form(size, told.memory, told.tokens_per_second),
        weights=fingerprint(gate.trained.source, gate.trained.folder),
    )


def _has_openvino() -> bool:
    from importlib.util import find_spec

    return find_spec("openvino_genai") is not None


def _with_losses(answers: list[Answered], read: list[Answered]) -> list[Answered]:
    """Return what one program answered with the losses of another that read the same file."""
    losses = {answer.row: (answer.loss_sum, answer.loss_tokens) for answer in read}
    return [
        replace(answer, loss_sum=losses[answer.row][0], loss_tokens=losses[answer.row][1])
        for answer in answers
    ]


def _scores(results: Results) -> tuple[ScoreKept, ...]:
    from weitiao.export.parity import LOSS_MARGIN, ScoreKept

    found = []
    for line in results.scores:
        if line.change is None:
            continue
        lost, trained, form = line.change == "worse", line.base.value, line.tuned.value
        if line.name in ("answer_loss", "perplexity"):
            lost = lost and form > trained * (1 + LOSS_MARGIN)
        interval = line.difference.low, line.difference.high
        found.append(ScoreKept(line.name, trained, form, *interval, lost))
    return tuple(found)


def _material(run: Run, recipe: Recipe) -> Material:
    """Return what every form is made from."""
    import random

    from weitiao.export.manner import require_base
    from weitiao.export.merge import Trained
    from weitiao.export.write import Material
    from weitiao.models.fingerprint import base_fingerprint
    from weitiao.plan.plan import read_plan
    from weitiao.records.prepare import load_records, load_samples

    settled, chat = read_plan(run.plan), chat_format(recipe)
    records = load_records(run.records / "train.jsonl")
    drawn = random.Random(recipe.evaluate.seed).sample(records, min(CALIBRATION, len(records)))
    source, manner = base_of_run(run, recipe), manner_of(run)
    trained = Trained(source, run.model if settled.method == "full" else run.adapter)
    if trained.is_adapter:
        require_base(source, trained.folder, manner.base)
    return Material(
        trained,
        chat,
        card_facts(run, recipe, settled),
        manner=replace(manner, base=base_fingerprint(source)),
        samples=[sample.ids.tolist() for sample in load_samples(drawn, chat, recipe.data)],
    )


def _merged(material: Material, out: Path, log: EventLog) -> Path:
    """Merge once for all forms that begin with it."""
    from weitiao.export.merge import write_merged

    log.emit("export.writing", target="merged")
    out.mkdir()
    write_merged(material.trained, out, material.chat)
    return out


def _teller(log: EventLog, target: Target) -> Tell:
    def tell(done: int, total: int) -> None:
        log.emit("export.progress", target=target, done=done, total=total)

    return tell


def _trained_size(trained: Trained) -> int:
    """Return the bytes of what is loaded to answer as trained: the base and its adapter."""
    from weitiao.models.load import weights_on_disk

    base = weights_on_disk(trained.source) or 0 if trained.is_adapter else 0
    return base + _size(trained.folder)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def page(folder: Path, title: str) -> Path:
    """Write ``table.html`` into ``folder`` from the gate's reports on all forms in it.

    Raises:
        RunError: there are none of this version, or the page cannot be written.
    """
    from weitiao.export.page import write_page
    from weitiao.export.parity import PARITY, load_parity
    from weitiao.plan.machine import probe

    files = sorted({*folder.glob(f"*/{PARITY}"), *folder.glob(f"*.{PARITY}")})
    found = [load_parity(file) for file in files]
    if not found:
        raise RunError("error.parity_unreadable", path=folder / PARITY)
    path, machine = folder / "table.html", probe(folder, for_training=False)
    on = machine.gpus[0].name if machine.gpus else f"{machine.cores} × CPU"
    write_page(title, on, found, path)
    return path
