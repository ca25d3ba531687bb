"""A model that has an optimizer is for every other tool like one that has none."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.ao.quantization import default_qconfig, prepare, quantize_dynamic
from torch.fx import symbolic_trace
from torch.fx.experimental.proxy_tensor import make_fx

from ..oracles import randn
from ..steps import hooks_on, plain, same, state_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))


def train(model, optimizer, steps):
    for step in steps:
        optimizer.zero_grad()
        model(randn(8, 6, seed=step).float()).square().mean().backward()
        optimizer.step()


def exported(model, strict):
    program = torch.export.export(model, (torch.ones(3, 6),), strict=strict)
    return [node.target for node in program.graph.nodes if node.op == "call_function"]


def in_onnx(model):
    pytest.importorskip("onnxscript")
    program = torch.onnx.export(model, (torch.ones(3, 6),), dynamo=True, verbose=False)
    return [node.op_type for node in program.model.graph]


def traced(model):
    graph = torch.jit.trace(model, torch.ones(3, 6)).inlined_graph
    return [node.kind() for node in graph.nodes()]


def fake(model):
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        inside = model(torch.ones(3, 6))
    outside = model(mode.from_tensor(torch.ones(3, 6)))
    return inside.shape, outside.shape


def made_fx(model):
    return str(make_fx(lambda x: model(x))(torch.ones(3, 6)).graph)


def quantised(model):
    twin = quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    model.qconfig = default_qconfig
    observed = prepare(model)
    del model.qconfig
    found = observed[0]._forward_hooks
    return twin(torch.ones(3, 6)), len(found), observed(torch.ones(3, 6))


TOOLS = {
    "torch.export": lambda model: exported(model, strict=False),
    "torch.export, strict": lambda model: exported(model, strict=True),
    "torch.onnx.export": in_onnx,
    "jit.trace": traced,
    "jit.script": lambda model: len(list(torch.jit.script(model).inlined_graph.nodes())),
    "a fake-tensor mode": fake,
    "make_fx": made_fx,
    "symbolic_trace": lambda model: str(symbolic_trace(model).graph),
    "quantisation": quantised,
    "torch.func": lambda model: torch.func.functional_call(
        model, {"0.bias": torch.ones(5)}, torch.ones(3, 6)
    ).detach(),
}


@pytest.mark.parametrize("steps", [0, 5, 6])
@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_between_steps_finds_and_leaves_nothing(tool, steps):
    """After 5 steps the next one takes statistics, after 6 it doesn't."""
    model, untouched = build(), build()
    optimizer, reference = (
        plain(each, cov_interval=5, inv_interval=5) for each in (model, untouched)
    )
    for each, its_optimizer in ((model, optimizer), (untouched, reference)):
        train(each, its_optimizer, range(steps))
    found = TOOLS[tool](model)
    if tool != "torch.func":  # its results are part of a training if they are used
        without = build()
        without.load_state_dict(model.state_dict())
        assert str(found) == str(TOOLS[tool](without))
    for each, its_optimizer in ((model, optimizer), (untouched, reference)):
        train(each, its_optimizer, range(steps, steps + 6))
    assert same(state_of(optimizer), state_of(reference))


def test_copies_of_copies_carry_no_hook():
    model = build()
    optimizer = plain(model)
    twin = model
    for step in range(50):
        train(model, optimizer, [step])
        twin = copy.deepcopy(twin)
    assert hooks_on(model)
    assert hooks_on(twin) == hooks_on(copy.deepcopy(model)) == []
    assert vars(twin[0]).keys() == vars(build()[0]).keys()
    assert not twin[0]._forward_hooks_with_kwargs
    torch.jit.script(copy.deepcopy(model))


def test_a_pickle_knows_nothing_of_the_library():
    model = build()
    optimizer = plain(model)
    train(model, optimizer, range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saved = pickle.dumps(model)
    assert b"nysact" not in saved
    assert pickle.loads(saved)[0]._forward_hooks == {}


@pytest.mark.parametrize("kind", ["forward", "forward_pre"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_hooks_of_others_stay_in_copies_and_are_removed_by_their_handles(when, kind):
    calls = []

    def count(*_):
        calls.append(1)

    model = build()
    if when == "before":
        handle = getattr(model[0], f"register_{kind}_hook")(count)
    optimizer = plain(model)
    if when == "after":
        handle = getattr(model[0], f"register_{kind}_hook")(count)
    train(model, optimizer, range(2))
    assert len(calls) == 2
    assert hooks_on(copy.deepcopy(model)) == [count]
    handle.remove()
    train(model, optimizer, range(2))
    assert len(calls) == 2
    assert hooks_on(copy.deepcopy(model)) == []


# --- an optimizer that is alive and does not step -----------------------------------------------


def train_with_another(model, steps, *, set_to_none):
    other = torch.optim.SGD(model.parameters(), lr=1e-3)
    for step in range(steps):
        other.zero_grad(set_to_none)
        model(randn(8, 6, seed=step).float()).square().mean().backward()
        other.step()


def evaluate_with_gradients(model, steps):
    for step in range(steps):
        model(randn(2, 6, seed=step).float())


IDLE = {
    "trained by another optimizer": lambda model: train_with_another(model, 120, set_to_none=True),
    "trained by one that sets to zero": lambda m: train_with_another(m, 120, set_to_none=False),
}


@pytest.mark.parametrize("way", IDLE)
def test_a_model_that_another_optimizer_trains_is_left_alone(way):
    model = build()
    optimizer = plain(model)
    IDLE[way](model)
    assert hooks_on(model) == []
    # It takes statistics again once it steps.
    train(model, optimizer, range(3))
    assert hooks_on(model)
    assert optimizer.diagnostics()["0"]["refresh_age"] == 0


def test_a_step_with_many_micro_batches_is_no_idle_one():
    model = build()
    optimizer = plain(model)
    for step in range(300):
        model(randn(2, 6, seed=step).float()).square().mean().backward()
    optimizer.step()
    assert optimizer.state[model[0].weight]["refreshed"] == 0
