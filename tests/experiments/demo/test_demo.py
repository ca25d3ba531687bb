import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread
from typer.testing import CliRunner

from nysact.experiments.commands import app
from nysact.experiments.line_styles import STYLES
from nysact.experiments.run.problem import load_images
from nysact.experiments.run.store import load_runs
from tests.experiments.data.idx_files import accept_any_content, write_fashion_mnist

ROOT = Path(__file__).parents[3]


def nysact(*arguments: object):
    # The tester's own terminal settings must not reach the output that is compared.
    environment = {"FORCE_COLOR": None, "TTY_COMPATIBLE": None, "COLUMNS": "80"}
    return CliRunner(env=environment).invoke(app, [str(argument) for argument in arguments])


def tiny(output, *more: object):
    size = ("--train-size", 64, "--epochs", 1, "--seeds", 2, "--cpu")
    return nysact("demo", *size, "--output", output, *more)


def results(text: str) -> dict[str, list[str]]:
    """Read learning rate, accuracy, its std, loss and its std of each optimizer."""
    number = r"([\d.e-]+)"
    spread = rf"{number} ± {number}"
    row = rf"^\s*(\w+)\s+{number}\s+{spread}\s+{spread}\s+{number}\s+[\d.,]+\s*$"
    return {line[1]: list(line.groups()[1:6]) for line in re.finditer(row, text, re.MULTILINE)}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    output = tmp_path_factory.mktemp("demo") / "new" / "folder"
    result = tiny(output)
    assert result.exit_code == 0, result.output
    return output, result.output


def test_demo_ends_with_a_table_and_a_picture(first):
    output, shown = first
    table = results(shown)
    assert list(table) == ["SGD", "AdamW", "NysAct"]
    runs = load_runs(output / "runs")
    assert len(runs) == 6
    for row, (rate, accuracy, *_) in table.items():
        mine = [stored for stored in runs if stored.config["row"] == row]
        assert float(rate) == mine[0].config["optimizer"]["options"]["lr"]
        mean = sum(stored.metrics[-1]["test_accuracy"] for stored in mine) / 2
        assert float(accuracy) == pytest.approx(mean, abs=0.01)
    picture = output / "demo-digits.png"
    assert shown.splitlines()[-1] == f"Curves: {picture}"
    pixels = imread(picture)[:, :, :3].reshape(-1, 3)
    for color, _, _ in STYLES[:3]:
        rgb = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert (abs(pixels - rgb).max(axis=1) < 0.01).sum() > 50, f"{color} is not in it"


def test_same_seeds_give_the_same_results_bit_for_bit_whatever_the_global_stream(first, tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    again = tiny(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert results(again.output) == results(first[1]) != {}
    a, b = ([run.metrics for run in load_runs(folder / "runs")] for folder in (first[0], tmp_path))
    assert a == b
    assert a[0] != a[1], "the seed changes nothing"


def test_demo_needs_no_package_that_its_extra_leaves_out(tmp_path):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    others = [re.split(r"[>\[]", package)[0] for package in extras["experiments"]]
    missing = dict.fromkeys({*others} - {"nysact", "scipy"})  # scikit-learn brings scipy
    command = ["demo", "--train-size", "64", "--epochs", "1", "--seeds", "1", "--cpu"]
    code = f"""
import sys
sys.modules.update({missing})
sys.argv[1:] = {command}
from nysact.experiments.cli import main
main()
"""
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    assert (tmp_path / "nysact-demo" / "demo-digits.png").is_file()


def test_finished_demo_is_shown_again_and_says_so(first):
    output, shown = first
    second = tiny(output)
    assert second.output.count("already finished") == 6
    assert results(shown) == results(second.output)


def test_demo_trains_on_fashion_mnist_from_a_folder(tmp_path, monkeypatch):
    accept_any_content(monkeypatch)
    write_fashion_mnist(tmp_path / "data", train=64)
    options = ("--data", "fashion-mnist", "--folder", tmp_path / "data", "--batch-size", 16)
    result = tiny(tmp_path, *options, "--train-size", 32)
    load_images.cache_clear()
    assert result.exit_code == 0, result.output
    assert list(results(result.output)) == ["SGD", "AdamW", "NysAct"]
    assert (tmp_path / "demo-fashion-mnist.png").is_file()


BAD_OPTIONS = {
    "data": (("--data", "cifar"), "--data cifar: expected one of digits, fashion-mnist"),
    "folder": (("--folder", "x"), "--folder x: --data digits reads no folder; omit --folder"),
    "no such folder": (
        ("--data", "fashion-mnist", "--folder", "/nowhere"),
        "/nowhere: expected the files train-images-idx3-ubyte",
    ),
    "large train size": (("--train-size", 1001), "train size 1001: the train set has 1000"),
    "large batch": (
        ("--train-size", 100, "--batch-size", 101),
        "batch_size=101: the training set has 100 samples",
    ),
    "output": (("--output", "/dev/null/x"), "--output /dev/null/x: cannot be written to"),
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_bad_option_is_an_error_that_names_value_and_remedy(
    tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    result = nysact("demo", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.output


@pytest.mark.parametrize("option", ["--seeds", "--epochs", "--batch-size", "--train-size"])
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many"])
def test_counts_are_whole_numbers_from_1_up(option, value):
    result = nysact("demo", option, value)
    assert result.exit_code == 2
    assert option in result.stderr
