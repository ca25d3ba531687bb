import numpy
import pytest
import torch
from torch import nn

from nysact.experiments.baselines.rows import input_rows
from nysact.experiments.errors import ExperimentError
from nysact.experiments.run.covariances import Observer
from nysact.experiments.run.problem import cross_entropy
from nysact.experiments.run.runner import run
from nysact.experiments.run.store import load_runs
from tests.experiments.configs import config


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Dropout(), nn.Linear(64, 10),
    )  # fmt: skip


@pytest.fixture
def batch():
    return torch.randn(200, 1, 4, 4), torch.randint(10, (200,))


@torch.no_grad()
def exact(model, batch) -> dict[str, torch.Tensor]:
    """Write the rows of both layers out, for the first 128 samples."""
    model.eval()
    images = batch[0][:128]
    rows = {
        "0": input_rows(model[0], images),
        "5": input_rows(model[5], model[:5](images)),
    }
    flat = {name: value.flatten(0, 1).double() for name, value in rows.items()}
    return {name: rows.T @ rows / len(rows) for name, rows in flat.items()}


def test_norms_are_those_of_the_covariances_written_out(batch):
    observer, model = Observer(network, cross_entropy(), batch), network()
    norms = observer.norms(model)
    expected = exact(model, batch)
    assert norms == pytest.approx({n: float(m.norm()) for n, m in expected.items()}, rel=1e-4)


def test_matrices_are_the_covariance_and_approximations_of_its_rank(batch):
    observer, model = Observer(network, cross_entropy(), batch), network()
    found = observer.approximations(model, ["5"], rank=6)
    assert set(found) == {f"5/{name}" for name in ("covariance", "columns", "gaussian", "subspace")}
    whole = exact(model, batch)["5"]
    assert torch.allclose(found["5/covariance"], whole, atol=1e-4 * float(whole.norm()))
    best = torch.linalg.eigvalsh(whole)[:-6].norm()
    for sketch in ("columns", "gaussian", "subspace"):
        matrix = found[f"5/{sketch}"]
        assert torch.linalg.matrix_rank(matrix, rtol=1e-3) <= 6
        assert (matrix - whole).norm() < whole.norm()
    assert (found["5/subspace"] - whole).norm() < 1.2 * best


def test_recording_changes_nothing_in_the_training(tmp_path):
    plain = run(config("released-columns"), tmp_path)
    watched = run(
        config("released-columns", record={"covariance_norms": True, "covariances": ["3"]}),
        tmp_path,
    )
    runs = {found.path: found for found in load_runs(tmp_path)}
    lines = [dict(line) for line in runs[watched].metrics]
    norms = [line.pop("covariance_norms") for line in lines]
    assert lines == runs[plain].metrics
    assert all(set(norm) == {"0", "3", "7", "12"} for norm in norms)
    assert all(value > 0 for norm in norms for value in norm.values())
    with numpy.load(watched / "arrays.npz") as arrays:
        assert arrays["3/covariance"].shape == (288, 288)
        assert arrays["3/columns"].shape == (288, 288)
    assert not (plain / "arrays.npz").exists()


def test_layer_that_is_not_there_is_an_error_at_the_start(tmp_path):
    wrong = config(record={"covariances": ["conv"]})
    with pytest.raises(ExperimentError, match=r"record\.covariances: there is no layer 'conv'"):
        run(wrong, tmp_path)
