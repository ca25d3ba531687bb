"""The table, the picture and the progress display."""

from io import StringIO
from types import SimpleNamespace

import pytest
from matplotlib.image import imread
from rich.console import Console

from nysact.experiments.demo.comparison import Progress, Summary
from nysact.experiments.demo.curves import save_curves
from nysact.experiments.demo.progress import LineDisplay, LiveDisplay, display_for
from nysact.experiments.demo.table import result_table
from nysact.experiments.line_styles import STYLES


def summary(name: str, seeds: int = 2) -> Summary:
    return Summary(
        name=name,
        settings="momentum 0.9",
        learning_rate=0.003,
        losses=[[2.0, 0.5 + seed] for seed in range(seeds)],
        accuracies=[[50.0, 90.0 + seed] for seed in range(seeds)],
        relative_time=1.0712,
        state_bytes=2048,
    )


def printed(renderable, width: int = 80) -> str:
    console = Console(width=width, file=StringIO())
    console.print(renderable)
    return console.file.getvalue()


def test_table_holds_the_last_epochs_mean_and_spread():
    text = printed(result_table("Title", [summary("SGD"), summary("NysAct")]))
    row = next(line for line in text.splitlines() if line.strip().startswith("NysAct  "))
    assert row.split() == [
        *("NysAct", "0.003", "90.50", "±", "0.71", "1.0000", "±", "0.7071", "1.07", "2.0")
    ]
    assert "SGD = 1" in text
    assert "SGD: momentum 0.9" in text


def test_table_of_one_seed_states_no_spread():
    text = printed(result_table("Title", [summary("SGD", seeds=1)]))
    assert "90.00" in text
    assert "±" not in text


def test_table_fits_80_columns():
    wide = summary("NysAct")
    text = printed(result_table("Title", [wide]))
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_picture_is_a_png_in_which_each_optimizer_has_its_colour(tmp_path):
    path = tmp_path / "curves.png"
    names = ["SGD", "AdamW", "NysAct"]
    save_curves("Title", [summary(name) for name in names], path)
    pixels = imread(path)[:, :, :3].reshape(-1, 3)
    for color, _, _ in STYLES[:3]:
        rgb = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert (abs(pixels - rgb).max(axis=1) < 0.01).sum() > 100, f"{color} is not in it"


def test_picture_of_diverged_and_vanished_losses_is_drawn(tmp_path):
    diverged = summary("SGD")
    diverged.losses[0][:] = [float("nan"), float("inf")]
    diverged.losses[1][:] = [0.0, 0.0]
    save_curves("Title", [diverged], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 0


RUNS = [SimpleNamespace(name="SGD", losses=[2.0, 0.25], accuracies=[50.0, 87.5])]


def test_without_a_terminal_each_epoch_is_one_plain_line(capsys):
    with display_for(Console(), seeds=3, epochs=5, steps=30) as display:
        assert isinstance(display, LineDisplay)
        display.on_step()
        display.on_epoch(Progress(1, 2, RUNS * 4))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("seed 2/3, epoch 2/5: SGD loss 0.2500, accuracy 87.50%; SGD")


def test_on_a_terminal_a_bar_moves_below_the_latest_results(tmp_path):
    with (tmp_path / "terminal").open("w+") as file:
        console = Console(file=file, force_terminal=True, width=100)
        with display_for(console, seeds=3, epochs=5, steps=30) as display:
            assert isinstance(display, LiveDisplay)
            display.on_step()
            display.on_epoch(Progress(1, 2, RUNS))
            display.live.refresh()
        file.seek(0)
        shown = file.read()
    for text in ("after seed 2/3, epoch 2/5", "1/30", "0.2500", "87.50"):
        assert text in shown


def test_display_ends_when_the_training_fails(tmp_path):
    with (tmp_path / "terminal").open("w") as file:
        display = display_for(Console(file=file, force_terminal=True), 1, 1, 1)
        with pytest.raises(RuntimeError, match="diverged"), display:
            raise RuntimeError("diverged")
        assert not display.live.is_started
