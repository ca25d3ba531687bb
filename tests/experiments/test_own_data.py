import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset, TensorDataset

from nysact.experiments import compare
from nysact.experiments.errors import ExperimentError


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
        compared(network, *sets(shift=1.0), optimizers=["sgd"]),
        compared(network, *sets(n=90), optimizers=["sgd"]),
        compared(optimizers=["sgd"], loss=nn.CrossEntropyLoss(label_smoothing=0.1)),
    ]
    assert len({path, *(other.runs[0].path for other in others)}) == 5


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
