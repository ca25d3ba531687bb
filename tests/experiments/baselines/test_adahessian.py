import torch
from torch import nn

from nysact.experiments.baselines import build, training_step
from nysact.experiments.baselines.libraries import spatial_average
from tests.experiments.baselines.problems import close, flat, network


def test_kernels_share_the_mean_of_absolute_values():
    diagonal = torch.arange(24.0).view(2, 3, 2, 2) * torch.tensor([1.0, -1.0])
    averaged = spatial_average(diagonal)
    assert averaged.shape == diagonal.shape
    assert torch.equal(averaged[1, 2], torch.full((2, 2), 21.5))
    assert torch.equal(spatial_average(diagonal[0, 0]), diagonal[0, 0].abs())


def test_first_step_of_a_convolution_is_that_of_the_authors_code():
    problem = network()
    weight = problem.model[0].weight
    optimizer = build("adahessian", problem.model, lr=0.1, weight_decay=0.0, eps=1e-4)
    loss = problem.loss_function(problem.model(problem.inputs), problem.targets)
    params = list(problem.model.parameters())
    gradients = torch.autograd.grad(loss, params, create_graph=True)
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (len(flat(params)),), generator=generator).double() * 2 - 1
    parts = signs.split([p.numel() for p in params])
    signs = [s.view_as(p) for s, p in zip(parts, params, strict=True)]
    product = torch.autograd.grad(gradients, params, signs)[0]
    diagonal = product.abs().mean((2, 3), keepdim=True)
    before = weight.detach().clone()
    training_step(problem.model, optimizer, *problem.batch()[1:])
    # Both averages are corrected for bias, so that the first step has neither.
    expected = (gradients[0] / (diagonal + 1e-4)).detach()
    assert close((before - weight.detach()) / 0.1, expected, 1e-6)


def test_first_step_divides_by_a_diagonal_hessian_exactly():
    model = nn.Linear(3, 1, bias=False).double()
    nn.init.ones_(model.weight)
    curvatures = torch.tensor([[1.0, 10.0, 100.0]], dtype=torch.float64)
    optimizer = build("adahessian", model, lr=0.1, weight_decay=0.0, eps=0.0)
    # On a diagonal Hessian, Hutchinson's estimate is exact whatever the signs.
    loss = lambda outputs, _: (curvatures * model.weight.square()).sum() / 2  # noqa: E731
    training_step(model, optimizer, loss, torch.ones(1, 3).double(), None)
    assert close(model.weight.detach(), torch.full((1, 3), 0.9, dtype=torch.float64))


def test_parameter_without_gradient_stays():
    problem = network()
    problem.model[0].weight.requires_grad_(False)
    optimizer = build("adahessian", problem.model)
    before = problem.model[0].weight.clone()
    others = flat(problem.model[5].parameters())
    training_step(problem.model, optimizer, *problem.batch()[1:])
    assert torch.equal(problem.model[0].weight, before)
    assert not torch.equal(flat(problem.model[5].parameters()), others)
