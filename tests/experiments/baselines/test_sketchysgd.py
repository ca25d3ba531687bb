import pytest
import torch
from torch.func import functional_call

from nysact.experiments.baselines import Needs, training_step
from nysact.experiments.baselines.sketchysgd import SketchySGD, hessian_product, nystrom
from tests.experiments.baselines.problems import (
    close,
    flat,
    gradients,
    logistic,
    network,
    quadratic,
)


def hessian(problem):
    """The dense Hessian of the loss, over all parameters together."""
    params = dict(problem.model.named_parameters())
    sizes = [p.numel() for p in params.values()]

    def loss(vector):
        parts = zip(params, vector.split(sizes), strict=True)
        values = {name: part.view(params[name].shape) for name, part in parts}
        return problem.loss_function(
            functional_call(problem.model, values, problem.inputs), problem.targets
        )

    return torch.autograd.functional.hessian(loss, flat(params.values()))


def orthonormal(n, r, seed=0):
    draw = torch.randn(n, r, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(draw).Q


def psd(n, rank, seed=0):
    root = orthonormal(n, rank, seed + 1) * torch.logspace(0, -1, rank).double()
    return root @ root.T


def test_hessian_product_is_the_dense_hessians():
    problem = network()
    params = list(problem.model.parameters())
    expected = hessian(problem)
    loss = problem.loss_function(problem.model(problem.inputs), problem.targets)
    for param, gradient in zip(
        params, torch.autograd.grad(loss, params, create_graph=True), strict=True
    ):
        param.grad = gradient
    vector = torch.randn(len(expected), dtype=torch.float64)
    product = hessian_product(params, vector.split([p.numel() for p in params]))
    assert close(product, expected @ vector)


def test_nystrom_is_the_dense_formula():
    matrix, probes = psd(20, 20), orthonormal(20, 6)
    eigenvalues, basis = nystrom(matrix @ probes, probes)
    sketch = matrix @ probes
    expected = sketch @ torch.linalg.solve(probes.T @ sketch, sketch.T)
    # The shift is of float32's size, as the Hessian-vector products are.
    assert close((basis * eigenvalues) @ basis.T, expected, 1e-4)
    assert close(basis.T @ basis, torch.eye(6).double())


def test_nystrom_is_exact_where_the_rank_suffices():
    matrix, probes = psd(20, 4), orthonormal(20, 6)
    eigenvalues, basis = nystrom(matrix @ probes, probes)
    assert close((basis * eigenvalues) @ basis.T, matrix, 1e-4)


def test_nystrom_of_an_indefinite_matrix_is_finite_and_not_negative():
    matrix, probes = psd(20, 20) - 0.5 * psd(20, 20, seed=7), orthonormal(20, 6)
    eigenvalues, basis = nystrom(matrix @ probes, probes)
    assert eigenvalues.isfinite().all()
    assert eigenvalues.min() >= 0
    assert close(basis.T @ basis, torch.eye(6).double(), 1e-6)


def test_nystrom_of_zero_is_zero():
    eigenvalues, _ = nystrom(torch.zeros(5, 2).double(), orthonormal(5, 2))
    assert eigenvalues.abs().max() < 1e-12


@pytest.mark.parametrize("problem", [quadratic(), logistic()])
def test_step_solves_with_the_damped_nystrom_approximation(problem):
    params = list(problem.model.parameters())
    for param in params:
        torch.nn.init.normal_(param, generator=torch.Generator().manual_seed(5))
    optimizer = SketchySGD(params, 0.1, rank=4, rho=0.3, momentum=0, weight_decay=0.2, seed=3)
    H, g, before = hessian(problem), flat(gradients(problem)), flat(params)
    generator = torch.Generator().manual_seed(3)
    probes = torch.linalg.qr(torch.randn(len(H), 4, generator=generator, dtype=torch.float64)).Q
    sketch = H @ probes
    approximation = sketch @ torch.linalg.solve(probes.T @ sketch, sketch.T)
    training_step(problem.model, optimizer, *problem.batch()[1:])
    damped = approximation + 0.3 * torch.eye(len(H)).double()
    expected = torch.linalg.solve(damped, g) + 0.2 * before
    assert close((before - flat(params)) / 0.1, expected, 1e-4)


def test_step_with_full_rank_is_newtons():
    problem = quadratic()
    params = list(problem.model.parameters())
    H, g, before = hessian(problem), flat(gradients(problem)), flat(params)
    optimizer = SketchySGD(params, 1.0, rank=1000, rho=1e-3, momentum=0, weight_decay=0.0)
    training_step(problem.model, optimizer, *problem.batch()[1:])
    expected = torch.linalg.solve(H + 1e-3 * torch.eye(len(H)).double(), g)
    assert close(before - flat(params), expected, 1e-4)


def test_momentum_is_divided_by_what_a_constant_gradient_makes_of_it():
    problem = quadratic()
    params = list(problem.model.parameters())
    optimizer = SketchySGD(params, 1e-3, rank=1000, rho=0.1, momentum=0.9, weight_decay=0.0)
    H, seen, buffer = hessian(problem), [flat(params)], 0
    for step in range(1, 4):
        buffer = 0.9 * buffer + flat(gradients(problem))
        training_step(problem.model, optimizer, *problem.batch()[1:])
        seen.append(flat(params))
        damped = H + 0.1 * torch.eye(len(H)).double()
        expected = torch.linalg.solve(damped, buffer / (1 - 0.9**step))
        assert close((seen[-2] - seen[-1]) / 1e-3, expected, 1e-4)


def test_curvature_is_renewed_every_interval_and_acts_between():
    problem = logistic()
    params = list(problem.model.parameters())
    optimizer = SketchySGD(params, 0.1, rank=3, update_interval=3, momentum=0.5)
    needs, curvatures = [], []
    for _ in range(7):
        needs.append(optimizer.needs)
        training_step(problem.model, optimizer, *problem.batch()[1:])
        curvatures.append(optimizer.state[params[0]]["eigenvalues"].clone())
    due = [Needs.GRAPH, Needs.GRADIENT, Needs.GRADIENT]
    assert needs == [*due, *due, Needs.GRAPH]
    assert torch.equal(curvatures[0], curvatures[2])
    assert not torch.equal(curvatures[2], curvatures[3])


def test_step_without_graph_says_what_to_do():
    problem = logistic()
    optimizer = SketchySGD(problem.model.parameters())
    problem.loss_function(problem.model(problem.inputs), problem.targets).backward()
    with pytest.raises(RuntimeError, match="create_graph=True"):
        optimizer.step()


@pytest.mark.parametrize("settings", [{"rho": 0.0}, {"rank": 0}, {"update_interval": 0}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match="expected a positive number"):
        SketchySGD(network().model.parameters(), **settings)
