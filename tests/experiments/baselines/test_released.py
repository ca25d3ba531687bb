"""The released code's departures from the Nystrom approximation, each against a dense formula."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nysact.experiments.baselines import training_step
from nysact.experiments.baselines.released import (
    ReleasedNysAct,
    draw_probes,
    released_inverse,
)
from tests.experiments.baselines.problems import close, flat, gradients, network

DAMPING = 0.5


def covariance(n, seed=0):
    root = torch.randn(n, 3 * n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    root *= torch.logspace(1, -2, n).double()[:, None]
    return root @ root.T / (3 * n)


def probes(n, r, sketch="gaussian", seed=0):
    return draw_probes(sketch, n, r, torch.Generator().manual_seed(seed))


def eye(n):
    return torch.eye(n, dtype=torch.float64)


def released_eigenpairs(sketch, omega, damping=DAMPING):
    """Steps 1 and 3 for a symmetric core, written out."""
    core = omega.T @ (sketch + damping * omega)
    shift = torch.linalg.eigvalsh(core)[0].abs() + damping
    factor = torch.linalg.cholesky(core + shift * eye(len(core)))
    root = (sketch + damping * omega) @ torch.linalg.inv(factor)
    return torch.linalg.eigh(root @ root.T), shift


def test_columns_are_distinct_columns_of_the_identity():
    omega = probes(7, 4, "columns")
    assert torch.equal(omega.T @ omega, eye(4))
    assert set(omega.unique().tolist()) == {0.0, 1.0}


def test_gaussian_probes_have_variance_1_over_d():
    omega = probes(100, 50)
    assert float(omega.var() * 100) == pytest.approx(1, abs=0.05)


def test_1_the_triangular_factor_is_not_transposed():
    A, omega = covariance(8), probes(8, 3)
    sketch = A @ omega + DAMPING * omega
    core = omega.T @ sketch
    shift = torch.linalg.eigvalsh(core)[0].abs() + DAMPING
    factor = torch.linalg.cholesky(core + shift * eye(3))
    # Solving X L = Y: what stands between Y and Y^T is (L^T L)^-1 and not core^-1 = (L L^T)^-1.
    wrong = sketch @ torch.linalg.inv(factor.T @ factor) @ sketch.T
    right = sketch @ torch.linalg.inv(factor @ factor.T) @ sketch.T
    eigenvalues, vectors = torch.linalg.eigh(wrong)
    eigenvalues, vectors = eigenvalues[-3:], vectors[:, -3:]
    kept = (eigenvalues - shift).clamp(min=0)
    expected = (vectors / (kept + DAMPING)) @ vectors.T
    expected += (eye(8) - vectors @ vectors.T) / DAMPING
    assert close(released_inverse(A @ omega, omega, DAMPING), expected)
    assert not close(wrong, right, 0.01)


def test_2_sketches_by_different_matrices_share_one_average():
    model = nn.Linear(6, 2, bias=False).double()
    optimizer = ReleasedNysAct(
        model, rank=3, sketch="gaussian", cov_interval=1, inv_interval=2, stat_decay=0.9, seed=5
    )
    expected, omegas = torch.zeros(6, 3, dtype=torch.float64), []
    for step in range(5):
        inputs = torch.randn(9, 6, dtype=torch.float64)
        training_step(model, optimizer, F.mse_loss, inputs, torch.zeros(9, 2).double())
        omegas.append(probes(6, 3, seed=5 + step))
        expected = 0.9 * expected + 0.1 * (inputs.T @ inputs / 9) @ omegas[-1]
        if step == 4:
            corrected = expected / (1 - 0.9**5)
            inverse = released_inverse(corrected, omegas[-1], 1.0)
    state = optimizer.state[model.weight]
    # The average has run on across the refreshes of steps 0, 2 and 4.
    assert close(state["average"], expected)
    assert torch.equal(state["probes"], omegas[-1])
    assert close(state["inverse"], inverse)
    assert not close(omegas[-1].T @ expected, expected.T @ omegas[-1], 0.01)


@pytest.mark.parametrize("sketch", ["columns", "gaussian"])
def test_3_small_eigenvalues_are_left_unpreconditioned(sketch):
    A, omega = covariance(8), probes(8, 4, sketch)
    (eigenvalues, vectors), shift = released_eigenpairs(A @ omega, omega)
    assert shift > DAMPING
    lost = vectors[:, eigenvalues < shift]
    assert lost.shape[1] > 0
    inverse = released_inverse(A @ omega, omega, DAMPING)
    assert close(inverse @ lost, lost / DAMPING)
    kept = vectors[:, eigenvalues >= shift]
    values = eigenvalues[eigenvalues >= shift] - shift
    assert close(inverse @ kept, kept / (values + DAMPING))


def test_4_the_state_holds_a_dense_inverse():
    model = nn.Linear(50, 2).double()
    optimizer = ReleasedNysAct(model, rank=3)
    training_step(model, optimizer, F.mse_loss, torch.randn(9, 50).double(), torch.zeros(9, 2))
    assert optimizer.state[model.weight]["inverse"].shape == (51, 51)


@pytest.mark.parametrize("sketch", ["columns", "gaussian"])
def test_step_multiplies_each_layers_gradient_by_its_inverse(sketch):
    problem = network()
    model = problem.model
    optimizer = ReleasedNysAct(model, lr=0.1, momentum=0.9, weight_decay=0.2, sketch=sketch)
    before, plain = flat(model.parameters()), gradients(problem)
    training_step(model, optimizer, *problem.batch()[1:])
    sizes = [p.numel() for p in plain]
    moved = (before - flat(model.parameters())).split(sizes)
    named = dict(zip(dict(model.named_parameters()), plain, strict=True))
    decays = (0.2 * before).split(sizes)
    for name, move, decay in zip(named, moved, decays, strict=True):
        prefix = name.rpartition(".")[0]
        module = model.get_submodule(prefix)
        expected = named[name].reshape(-1)
        if not isinstance(module, nn.BatchNorm2d):
            matrix = named[f"{prefix}.weight"].flatten(1)
            if module.bias is not None:
                matrix = torch.cat([matrix, named[f"{prefix}.bias"][:, None]], dim=1)
            matrix = matrix @ optimizer.state[module.weight]["inverse"]
            whole = module.weight[0].numel()
            expected = matrix[:, :whole] if name.endswith("weight") else matrix[:, whole:]
        assert close(move / 0.1, expected.reshape(-1) + decay)


@pytest.mark.parametrize("sketch", ["columns", "gaussian"])
@pytest.mark.parametrize("rank", [6, 10])
def test_layer_no_larger_than_the_rank_is_averaged_and_inverted_exactly(sketch, rank):
    model = nn.Linear(5, 2).double()
    optimizer = ReleasedNysAct(
        model, rank=rank, sketch=sketch, stat_decay=0.8, cov_interval=1, inv_interval=1
    )
    average = torch.zeros(6, 6).double()
    for step in range(1, 4):
        inputs = torch.randn(9, 5).double()
        rows = F.pad(inputs, (0, 1), value=1.0)
        average = 0.8 * average + 0.2 * rows.T @ rows / 9
        training_step(model, optimizer, F.mse_loss, inputs, torch.zeros(9, 2).double())
        damped = average / (1 - 0.8**step) + eye(6)
        assert close(optimizer.state[model.weight]["inverse"], torch.linalg.inv(damped))


def test_statistics_are_taken_every_interval_and_not_without_gradients():
    model = nn.Linear(6, 2).double()
    optimizer = ReleasedNysAct(model, cov_interval=2, inv_interval=4)
    state, seen = optimizer.state[model.weight], []
    for _ in range(4):
        with torch.no_grad():
            model(torch.randn(3, 6).double())
        training_step(model, optimizer, F.mse_loss, torch.randn(9, 6).double(), torch.zeros(9, 2))
        seen.append(state["average"].clone())
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])
    assert torch.equal(seen[2], seen[3])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"sketch": "rows"}, "expected one of columns, gaussian"), ({"cov_interval": 3}, "multiple")],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ReleasedNysAct(network().model, **settings)
