from io import StringIO

import pytest
import torch
from rich.console import Console

from nysact.experiments.run import display
from nysact.experiments.run.display import Display, LiveDisplay, display_for
from tests.experiments.configs import config

METRICS = {"step": 4, "epoch": 1.0, "train_loss": 0.25, "test_loss": 0.5, "test_accuracy": 87.5}


def test_without_a_terminal_there_are_plain_lines(monkeypatch):
    console = Console(file=StringIO(), width=80)
    shown = display_for(console)
    assert not isinstance(shown, LiveDisplay)
    shown.start(config(sweep={"optimizer.options.lr": 0.3}), steps=8, done=0)
    shown.on_step(1, torch.tensor(2.0))
    shown.on_evaluation(METRICS)
    monkeypatch.setattr(display, "LINE_SECONDS", 0.0)
    shown.on_step(5, torch.tensor(0.125))
    shown.stop("done")
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "nysact, digits, lr 0.3, seed 0: 8 steps"
    assert lines[1].startswith(
        "  step 4/8, epoch 1, training loss 0.2500, test loss 0.5000, test accuracy 87.50%, 0:0"
    )
    assert lines[2].startswith("  step 5/8, loss 0.1250, 0:0")
    assert lines[3:] == ["  done"]


def test_resumed_run_says_where_it_goes_on():
    console = Console(file=StringIO(), width=80)
    Display(console).start(config(), steps=8, done=5)
    assert console.file.getvalue() == "nysact, digits, seed 0: 8 steps, going on after 5\n"


@pytest.mark.parametrize("seconds", [1, 100])
def test_time_left_is_that_of_the_steps_of_this_process(monkeypatch, seconds):
    now = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    shown = Display(Console(file=StringIO()))
    shown.start(config(), steps=8, done=2)
    now[0] = seconds
    assert shown.left(3) == {1: "0:05 left", 100: "8:20 left"}[seconds]
    assert shown.left(4) == {1: "0:02 left", 100: "3:20 left"}[seconds]


def test_on_a_terminal_a_bar_shows_loss_accuracy_and_time_left():
    console = Console(file=StringIO(), force_terminal=True, width=160)
    shown = display_for(console)
    assert isinstance(shown, LiveDisplay)
    shown.start(config(), steps=8, done=0)
    shown.on_evaluation(METRICS)
    shown.on_step(4, torch.tensor(0.125))
    shown.bar.refresh()
    shown.stop("test accuracy 87.5")
    text = console.file.getvalue()
    for part in ("nysact, digits, seed 0", "4/8", "loss 0.1250", "87.50%", "left"):
        assert part in text
    assert "nysact, digits, seed 0: test accuracy 87.5" in text
