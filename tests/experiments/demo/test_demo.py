import re
import sys

import pytest
import torch
from matplotlib.image import imread
from typer.testing import CliRunner

from nysact.experiments import cli
from nysact.experiments.commands import app
from nysact.experiments.demo.demo import cpu_threads
from tests.experiments.data.idx_files import accept_any_content, write_fashion_mnist


def nysact(*arguments: object):
    # The tester's own terminal settings must not reach the output that is compared.
    environment = {"FORCE_COLOR": None, "TTY_COMPATIBLE": None, "COLUMNS": "80"}
    return CliRunner(env=environment).invoke(app, [str(argument) for argument in arguments])


def tiny(output, *more: object):
    size = ("--train-size", 64, "--epochs", 1, "--seeds", 2, "--device", "cpu")
    return nysact("demo", *size, "--output", output, *more)


def results(text: str) -> dict[str, list[str]]:
    """Read learning rate, accuracy, its std, loss and its std of each optimizer."""
    number = r"([\d.]+)"
    spread = rf"{number} ± {number}"
    row = rf"^\s*(\w+)\s+{number}\s+{spread}\s+{spread}\s+{number}\s+[\d.,]+\s*$"
    return {line[1]: list(line.groups()[1:6]) for line in re.finditer(row, text, re.MULTILINE)}


def test_demo_ends_with_a_table_and_a_picture(tmp_path):
    result = tiny(tmp_path / "new" / "folder")
    assert result.exit_code == 0, result.output
    table = results(result.output)
    assert list(table) == ["SGD", "AdamW", "NysAct"]
    for rate, accuracy, *_ in table.values():
        assert float(rate) > 0
        assert 0 <= float(accuracy) <= 100
    assert result.output.count("epoch 1/1") == 2
    picture = tmp_path / "new" / "folder" / "demo-digits.png"
    assert result.output.splitlines()[-1] == f"Curves: {picture}"
    assert imread(picture).shape[2] == 4


def test_same_seeds_give_the_same_results_bit_for_bit(tmp_path):
    first, second = tiny(tmp_path), tiny(tmp_path)
    assert first.exit_code == 0, first.output
    epochs = [[line for line in r.output.splitlines() if "epoch" in line] for r in (first, second)]
    assert epochs[0] == epochs[1]
    assert results(first.output) == results(second.output)


def test_demo_leaves_the_global_random_stream_alone(tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert tiny(tmp_path).exit_code == 0
    assert torch.equal(torch.get_rng_state(), before)


def test_number_of_threads_is_restored():
    before = torch.get_num_threads()
    with cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with cpu_threads(None):
        assert torch.get_num_threads() == before


def test_demo_trains_on_fashion_mnist_from_a_folder(tmp_path, monkeypatch):
    accept_any_content(monkeypatch)
    write_fashion_mnist(tmp_path / "data", train=64)
    options = ("--data", "fashion-mnist", "--folder", tmp_path / "data", "--batch-size", 16)
    result = tiny(tmp_path, *options, "--train-size", 32)
    assert result.exit_code == 0, result.output
    assert list(results(result.output)) == ["SGD", "AdamW", "NysAct"]
    assert "32 training and 20 test images" in result.output
    assert (tmp_path / "demo-fashion-mnist.png").is_file()


BAD_OPTIONS = {
    "data": (("--data", "cifar"), "--data cifar: expected one of digits, fashion-mnist"),
    "folder": (("--folder", "x"), "--folder x: --data digits reads no folder; leave --folder out"),
    "no such folder": (
        ("--data", "fashion-mnist", "--folder", "/nowhere"),
        "--folder /nowhere: expected the files train-images-idx3-ubyte",
    ),
    "large train size": (("--train-size", 1001), "train size 1001: the training set has 1000"),
    "large batch": (
        ("--train-size", 100, "--batch-size", 101),
        "--batch-size 101: the training set has 100 samples; choose a smaller batch",
    ),
    "device": (("--device", "toaster"), "--device toaster: not available"),
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
    assert f"{value}: expected a whole number from 1 up" in result.stderr


def test_help_lists_the_demo():
    result = nysact("--help")
    assert result.exit_code == 0
    assert "demo" in result.output


@pytest.mark.parametrize("module", ["typer", "rich.console"])
def test_command_without_the_extra_says_what_to_install(monkeypatch, module):
    monkeypatch.delitem(sys.modules, "nysact.experiments.commands")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert module.partition(".")[0] in stop.value.code
    assert 'pip install "nysact[experiments]"' in stop.value.code


def test_another_missing_module_is_not_blamed_on_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "nysact.experiments.commands")
    monkeypatch.setitem(sys.modules, "nysact.experiments.commands", None)
    with pytest.raises(ModuleNotFoundError, match="nysact"):
        cli.main()


def test_entry_runs_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["nysact", "--help"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    assert "demo" in capsys.readouterr().out
