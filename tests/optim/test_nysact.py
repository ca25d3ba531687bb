"""The whole optimizer against dense linear algebra, in float64."""

import pytest
import torch
from torch import nn

from nysact.curvature import SKETCHES

from ..cases import LAYERS
from ..oracles import (
    Schedule,
    average,
    covariance,
    damped_inverse,
    error,
    nystrom,
    randn,
    rows,
)
from ..steps import (
    backward,
    images,
    inverse_of,
    joint_gradient,
    joint_value,
    plain,
    two_layers,
    values,
)

RANK = 6

every_sketch = pytest.mark.parametrize("sketch", SKETCHES)
both_tails = pytest.mark.parametrize("tail", [False, True])


def affine(*shape, of):
    """Inputs that are a fixed one and random combinations of ``of`` others."""
    fixed = randn(of + 1, *shape[1:], seed=99)

    def draw(seed):
        return fixed[0] + torch.tensordot(randn(shape[0], of, seed=seed), fixed[1:], 1)

    return draw


# Layers and inputs whose covariance has at most RANK positive eigenvalues, of more than RANK.
LOW_RANK = {
    "linear": (lambda: nn.Linear(12, 3), affine(7, 12, of=3)),
    "linear-no-bias": (lambda: nn.Linear(12, 3, bias=False), affine(7, 12, of=5)),
    "linear-sequence": (lambda: nn.Linear(12, 3), affine(4, 2, 12, of=2)),
    "linear-vector": (lambda: nn.Linear(12, 3), lambda seed: affine(1, 12, of=2)(seed)[0]),
    "conv": (lambda: nn.Conv2d(3, 4, 3), affine(5, 3, 3, 4, of=1)),
    "conv-grouped": (lambda: nn.Conv2d(4, 4, 3, groups=2), affine(5, 4, 3, 4, of=1)),
    "conv-circular": (
        lambda: nn.Conv2d(2, 3, 3, 2, padding=1, padding_mode="circular", bias=False),
        affine(5, 2, 2, 4, of=1),
    ),
    "conv-1d": (lambda: nn.Conv1d(3, 2, 3, dilation=2), affine(5, 3, 6, of=1)),
    "conv-transposed": (lambda: nn.ConvTranspose1d(3, 2, 3), affine(5, 3, 1, of=1)),
}
# A transposed convolution's rows are mostly zeros: six columns miss some of what they hold.
SKETCHED = [
    pytest.param(*case, sketch, id=f"{name}-{sketch}")
    for name, case in LOW_RANK.items()
    for sketch in SKETCHES
    if (name, sketch) != ("conv-transposed", "columns")
]


@pytest.mark.parametrize(
    ("cov_interval", "inv_interval"),
    [(2, 4), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((1, 1), (1, 3)))],
)
@pytest.mark.parametrize(("build", "draw", "sketch"), SKETCHED)
def test_a_covariance_of_low_rank_is_inverted_exactly(
    build, draw, sketch, cov_interval, inv_interval
):
    module = build().double()
    intervals = {"cov_interval": cov_interval, "inv_interval": inv_interval}
    optimizer = plain(module, rank=RANK, sketch=sketch, damping=0.3, stat_decay=0.8, **intervals)
    expected = Schedule(0.8, **intervals, restarts=True)
    for step in range(10):
        inputs = draw(step)
        expected.update(rows(module, inputs))
        backward(module, inputs, step)
        optimizer.step()
        optimizer.zero_grad()
        assert error(inverse_of(optimizer, module), expected.inverse(0.3)) < 1e-8
    ranks = torch.linalg.matrix_rank(expected.covariance, hermitian=True)
    assert ranks.max() <= RANK < expected.covariance.shape[-1]


@every_sketch
@both_tails
@pytest.mark.parametrize("build", [lambda: nn.Linear(12, 3), lambda: nn.Conv2d(4, 2, 2, groups=2)])
def test_any_covariance_gets_the_nystrom_approximation_of_the_windows_average(build, sketch, tail):
    module = build().double()
    shape = (30, 12) if isinstance(module, nn.Linear) else (9, 4, 4, 4)
    optimizer = plain(module, rank=4, sketch=sketch, tail=tail, inv_interval=4, stat_decay=0.7)
    batches = []
    for step in range(5):
        inputs = randn(*shape, seed=step)
        if step > 0:
            batches.append(covariance(rows(module, inputs)))
        if step == 4:
            # The window's sketch so far gives away its probes.
            state = optimizer.state[module.weight]
            sketched = state["sketch"] / state["rows"][:, None, None]
            probes = torch.linalg.solve(average(batches[:-1], 0.7), sketched)
        backward(module, inputs, step)
        optimizer.step()

    A = average(batches, 0.7)
    sketched = A @ probes
    approximation = nystrom(sketched, probes)
    projector = torch.linalg.qr(sketched).Q
    projector = projector @ projector.mT
    dim = A.shape[-1]
    missed = (A - approximation).diagonal(dim1=-2, dim2=-1).sum(-1) / (dim - 4)
    complement = missed[:, None, None] * (torch.eye(dim, dtype=torch.float64) - projector)
    expected = damped_inverse(approximation + tail * complement, 1.0)
    assert error(inverse_of(optimizer, module), expected) < 1e-8


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_full_rank_is_exact_foof_for_every_layer_in_every_option(case):
    module, inputs = case.module(), case.inputs()
    A = covariance(rows(module, inputs, **case.call))
    optimizer = plain(module, rank=1000, damping=0.05)
    before = joint_value(module)
    backward(module, inputs, **case.call)
    optimizer.step()
    expected = damped_inverse(A, 0.05)
    assert error(inverse_of(optimizer, module), expected) < 1e-11
    assert error(before - joint_value(module), 0.1 * joint_gradient(module) @ expected) < 1e-11


@every_sketch
@pytest.mark.parametrize("rank", [28, 29, 1000])
def test_full_rank_is_exact_foof_whatever_the_sketch(sketch, rank):
    module = nn.Conv2d(3, 4, 3).double()
    optimizer = plain(module, rank=rank, sketch=sketch, damping=0.05, inv_interval=2)
    expected = Schedule(0.95, 1, 2, restarts=False)
    for step in range(6):
        inputs = randn(5, 3, 6, 6, seed=step)
        expected.update(rows(module, inputs))
        backward(module, inputs)
        optimizer.step()
        assert error(inverse_of(optimizer, module), expected.inverse(0.05)) < 1e-11


@every_sketch
@pytest.mark.parametrize("case", LAYERS[::5], ids=str)
def test_the_update_is_the_gradient_times_the_inverse(case, sketch):
    module = case.module()
    optimizer = plain(module, rank=3, sketch=sketch, lr=0.7, inv_interval=2)
    for step in range(4):
        optimizer.zero_grad()
        before = joint_value(module)
        backward(module, case.inputs(step), step, **case.call)
        optimizer.step()
        expected = 0.7 * joint_gradient(module) @ inverse_of(optimizer, module)
        assert error(before - joint_value(module), expected) < 1e-12
        assert not torch.equal(before, joint_value(module))


@every_sketch
def test_large_damping_tends_to_sgd_with_the_rate_divided_by_it(sketch):
    ours, theirs = two_layers(), two_layers()
    settings = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.0}
    # Norms are not preconditioned: their rate is the plain one.
    norm = list(ours[1].parameters())
    groups = [
        {"params": [*ours[0].parameters(), *ours[5].parameters()]},
        {"params": norm, "lr": 0.1},
    ]
    optimizer = plain(ours, groups, sketch=sketch, damping=1e8, **settings | {"lr": 0.1 * 1e8})
    reference = torch.optim.SGD(theirs.parameters(), lr=0.1, **settings)
    start = values(ours)
    for step in range(6):
        for model, stepper in ((ours, optimizer), (theirs, reference)):
            stepper.zero_grad()
            model(images(step)).square().mean().backward()
            stepper.step()
    for name, value in values(theirs).items():
        # The norm hides the bias before it, whose gradient is nothing but rounding.
        if name != "0.bias":
            moved = value - start[name]
            assert error(values(ours)[name] - start[name], moved) < 1e-6, name


@every_sketch
def test_groups_with_their_own_settings_use_them(sketch):
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(9, 2), nn.Linear(9, 2), nn.Linear(9, 2)]).double()
    groups = [
        {"params": model[0].parameters(), "damping": 0.5, "rank": 1000},
        {"params": model[1].parameters(), "lr": 0.3, "cov_interval": 2, "inv_interval": 2},
        {"params": model[2].parameters(), "precondition": False},
    ]
    optimizer = plain(model, groups, rank=50, damping=2.0, sketch=sketch)
    expected = [Schedule(0.95, *steps, restarts=False) for steps in ((1, 1), (2, 2))]
    for step in range(5):
        optimizer.zero_grad()
        before = [joint_value(layer) for layer in model]
        for index, layer in enumerate(model):
            inputs = randn(20, 9, seed=10 * step + index)
            backward(layer, inputs)
            if index < 2:
                expected[index].update(rows(layer, inputs))
        optimizer.step()
        moved = [old - joint_value(layer) for old, layer in zip(before, model, strict=True)]
        G = [joint_gradient(layer) for layer in model]
        assert error(moved[0], 0.1 * G[0] @ expected[0].inverse(0.5)) < 1e-11
        assert error(moved[1], 0.3 * G[1] @ expected[1].inverse(2.0)) < 1e-11
        assert torch.allclose(moved[2], 0.1 * G[2], rtol=1e-12, atol=1e-14)


def test_damping_may_be_changed_between_steps():
    module = nn.Linear(5, 2).double()
    optimizer = plain(module, rank=100, inv_interval=10)
    inputs = randn(8, 5)
    backward(module, inputs)
    optimizer.step()
    optimizer.param_groups[0]["damping"] = 0.2
    expected = damped_inverse(covariance(rows(module, inputs)), 0.2)
    assert error(inverse_of(optimizer, module), expected) < 1e-12


def test_momentum_gathers_preconditioned_gradients():
    module = nn.Linear(6, 2).double()
    optimizer = plain(module, rank=3, momentum=0.8, lr=0.5)
    buffer = torch.zeros_like(joint_value(module))
    for step in range(5):
        optimizer.zero_grad()
        before = joint_value(module)
        backward(module, randn(9, 6, seed=step), step)
        optimizer.step()
        buffer = 0.8 * buffer + joint_gradient(module) @ inverse_of(optimizer, module)
        assert error(before - joint_value(module), 0.5 * buffer) < 1e-12


@pytest.mark.parametrize("decoupled", [False, True])
def test_weight_decay_is_added_behind_the_preconditioner(decoupled):
    module = nn.Linear(6, 2).double()
    optimizer = plain(module, rank=3, lr=0.5, weight_decay=0.2, decoupled_weight_decay=decoupled)
    before = joint_value(module)
    backward(module, randn(9, 6))
    optimizer.step()
    GP = joint_gradient(module) @ inverse_of(optimizer, module)
    assert error(joint_value(module), before - 0.5 * (GP + 0.2 * before)) < 1e-12


def test_maximize_goes_the_other_way():
    up, down = nn.Linear(6, 2).double(), nn.Linear(6, 2).double()
    down.load_state_dict(up.state_dict())
    start = joint_value(up)
    for module, maximize in ((up, True), (down, False)):
        optimizer = plain(module, rank=3, maximize=maximize)
        backward(module, randn(9, 6))
        optimizer.step()
    assert error(joint_value(up) - start, start - joint_value(down)) < 1e-14


@every_sketch
def test_building_and_stepping_leave_the_global_random_state_alone(sketch):
    model = two_layers()
    inputs = images()
    before = torch.get_rng_state()
    optimizer = plain(model, sketch=sketch)
    for _ in range(3):
        model(inputs).sum().backward()
        optimizer.step()
    assert torch.equal(torch.get_rng_state(), before)


def test_one_step_with_little_damping_solves_least_squares():
    inputs, solution = randn(200, 10), randn(1, 10, seed=1)
    module = nn.Linear(10, 1, bias=False).double()
    optimizer = plain(module, rank=10, damping=1e-10, lr=0.5)
    # The squared error's Hessian is twice the covariance.
    (module(inputs) - inputs @ solution.T).square().mean().backward()
    optimizer.step()
    assert error(module.weight.detach(), solution) < 1e-8
