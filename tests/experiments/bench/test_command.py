import json
import re
from importlib.metadata import version

import pytest
import torch
from typer.testing import CliRunner

from nysact.experiments.commands import app

SMALL = ("--option", "in_features=6", "--option", "width=8", "--batch-size", 4)
QUICK = ("--cov-interval", 2, "--inv-interval", 4, "--warm-up", 3, "--cycles", 2)


def nysact(*arguments: object):
    environment = {"FORCE_COLOR": None, "TTY_COMPATIBLE": None, "COLUMNS": "80"}
    return CliRunner(env=environment).invoke(app, [str(argument) for argument in arguments])


def bench(folder, *more: object):
    files = ("--json", folder / "bench.json", "--markdown", folder / "bench.md")
    return nysact("bench", "mlp", *SMALL, *QUICK, "--device", "cpu", *files, *more)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    optimizers = ("--optimizers", "nysact,adamw", "--set", "nysact.rank=3")
    result = bench(folder, *optimizers)
    assert result.exit_code == 0, result.output
    return result.output, json.loads((folder / "bench.json").read_text()), folder / "bench.md"


def test_json_holds_settings_environment_and_every_figure(measured):
    _, data, _ = measured
    assert set(data) == {"settings", "environment", "models"}
    assert data["settings"]["cov_interval"] == 2
    assert data["settings"]["optimizers"] == "nysact,adamw"
    assert data["environment"]["packages"]["torch"] == version("torch")
    assert data["environment"]["device"] == "cpu"
    assert data["environment"]["threads"] == torch.get_num_threads()
    (model,) = data["models"]
    assert model["model"] == "mlp"
    assert model["sample_shape"] == [6]
    assert model["parameters"] == 6 * 8 + 8 + 8 * 8 + 8 + 8 * 10 + 10
    assert (model["cycle"], model["cycles"], model["warm_up"]) == (4, 2, 3)
    assert model["estimated_seconds"] > 0
    assert list(model["optimizers"]) == ["sgd", "nysact", "adamw"]


def test_json_holds_each_optimizers_times_and_memory(measured):
    _, data, _ = measured
    for name, of in data["models"][0]["optimizers"].items():
        assert set(of) == {
            *("title", "settings", "times", "phases", "phases_by_kind", "memory", "paper", "loss"),
            "step_seconds",
        }
        assert len(of["step_seconds"]) == 8
        assert all(seconds > 0 for seconds in of["step_seconds"])
        times = of["times"]
        assert times["steps"] == 8
        assert len(times["windows"]) == 2
        assert times["p99"] >= times["median"]
        costly = {"statistics", "refresh"} if name == "nysact" else set()
        assert set(times["kinds"]) == {"plain"} | costly
        assert set(of["phases_by_kind"]) == {"plain"} | costly
        assert of["memory"]["allocated"] > 0
        assert of["paper"] is None
        assert of["loss"] > 0
    assert data["models"][0]["optimizers"]["nysact"]["settings"]["rank"] == 3
    assert data["models"][0]["optimizers"]["sgd"]["times"]["composed"] == 1.0


def test_figures_are_those_of_the_step_times(measured):
    _, data, _ = measured
    optimizers = data["models"][0]["optimizers"]
    mine, sgd = (optimizers[name]["step_seconds"] for name in ("nysact", "sgd"))
    total = optimizers["nysact"]["times"]["total"]
    assert total == pytest.approx(sum(mine) / sum(sgd))


def test_tables_are_printed_and_written(measured):
    shown, _, file = measured
    text = file.read_text()
    assert text in shown
    assert "### mlp, batch 4 of 6, cpu, fp32" in text
    for title in ("SGD", "NysAct", "AdamW"):
        assert len(re.findall(rf"^\| {title} \|", text, re.MULTILINE)) >= 3
    assert "Beside the paper" not in text
    assert re.search(r"2 cycle\(s\) of 4 steps after 3 to warm up.*: about \d+ s in all", shown)


def test_the_papers_ratios_stand_beside_the_measured(tmp_path):
    size = ("--batch-size", 2, "--image-size", 8)
    quick = ("--cov-interval", 1, "--inv-interval", 1, "--warm-up", 3, "--cycles", 1)
    where = ("--json", tmp_path / "x.json", "--device", "cpu", "--no-split", "--no-memory")
    result = nysact("bench", "resnet32", *size, *quick, *where, "--optimizers", "nysact")
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("| resnet32 (table 3)")]
    assert len(lines) == 6
    assert "| resnet32 (table 3), kfac | 2.29 | – | 1.05 | – |" in lines
    assert re.fullmatch(
        r"\| resnet32 \(table 3\), NysAct \| 1.40 \| [\d.]+ \| 1.00 \| – \|", lines[-1]
    )
    (model,) = json.loads((tmp_path / "x.json").read_text())["models"]
    assert model["optimizers"]["nysact"]["paper"] == {"time": 1.4, "memory": 1.0}
    assert model["optimizers"]["nysact"]["phases"] is None
    assert model["optimizers"]["nysact"]["memory"] is None


def test_several_models_in_bf16(tmp_path):
    quick = ("--cov-interval", 1, "--inv-interval", 1, "--warm-up", 3, "--cycles", 1)
    where = ("--json", tmp_path / "x.json", "--device", "cpu", "--precision", "bf16")
    models = ("digits", "lenet5", "--batch-size", 2, "--clock", "cpu", "--channels-last")
    result = nysact(
        "bench", *models, "--no-split", "--no-memory", *quick, *where, "--optimizers", "nysact"
    )
    assert result.exit_code == 0, result.output
    data = json.loads((tmp_path / "x.json").read_text())
    assert [of["model"] for of in data["models"]] == ["digits", "lenet5"]
    assert {of["precision"] for of in data["models"]} == {"bf16"}


def test_a_loss_that_is_lost_is_said(tmp_path):
    result = bench(tmp_path, "--optimizers", "nysact", "--set", "sgd.lr=1e30", "--no-memory")
    assert result.exit_code == 0, result.output
    assert "The loss of SGD is not finite: take a smaller" in result.output
    data = json.loads((tmp_path / "bench.json").read_text())
    assert data["models"][0]["optimizers"]["sgd"]["loss"] is None


BAD = {
    "optimizer": (("--optimizers", "fof"), "no optimizer 'fof': the nearest is 'foof'"),
    "setting": (("--set", "foof.rang=1"), "--set foof.rang: FOOF has no setting 'rang'"),
    "form": (("--set", "rank=1"), "--set rank: expected OPTIMIZER.SETTING=VALUE"),
    "option": (("--option", "height=1"), "has no option 'height'"),
    "precision": (("--precision", "fp8"), "precision fp8: expected one of fp32, bf16"),
    "clock": (("--clock", "sun"), "--clock sun: expected one of"),
    "device": (("--device", "toaster"), "--device toaster: not available"),
    "warm-up": (("--warm-up", "1"), "--warm-up 1: expected 3 steps or more"),
    "folder": (("--json", "/dev/null/x/y.json"), "/dev/null/x: cannot be written to"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_bad_option_is_an_error_that_names_value_and_remedy(tmp_path, options, message):
    result = bench(tmp_path, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_unknown_model_names_the_nearest():
    result = nysact("bench", "resnet33")
    assert result.exit_code == 2
    assert "no model 'resnet33': the nearest is 'resnet32'" in result.stderr


def test_size_that_is_no_number_is_named():
    result = nysact("growth", "--dims", "8,x")
    assert result.exit_code == 2
    assert "'8,x'" in result.stderr


def growth(folder, *more: object):
    sizes = ("--dims", 64, "--dims", 128, "--ranks", 2, "--ranks", 4)
    size = (*sizes, "--rank", 4, "--dim", 16, "--rows", 5)
    return nysact("growth", *size, "--outputs", 3, "--device", "cpu", "--output", folder, *more)


def test_growth_writes_tables_data_and_pictures_and_goes_on_where_one_stops(tmp_path):
    # Dense matrices of 128 x 128 are beyond the bound: FOOF and the released code stop at 64.
    result = growth(tmp_path, "--most-gib", 5 * 4 * 64 * 64 / 2**30)
    assert result.exit_code == 0, result.output
    data = json.loads((tmp_path / "growth.json").read_text())
    assert set(data) == {"settings", "environment", "by_dim", "by_rank", "stops"}
    largest = {of["optimizer"]: of["dim"] for of in data["by_dim"]}
    assert largest == {"nysact": 128, "foof": 64, "released-columns": 64}
    assert [(of["optimizer"], of["rank"]) for of in data["by_rank"]] == [
        *(("nysact", 2), ("nysact", 4), ("foof", 2)),
        *(("released-columns", 2), ("released-columns", 4)),
    ]
    assert len(data["stops"]) == 2
    assert data["stops"][0].startswith("FOOF stops at d = 64: a step at 128 could take")
    assert all(stop in result.output.replace("\n", " ") for stop in data["stops"])
    assert (tmp_path / "growth.md").read_text() in result.output
    for name in ("growth-dim", "growth-rank"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "</svg>" in (tmp_path / f"{name}.svg").read_text()


BAD_GROWTH = {
    "numbers": (("--dims", "8,x"), "Invalid value for '--dims'"),
    "rank": (("--rank", 64), "--rank 64: expected less than the smallest of --dims, 64"),
    "dim": (("--dim", 4), "--dim 4: expected more than the largest of --ranks, 4"),
}


@pytest.mark.parametrize(("options", "message"), BAD_GROWTH.values(), ids=BAD_GROWTH)
def test_bad_option_of_growth_is_an_error(tmp_path, options, message):
    result = growth(tmp_path, *options)
    assert result.exit_code == 2
    assert message in result.stderr
