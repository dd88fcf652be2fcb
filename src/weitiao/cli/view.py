"""What happens, as it happens: events in, a bar on a terminal or a line now and then out."""

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from weitiao.cli.screen import blank, clean, lasted, memory, sentence, speed
from weitiao.events import Event
from weitiao.words import say

SECONDS_BETWEEN_LINES, MOST_BETWEEN_LINES = 5.0, 60.0
"""How often progress is written where the output is no terminal; rarer the longer it lasts."""

_STEPS_AVERAGED = 10

_LOOKS_PER_SECOND = 2
"""How often the moving line is drawn again: each time takes milliseconds from the training."""


class View:
    """Listens to a run and shows it on ``console``; a context that ends any moving line."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._moving: Progress | None = None
        self._told = self._since = 0.0
        self._losses: deque[float] = deque(maxlen=_STEPS_AVERAGED)
        self._speeds: dict[str, deque[float]] = {}
        self._validation = ""
        self._answering = ""
        self._shown: dict[str, Callable[[dict[str, Any]], None]] = {
            "run.changed": self._changed,
            "records.progress": self._reading,
            "train.torn": self._torn,
            "train.resumed": self._resumed,
            "train.start": self._training,
            "train.step": self._step,
            "train.eval": self._validated,
            "train.shrunk": self._shrunk,
            "train.rescaled": self._rescaled,
            "train.graphs_off": self._without_graphs,
            "train.stopping": self._stopping,
            "train.tracker_failed": self._untracked,
            "train.done": self._trained,
            "evaluation.progress": self._answer,
            "evaluation.done": self._answered,
            "forgetting.progress": self._asking,
            "memorising.progress": self._asking_again,
            "speed.start": self._timing,
            "evaluation.failed": self._unmeasured,
            "judge.estimate": self._judging,
            "judge.progress": self._judged,
            "judge.failed": self._unjudged,
        }

    def __enter__(self) -> "View":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.still()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if shown := self._shown.get(event.kind):
            shown(dict(event.data))

    def heading(self, title: str) -> None:
        """Begin a stage."""
        self.still()
        self._told = self._since = time.monotonic()
        blank(self.console)
        if self.console.is_terminal:
            self.console.rule(Text(f" {title} ", style="bold cyan"), style="cyan", align="left")
        else:
            sentence(self.console, f"== {title} ==")

    def wait(self, text: str) -> None:
        """Say what takes its time before there is progress to show."""
        if self.console.is_terminal:
            self._move(0, None, text)

    def still(self) -> None:
        """End the moving line."""
        if self._moving is not None:
            self._moving.stop()
            self._moving = None

    def note(self, text: str, style: str = "") -> None:
        """Print a sentence; a moving line stays below it."""
        sentence(self.console, text, style)

    def _move(self, done: int, total: int | None, text: str, *, last: bool = False) -> None:
        """Show progress: in place on a terminal, elsewhere as a line every few seconds."""
        if self.console.is_terminal:
            if self._moving is None:
                self._moving = Progress(
                    SpinnerColumn(),
                    BarColumn(bar_width=10),
                    TextColumn("{task.fields[text]}", markup=False),
                    console=self.console,
                    transient=True,
                    refresh_per_second=_LOOKS_PER_SECOND,
                )
                self._moving.add_task("", total=total, text=text)
                self._moving.start()
            task = self._moving.tasks[0].id
            self._moving.update(task, completed=done, total=total, text=text)
            return
        now = time.monotonic()
        wait = min(MOST_BETWEEN_LINES, max(SECONDS_BETWEEN_LINES, (now - self._since) / 100))
        if last or now - self._told >= wait:
            self._told = now
            sentence(self.console, text)

    def _reading(self, data: dict[str, Any]) -> None:
        self._move(0, None, say("cli.progress.reading", rows=f"{data['rows']:,}"))

    def _changed(self, data: dict[str, Any]) -> None:
        told = {key: clean(str(data[key])) for key in ("setting", "before", "now")}
        self.note(say("cli.changed", **told))

    def _torn(self, data: dict[str, Any]) -> None:
        self.note(say("cli.torn", step=data["step"]), "yellow")

    def _resumed(self, data: dict[str, Any]) -> None:
        self.note(say("cli.resumed", step=data["step"]))

    def _training(self, data: dict[str, Any]) -> None:
        self._losses.clear()
        self._speeds.clear()
        self._validation = ""
        self._move(0, data["steps"], say("cli.progress.first_step"))

    def _step(self, data: dict[str, Any]) -> None:
        self._losses.append(data["loss"])
        parts = [
            say(
                "cli.progress.step",
                step=data["step"],
                steps=data["steps"],
                epoch=f"{data['epoch']:.1f}",
                left=lasted(data["eta_seconds"]),
            ),
            say(
                "cli.progress.loss",
                loss=f"{sum(self._losses) / len(self._losses):.3f}",
                validation=self._validation,
                rate=f"{data['lr']:.1e}",
                norm=f"{data['grad_norm']:.2f}",
            ),
            self._speed(data),
        ]
        # A bar with all of it beside it is wider than a terminal.
        text = ("\n" if self.console.is_terminal else " · ").join(parts)
        self._move(data["step"], data["steps"], text, last=data["step"] == data["steps"])

    def _speed(self, data: dict[str, Any]) -> str:
        """Say how many tokens of each kind a second, and the memory; runs of old told less."""
        mean = {}
        for kind in ("tokens", "executed", "scored"):
            if (value := data.get(f"{kind}_per_second")) is not None:
                latest = self._speeds.setdefault(kind, deque(maxlen=_STEPS_AVERAGED))
                latest.append(value)
                mean[kind] = sum(latest) / len(latest)
        if len(mean) == 3:
            said = say("cli.progress.speeds", **{kind: f"{n:,.0f}" for kind, n in mean.items()})
        else:
            said = speed(mean.get("tokens"))
        size = data.get("memory_bytes")
        return said if size is None else f"{said} · {memory(size)}"

    def _validated(self, data: dict[str, Any]) -> None:
        loss, best = f"{data['loss']:.3f}", bool(data["best"])
        self._validation = say("cli.progress.validation", loss=loss + ("★" if best else ""))
        key = "cli.validated_best" if best else "cli.validated"
        self.note(say(key, step=data["step"], loss=loss), "green" if best else "")
        if data["stopped_early"]:
            self.note(say("report.stopped_early"), "yellow")

    def _shrunk(self, data: dict[str, Any]) -> None:
        self.note(say("cli.shrunk", tokens=data["micro_batch_tokens"]), "yellow")

    def _stopping(self, data: dict[str, Any]) -> None:
        # Where there is no terminal, as in the log of the background, no key can be pressed.
        key = "cli.stopping" if self.console.is_terminal else "cli.stopping_asked"
        self.note(say(key), "yellow")

    def _rescaled(self, data: dict[str, Any]) -> None:
        self.note(say("cli.rescaled", step=data["step"]), "dim")

    def _without_graphs(self, data: dict[str, Any]) -> None:
        self.note(say("cli.graphs_off", cause=clean(data["why"], lines=1)), "yellow")

    def _untracked(self, data: dict[str, Any]) -> None:
        cause = clean(data["cause"])
        self.note(say("cli.tracker_failed", tracker=data["tracker"], cause=cause), "yellow")

    def _trained(self, data: dict[str, Any]) -> None:
        self.still()

    def _answer(self, data: dict[str, Any]) -> None:
        if data["which"] != self._answering:
            self.still()
            self._answering = data["which"]
        text = say(
            "cli.progress.answers",
            which=say(f"report.{data['which']}"),
            done=data["done"],
            total=data["total"],
            speed=speed(data["tokens_per_second"] or None),
            left=lasted(data["eta_seconds"]),
        )
        ended = data["done"] == data["total"]
        self._move(data["done"], data["total"], text, last=ended)
        if ended and self.console.is_terminal:
            self.still()
            self.note(clean(text))

    def _answered(self, data: dict[str, Any]) -> None:
        self.still()
        key = "cli.answered_overlap" if data.get("overlap") else "cli.answered"
        self.note(say(key, rows=data["rows"], time=lasted(data["seconds"])))

    def _asking(self, data: dict[str, Any]) -> None:
        done, total = data["done"], data["total"]
        self._move(done, total, say("cli.progress.forgetting", done=done, total=total))

    def _asking_again(self, data: dict[str, Any]) -> None:
        done, total = data["done"], data["total"]
        self._move(done, total, say("cli.progress.memorising", done=done, total=total))

    def _timing(self, data: dict[str, Any]) -> None:
        self.wait(say("cli.progress.timing"))

    def _unmeasured(self, data: dict[str, Any]) -> None:
        which, cause = say(f"measure.{data['which']}"), clean(data["cause"])
        self.note(say("cli.measure_failed", which=which, cause=cause), "yellow")

    def _judging(self, data: dict[str, Any]) -> None:
        told = {"rows": data["rows"], "requests": data["requests"], "tokens": f"{data['tokens']:,}"}
        if data["cost"] is None:
            self.note(say("judge.estimate", **told))
        else:
            self.note(say("judge.estimate_cost", **told, cost=f"{data['cost']:.4g}"))

    def _judged(self, data: dict[str, Any]) -> None:
        done, total = data["done"], data["total"]
        self._move(done, total, say("judge.progress", done=done, total=total), last=done == total)
        if done == total:
            self.still()

    def _unjudged(self, data: dict[str, Any]) -> None:
        self.still()
        self.note(say("judge.failed", path=data["path"], cause=clean(data["cause"])), "yellow")


def spent(
    predicted: tuple[float | None, int | None], actual: tuple[float | None, int | None]
) -> str:
    """Say (seconds, bytes) predicted and (seconds, bytes) that it really took."""
    return say(
        "cli.spent",
        time=lasted(actual[0]),
        memory=memory(actual[1]),
        predicted_time=lasted(predicted[0]),
        predicted_memory=memory(predicted[1]),
    )
