from functools import partial

import numpy
import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset, TensorDataset

from nysact.experiments import Tuning, compare
from nysact.experiments.errors import ExperimentError
from nysact.experiments.run.store import load_runs


def sets(shift: float = 0.0, n: int = 96) -> tuple[TensorDataset, TensorDataset]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, 6, generator=generator) + shift
    targets = (inputs[:, 0] > inputs[:, 1]).long()
    return TensorDataset(inputs[:64], targets[:64]), TensorDataset(inputs[64:], targets[64:])


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))


@pytest.fixture
def compared(tmp_path):
    def call(*arguments, **options):
        model, *data = arguments or (network, *sets())
        options = {"epochs": 3, "batch_size": 16, "threads": 1, "cpu": True, **options}
        options = {"trackers": (), **options}
        return compare(model, *data, runs=tmp_path, **options)

    return call


def test_comparison_is_a_table_of_all_optimizers(compared):
    found = compared(optimizers=["sgd", "nysact"], seeds=[0, 1])
    assert len(found.runs) == 4
    lines = str(found).splitlines()
    assert lines[0].split("  ")[0] == "optimizer"
    for heading in ("test accuracy, %", "test loss", "training loss", "ms a step"):
        assert heading in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["SGD", "NysAct"]
    mean = sum(run.result["metrics"]["final"]["test_accuracy"] for run in found.runs[:2]) / 2
    assert f"{mean:.2f} ± " in lines[1]


def test_settings_take_the_place_of_defaults(compared):
    found = compared(optimizers={"sgd": {"lr": 0.5}, "nysact": {"rank": 3}})
    assert found.runs[0].config["optimizer"]["options"]["lr"] == 0.5
    assert found.runs[1].config["optimizer"]["options"]["rank"] == 3


def test_finished_runs_are_not_run_again_and_others_are_told_apart(compared):
    first = compared(optimizers=["sgd"])
    path = first.runs[0].path
    before = (path / "result.json").stat().st_mtime_ns
    assert compared(optimizers=["sgd"]).runs[0].path == path
    assert (path / "result.json").stat().st_mtime_ns == before
    narrow = lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))  # noqa: E731
    others = [
        compared(narrow, *sets(), optimizers=["sgd"]),
        compared(network, *sets(n=90), optimizers=["sgd"]),
        compared(optimizers=["sgd"], loss=loss_of_pictures),
        compared(optimizers=["sgd"], name="other"),
        compared(optimizers={"SGD": lambda model: torch.optim.SGD(model.parameters(), lr=0.1)}),
        compared(optimizers={"SGD": lambda model: torch.optim.SGD(model.parameters(), lr=0.2)}),
    ]
    assert len({path, *(other.runs[0].path for other in others)}) == 7


def test_samples_of_any_kind_are_trained_on_and_runs_found_again(compared):
    paths = {
        compared(
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 2)),
            Pictures(8),
            Pictures(4),
            optimizers=["sgd"],
            batch_size=4,
            loss=partial(loss_of_pictures, scale=2.0),
        )
        .runs[0]
        .path
        for _ in range(2)
    }
    assert len(paths) == 1


class Pictures(torch.utils.data.Dataset):
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        if index >= self.count:
            raise IndexError
        return numpy.full((2, 2), index, dtype=numpy.float32), index % 2


def loss_of_pictures(outputs, targets, scale: float = 1.0):
    return scale * nn.functional.cross_entropy(outputs, targets)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (network(), "model is a Sequential: expected a function that makes a new model"),
        (3, "model is a int: expected a function"),
        (lambda model=network(): model, "the same model twice"),  # noqa: B008
        (lambda: 3, r"model\(\) is a int: expected a torch.nn.Module"),
    ],
)
def test_model_that_is_not_new_on_every_call_is_an_error(compared, tmp_path, model, message):
    with pytest.raises(ExperimentError, match=message):
        compared(model, *sets(), optimizers=["sgd"])
    assert not list(tmp_path.iterdir())


def test_regression_with_the_default_loss_is_refused_before_training(compared, tmp_path):
    inputs = torch.randn(80, 6)
    for targets in (inputs.sum(1), inputs.sum(1, keepdim=True), inputs[:, :2]):
        data = TensorDataset(inputs, targets)
        with pytest.raises(ExperimentError, match="for a regression give a loss"):
            compared(lambda: nn.Linear(6, 1), data, data, ["sgd"])
    assert not list(tmp_path.iterdir())


def test_shares_of_classes_are_targets_of_the_default_loss(compared):
    inputs = torch.randn(80, 6)
    data = TensorDataset(inputs, inputs[:, :2].softmax(1))
    assert compared(network, data, data, ["sgd"]).rows()[0]["failure"] is None


def test_folder_that_cannot_be_written_to_is_refused_before_training(capsys):
    with pytest.raises(ExperimentError, match="runs /dev/null/x: cannot be written to"):
        compare(network, *sets(), ["sgd"], runs="/dev/null/x", cpu=True)
    assert "steps" not in capsys.readouterr().out


def test_optimizer_of_ones_own_takes_part(compared):
    own = lambda model: torch.optim.Adagrad(model.parameters(), lr=0.05)  # noqa: E731
    found = compared(optimizers={"sgd": {}, "Adagrad": own})
    assert [row["optimizer"] for row in found.rows()] == ["SGD", "Adagrad"]
    losses = [line["train_loss"] for line in found.runs[1].metrics]
    assert losses[-1] < losses[0]
    optimizer = found.runs[1].config["optimizer"]
    assert (optimizer["name"], optimizer["options"]["lr"]) == ("own", 0.05)
    with pytest.raises(ExperimentError, match=r"makes a Linear: expected a torch\.optim"):
        compared(optimizers={"x": lambda model: nn.Linear(1, 1)})


def test_run_that_is_taken_as_it_is_is_named(compared, capsys):
    (run,) = compared(optimizers=["sgd"]).runs
    assert "already finished" not in capsys.readouterr().out
    compared(optimizers=["sgd"])
    said = capsys.readouterr().out.replace("\n", "")
    assert f"already finished: {run.path}; delete that folder to rerun it" in said


def test_diverged_run_is_said_to_have_failed_and_not_averaged(compared):
    calls = iter(range(1000))

    def breaks(outputs, targets):
        loss = nn.functional.cross_entropy(outputs, targets)
        # In the fourth step of the first run.
        return loss * float("nan") if next(calls) == 3 else loss

    found = compared(optimizers=["sgd"], seeds=[0, 1], loss=breaks)
    bad, good = found.rows()
    assert bad["failure"] == "step 4: the training loss is not finite"
    assert "test_accuracy" not in bad
    assert good["failure"] is None
    line = str(found).splitlines()[1]
    assert line.endswith("seed 0 failed at step 4")
    assert f" {good['test_accuracy']:.2f} " in line
    assert "±" not in line


def test_comparison_of_failed_runs_alone_has_no_numbers(compared):
    found = compared(optimizers={"sgd": {"lr": 1e30}})
    assert str(found).splitlines()[-1].split()[:2] == ["SGD", "–"]
    assert "failed at step" in str(found)


def test_labels_tell_settings_of_one_optimizer_apart(compared):
    found = compared(
        optimizers={"rank 1": ("nysact", {"rank": 1}), "rank 2": ("nysact", {"rank": 2}), "sgd": {}}
    )
    assert [row["optimizer"] for row in found.rows()] == ["rank 1", "rank 2", "SGD"]
    assert [run.config["optimizer"]["options"].get("rank") for run in found.runs] == [1, 2, None]
    assert [line.split("  ")[0] for line in str(found).splitlines()[1:]] == [
        *("rank 1", "rank 2", "SGD")
    ]


@pytest.mark.parametrize(
    ("optimizers", "message"),
    [
        (["sgd", "sgd"], "'SGD' twice"),
        ({"SGD": ("sgd", {}), "sgd": {}}, "'SGD' twice"),
        ({"sgd": 0.1}, "expected settings such as"),
        ({"a": ("sgd", 0.1)}, "expected settings such as"),
    ],
)
def test_labels_that_do_not_do_are_an_error(compared, optimizers, message):
    with pytest.raises(ExperimentError, match=message):
        compared(optimizers=optimizers)


def test_schedule_interval_and_trackers_are_those_of_a_run(compared):
    found = compared(
        optimizers=["sgd"],
        schedule={"name": "constant"},
        evaluation_interval=5,
        trackers=("tensorboard",),
    )
    (run,) = found.runs
    assert run.config["schedule"] == {
        **{"name": "constant", "every": "step"},
        **{"warmup_epochs": 0, "warmup_steps": 0},
    }
    assert [line["step"] for line in run.metrics] == [5, 10, 12]
    assert list((run.path / "tensorboard").iterdir())
    with pytest.raises(ExperimentError, match=r"'schedule\.nam': the nearest is 'schedule\.name'"):
        compared(optimizers=["sgd"], schedule={"nam": "constant"})


def test_regression_has_losses_and_no_accuracy(compared):
    inputs = torch.randn(80, 6)
    data = TensorDataset(inputs, inputs.sum(1, keepdim=True))
    model = lambda: nn.Linear(6, 1)  # noqa: E731
    found = compared(model, data, data, ["sgd"], loss=nn.functional.mse_loss)
    assert "accuracy" not in str(found)
    losses = [line["train_loss"] for line in found.runs[0].metrics]
    assert losses[-1] < losses[0]


class Endless(IterableDataset):
    def __iter__(self):
        yield torch.zeros(6), 0


class Triples(TensorDataset):
    def __getitem__(self, index):
        return 1, 2, 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Endless(), "train_set is a Endless: expected a data set with a length"),
        (TensorDataset(torch.zeros(0, 6)), "with a length from 1 up"),
        (Triples(torch.zeros(3)), r"train_set\[0\] is a tuple: expected a pair"),
    ],
)
def test_data_that_does_not_do_is_an_error(compared, data, message):
    with pytest.raises(ExperimentError, match=message):
        compared(network, data, sets()[1])


def test_unknown_optimizer_names_the_nearest(compared):
    with pytest.raises(ExperimentError, match="no optimizer 'adamww': the nearest is 'adamw'"):
        compared(optimizers=["adamww"])
    with pytest.raises(ExperimentError, match="no setting 'learning_rate'"):
        compared(optimizers={"sgd": {"learning_rate": 1}})


def test_rates_are_tuned_on_held_out_samples_with_equal_budgets(compared, tmp_path):
    tune = Tuning(factor=10.0, rates=3, extensions=0, refinement=None)
    mine = lambda model: torch.optim.SGD(model.parameters(), lr=1e-3)  # noqa: E731
    found = compared(
        optimizers={"sgd": {"lr": 1e-3}, "mine": mine}, tune=tune, validation_size=20, seeds=(1, 2)
    )
    rows = found.rows()
    assert [(row["optimizer"], row["seed"]) for row in rows] == [
        *(("SGD", 1), ("SGD", 2), ("mine", 1), ("mine", 2)),
    ]
    stored = load_runs(tmp_path)
    assert len(stored) == 2 * (3 + 2)
    for name in ("SGD", "mine"):
        tried = [run for run in stored if run.config["row"] == name and run.config["seed"] == 0]
        best = max(
            tried,
            key=lambda run: (
                run.metrics[-1]["validation_accuracy"],
                -run.config["optimizer"]["options"]["lr"],
            ),
        )
        rates = {row["learning_rate"] for row in rows if row["optimizer"] == name}
        assert rates == {best.config["optimizer"]["options"]["lr"]}
    # The rate reaches an optimizer that a function makes.
    losses = {run.metrics[0]["train_loss"] for run in stored if run.config["row"] == "mine"}
    assert len(losses) == 5


def test_tuning_needs_held_out_samples(compared):
    with pytest.raises(ExperimentError, match=r"validation_size is 0: .* validation_size=6"):
        compared(tune=Tuning())
