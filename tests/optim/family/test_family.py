"""What holds for every member of the family alike."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from nysact import FOOF, KFAC, SKFAC, Eva, NysAct

from ...oracles import error, randn

FAMILY = [NysAct, FOOF, KFAC, Eva, SKFAC]
EVERY_STEP = {"cov_interval": 1, "inv_interval": 2}

every_member = pytest.mark.parametrize("build", FAMILY, ids=lambda build: build.__name__)


def network(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(16, 3),
    ).to(dtype)


def batch(step, samples=24):
    return randn(samples, 2, 4, 4, seed=step), randn(samples, 3, seed=step + 100)


def train(model, optimizer, steps, parts=1, run=None):
    """Train on mean losses, each batch in equal parts."""
    run = run or model
    for step in steps:
        inputs, targets = (tensor.to(model[0].weight.dtype) for tensor in batch(step))
        optimizer.zero_grad()
        for x, y in zip(inputs.chunk(parts), targets.chunk(parts), strict=True):
            loss = (run(x) - y).square().sum(-1).mean() / parts
            loss.backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@every_member
@pytest.mark.parametrize("parts", [2, 3, 6])
def test_accumulation_gives_the_update_of_the_union(build, parts):
    ends = []
    for count in (1, parts):
        model = network()
        ends.append(train(model, build(model, **EVERY_STEP), range(4), count))
    assert error(*ends) < 1e-10


@every_member
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_changes_nothing(build, reentrant):
    plain = network()
    expected = train(plain, build(plain, **EVERY_STEP), range(4))
    model = network()

    def run(inputs):
        inputs.requires_grad_(True)
        hidden = checkpoint(model[:4], inputs, use_reentrant=reentrant)
        return model[4:](hidden)

    assert error(train(model, build(model, **EVERY_STEP), range(4), run=run), expected) < 1e-10


@every_member
def test_resuming_in_the_middle_of_a_window_is_exact(build):
    options = {"cov_interval": 2, "inv_interval": 6}
    model = network()
    straight = train(model, build(model, **options), range(20))
    model = network()
    optimizer = build(model, **options)
    train(model, optimizer, range(9))
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    model = network()
    model.load_state_dict(weights)
    optimizer = build(model, **options)
    optimizer.load_state_dict(state)
    assert torch.equal(train(model, optimizer, range(9, 20)), straight)


@every_member
def test_half_precision_parameters_keep_statistics_in_float32(build):
    model = network(torch.bfloat16)
    optimizer = build(model, **EVERY_STEP)
    assert train(model, optimizer, range(4)).isfinite().all()
    for layer in (model[0], model[2], model[5]):
        state = optimizer.state[layer.weight]
        floats = {n for n, v in state.items() if v.is_floating_point() and n != "momentum_buffer"}
        assert {state[name].dtype for name in floats} == {torch.float32}


@every_member
def test_statistics_of_a_skipped_step_are_dropped(build):
    ends = []
    for skips in (False, True):
        model = network()
        optimizer = build(model, **EVERY_STEP)
        if skips:
            inputs, targets = batch(77)
            (model(inputs) - targets).square().sum(-1).mean().backward()
        ends.append(train(model, optimizer, range(4)))
    assert torch.equal(*ends)


@every_member
def test_a_weight_shared_by_two_modules_is_preconditioned_once(build):
    """Two modules that share a weight do what one module called twice does."""
    ends = []
    for shares in (False, True):
        torch.manual_seed(0)
        first = nn.Linear(4, 4, bias=False).double()
        second = copy.deepcopy(first) if shares else first
        second.weight = first.weight
        model = nn.ModuleList([first, second] if shares else [first])
        optimizer = build(model, **EVERY_STEP)
        for step in range(4):
            optimizer.zero_grad()
            second(torch.tanh(first(randn(5, 4, seed=step)))).square().mean().backward()
            optimizer.step()
        ends.append(first.weight.detach())
    assert torch.equal(*ends)


@every_member
def test_training_lowers_the_loss(build):
    model = network()
    optimizer = build(model, lr=0.05)
    inputs, targets = batch(0)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (model(inputs) - targets).square().sum(-1).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("build", [KFAC, Eva, SKFAC], ids=lambda build: build.__name__)
def test_layers_whose_output_is_hidden_are_skipped_by_two_sided_members(build):
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    optimizer = build(model)
    assert set(optimizer.layers) == {"linear1", "linear2"}
    assert "output" in optimizer.skipped["self_attn"]


@pytest.mark.parametrize("build", [KFAC, Eva, SKFAC], ids=lambda build: build.__name__)
@pytest.mark.parametrize("bound", [0, -1.0, "1", float("nan")])
def test_a_bound_that_is_none_is_refused(build, bound):
    model = network()
    with pytest.raises(ValueError, match="kl_clip"):
        build(model, kl_clip=bound)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("build", [FOOF, KFAC, Eva], ids=lambda build: build.__name__)
def test_an_option_of_another_member_is_refused(build):
    with pytest.raises(TypeError, match="sketch"):
        build(network(), sketch="columns")
