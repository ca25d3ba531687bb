"""Compiled models and compiled training steps."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.utils import counters
from torch.utils.checkpoint import checkpoint

from nysact import NysAct

from .training import SETTINGS, assert_same, batches, dense, network, rows, train

# The first traces as the others do; they take longer.
BACKENDS = ["eager", *(pytest.param(b, marks=pytest.mark.slow) for b in ("aot_eager", "inductor"))]

pytestmark = pytest.mark.filterwarnings(
    # The framework's own, from compiling what follows a backward pass.
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning",
)


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    counters.clear()


def graphs():
    return counters["stats"]["unique_graphs"]


def breaks():
    return dict(counters["graph_break"])


def compiled_training(model, data, backend, when, **settings):
    """Train a model that is compiled before or after the optimizer is built."""
    if when == "before":
        forward = torch.compile(model, backend=backend)
        optimizer = NysAct(forward, **{**SETTINGS, **settings})
    else:
        optimizer = NysAct(model, **{**SETTINGS, **settings})
        forward = torch.compile(model, backend=backend)
    train(model, optimizer, data, forward)
    return optimizer


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_model_learns_what_the_eager_one_does_without_a_graph_break(backend, when):
    # At 16 pixels the first layer is sampled, every 4th.
    data = batches(9, samples=9, shape=(1, 16, 16), dtype=torch.float64)
    model = network(dtype=torch.float64)
    reference = NysAct(model, **SETTINGS)
    train(model, reference, data)
    optimizer = compiled_training(network(dtype=torch.float64), data, backend, when)
    assert set(optimizer.layers) == set(reference.layers)
    assert_same(optimizer, reference, tolerance=1e-7)
    # One graph for steps with statistics, one for those without.
    assert graphs() == 2
    assert breaks() == {}


def test_two_hundred_steps_compile_two_graphs():
    compiled_training(dense(), rows(20) * 10, "eager", "after", cov_interval=5, inv_interval=20)
    assert graphs() == 2
    assert breaks() == {}


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_changing_sizes_compile_at_most_one_more_graph_than_one_size(backend, dynamic):
    sizes = [9, 2, 7, 40, 1300, 5, 64, 2000, 3, 33]
    data = [rows(1, samples, seed=samples, dtype=torch.float64)[0] for samples in sizes * 2]
    first, second = dense(dtype=torch.float64), dense(dtype=torch.float64)
    reference, optimizer = NysAct(first, **SETTINGS), NysAct(second, **SETTINGS)
    train(first, reference, data)
    train(second, optimizer, data, torch.compile(second, backend=backend, dynamic=dynamic))
    assert_same(optimizer, reference, tolerance=1e-7)
    # Two as for one size, and a third when the first size changes.
    assert graphs() == (2 if dynamic else 3)
    assert breaks() == {}


def test_switching_to_evaluation_and_back_compiles_once_each():
    model = dense()
    optimizer = NysAct(model, **SETTINGS)
    forward = torch.compile(model, backend="eager")
    for inputs, targets in rows(20):
        train(model, optimizer, [(inputs, targets)], forward)
        with torch.no_grad():
            forward(inputs)
        with optimizer.paused():
            forward(inputs)
    # With and without statistics due, and with and without gradients.
    assert graphs() <= 4
    assert breaks() == {}


def accumulate(forward, optimizer, data):
    for inputs, targets in data:
        optimizer.zero_grad()
        for x, y in zip(inputs.split(6), targets.split(6), strict=True):
            (F.cross_entropy(forward(x), y) / 3).backward()
        optimizer.step()


def test_accumulated_gradients_of_sampled_rows_compile_no_more_graphs():
    data = rows(20, samples=18, dtype=torch.float64)
    first, second = dense(dtype=torch.float64), dense(dtype=torch.float64)
    reference = NysAct(first, subsample=4, **SETTINGS)
    optimizer = NysAct(second, subsample=4, **SETTINGS)
    accumulate(first, reference, data)
    accumulate(torch.compile(second, backend="eager"), optimizer, data)
    assert_same(optimizer, reference, tolerance=1e-7)
    assert graphs() == 2
    assert breaks() == {}


def train_step(model, optimizer):
    def step(inputs, targets):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss

    return step


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_training_step_learns_what_the_eager_one_does(backend):
    data = rows(12, dtype=torch.float64)
    first, second = dense(dtype=torch.float64), dense(dtype=torch.float64)
    reference, optimizer = NysAct(first, **SETTINGS), NysAct(second, **SETTINGS)
    train(first, reference, data)
    step = torch.compile(train_step(second, optimizer), backend=backend)
    for inputs, targets in data:
        step(inputs, targets)
    assert_same(optimizer, reference, tolerance=1e-7)
    # Where the framework's own optimizers break too: zero_grad, backward, step.
    assert graphs() == 2
    assert len(breaks()) == 3
    for inputs, targets in data:
        step(inputs, targets)
    assert graphs() == 2


@pytest.mark.parametrize("use_reentrant", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("inside", ["compiled checkpoint", "checkpoint of compiled"])
def test_checkpointing_and_compiling_together(inside, use_reentrant):
    class Checkpointed(nn.Module):
        def __init__(self, body):
            super().__init__()
            self.body = body

        def forward(self, inputs):
            return checkpoint(self.body, inputs, use_reentrant=use_reentrant)

    data = [(x.requires_grad_(), y) for x, y in rows(8, dtype=torch.float64)]
    first, second = dense(dtype=torch.float64), dense(dtype=torch.float64)
    reference, optimizer = NysAct(first, **SETTINGS), NysAct(second, **SETTINGS)
    train(first, reference, data)
    if inside == "compiled checkpoint":
        forward = torch.compile(Checkpointed(second), backend="eager")
    else:
        forward = Checkpointed(torch.compile(second, backend="eager"))
    train(second, optimizer, data, forward)
    if inside == "compiled checkpoint":
        assert_same(optimizer, reference, tolerance=1e-7)
        return
    # Compiled code can't tell that it is being repeated: all rows count twice, the means remain.
    for mine, theirs in zip(second.parameters(), first.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-7)
    for name in reference.layers:
        torch.testing.assert_close(optimizer.inverse(name), reference.inverse(name))
