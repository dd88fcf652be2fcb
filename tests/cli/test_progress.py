"""What a training says while it goes on: in a line, on a terminal, in both languages."""

import io

import pytest
from rich.console import Console

from weitiao.cli import view as view_module
from weitiao.cli.view import View
from weitiao.events import Event
from weitiao.words import set_language

OLD = {
    "step": 3, "steps": 90, "epoch": 0.43, "loss": 2.0, "lr": 2e-4, "grad_norm": 0.8123,
    "tokens": 900, "scored_tokens": 300, "tokens_per_second": 1500.0, "eta_seconds": 200.0,
}  # fmt: skip
NEW = OLD | {
    "executed_tokens": 700, "executed_per_second": 1100.0, "scored_per_second": 500.0,
    "memory_bytes": 3 * 2**29,
}  # fmt: skip


def shown(*events: tuple[str, dict], terminal: bool = False, width: int = 120) -> list[str]:
    """Return the lines that a view shows of ``events``."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=width, color_system=None)
    with View(console) as view:
        for kind, data in events:
            view(Event(kind, 0.0, data))
        if terminal:
            assert view._moving is not None
            return view._moving.tasks[0].fields["text"].splitlines()
    return out.getvalue().splitlines()


def test_one_line_holds_everything() -> None:
    (line,) = shown(("train.step", NEW | {"loss": 1.0}))
    assert line == (
        "step 3/90 · epoch 0.4 · 3.3 min left · loss 1.000 · rate 2.0e-04 · gradient 0.81 · "
        "1,500 tokens/s (computed 1,100, learnt 500) · 1.50 GB"
    )


def test_runs_of_before_told_less() -> None:
    (line,) = shown(("train.step", OLD))
    assert line.endswith("gradient 0.81 · 1,500 tokens/s")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_it_fits_beside_the_bar_of_a_narrow_terminal(language) -> None:
    set_language(language)
    start = {"steps": 90}
    wide = {"step": 12345, "steps": 67890, "epoch": 12.3} | {
        f"{kind}_per_second": 123456.0 for kind in ("tokens", "executed", "scored")
    }
    best = {"step": 2, "loss": 1.5, "best": True, "stopped_early": False}
    lines = shown(
        ("train.start", start), ("train.eval", best), ("train.step", NEW | wide), terminal=True
    )
    assert len(lines) == 3
    assert "★" in lines[1]
    cells = Console(width=200).measure
    assert all(cells(line).maximum <= 80 - 13 for line in lines), lines


def test_the_loss_is_smoothed() -> None:
    steps = [("train.step", NEW | {"step": n, "loss": float(n)}) for n in (88, 89, 90)]
    assert "loss 89.000" in shown(*steps)[-1]


def test_lines_come_rarer_the_longer_it_lasts(monkeypatch) -> None:
    now = 1000.0
    monkeypatch.setattr(view_module.time, "monotonic", lambda: now)
    out = io.StringIO()
    view = View(Console(file=out, width=200))
    view.heading("Training")
    for _ in range(8000):
        now += 1.0
        view(Event("train.step", now, NEW))
    written = out.getvalue().count("step 3/90")
    assert 300 < written < 400, "every 5 seconds it would be 1600"


def test_stopping_and_a_tracker_that_fails_are_said() -> None:
    failed = {"tracker": "wandb", "cause": "no network\x1b[2J"}
    stopping, lost = shown(("train.stopping", {"step": 3}), ("train.tracker_failed", failed))
    assert stopping == "Asked to stop: it stops after this step, which is then saved."
    assert lost.startswith("The tracker wandb does not work (no network[2J)")


def test_on_a_terminal_the_second_ctrl_c_is_told() -> None:
    out = io.StringIO()
    View(Console(file=out, force_terminal=True, width=120))(Event("train.stopping", 0.0, {}))
    assert "Ctrl-C once more" in out.getvalue()


def test_a_step_that_overflowed_is_said() -> None:
    (line,) = shown(("train.rescaled", {"step": 3, "scale": 1024.0}))
    assert line.startswith("Gradients of step 3 were too large for fp16")


def test_graphs_that_cannot_be_used_are_said() -> None:
    (line,) = shown(("train.graphs_off", {"why": "no such kernel\nat line 3"}))
    assert line.startswith("CUDA graphs could not be used (no such kernel…); training goes on")


def test_the_moving_line_is_seldom_drawn() -> None:
    """Ten times a second, as rich has it, take 6 to 8% of a core."""
    view = View(Console(file=io.StringIO(), force_terminal=True))
    with view:
        view(Event("train.start", 0.0, {"steps": 9}))
        assert view._moving is not None
        assert view._moving.live.refresh_per_second == 2
