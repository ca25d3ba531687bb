"""A call counts if and only if the gradient at the step came through it."""

import gc
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nysact.engine.statistics import CallQueue, CallStatistics

from ..oracles import Schedule, covariance, damped_inverse, error, randn, rows
from ..steps import backward, inverse_of, plain, set_gradients

DECAY, INV_INTERVAL = 0.5, 2


def build():
    module = nn.Linear(3, 2).double()
    return module, plain(module, rank=4, damping=0.1, inv_interval=2)


def check_counted(optimizer, module, *inputs):
    """A step averages over these inputs and no others."""
    optimizer.step()
    expected = damped_inverse(covariance(*(rows(module, each) for each in inputs)), 0.1)
    assert error(inverse_of(optimizer, module), expected) < 1e-12


def test_a_call_passes_from_its_forward_to_the_step():
    module, optimizer = build()
    pending = optimizer.layers[""].pending
    seen = []

    def note():
        seen.append((pending.was_called, pending.has_calls, pending.has_gradient))

    note()
    loss = module(randn(4, 3)).sum()
    note()
    loss.backward()
    note()
    optimizer.step()
    note()
    no, captured, set_aside = (False,) * 3, (True, False, False), (True,) * 3
    assert seen == [no, captured, set_aside, captured]


def test_the_graph_alone_keeps_an_abandoned_call(monkeypatch):
    monkeypatch.setattr(CallQueue, "LIMIT", 0)  # nothing waits to be measured

    def calls():
        return sum(type(each) is CallStatistics for each in gc.get_objects())

    module, _optimizer = build()
    before = calls()
    loss = module(randn(4, 3)).sum()
    assert calls() == before + 1
    del loss
    assert calls() == before


def test_a_gradient_set_by_hand_brings_no_statistics():
    module, optimizer = build()
    module(randn(4, 3))
    set_gradients(module)
    optimizer.step()
    assert optimizer.diagnostics()[""]["refresh_age"] is None


def test_a_gradient_of_autograd_grad_that_is_assigned_brings_them():
    module, optimizer = build()
    used, unused = randn(4, 3), randn(5, 3, seed=1)
    module(unused).sum()
    params = list(module.parameters())
    for param, gradient in zip(
        params, torch.autograd.grad(module(used).sum(), params), strict=True
    ):
        param.grad = gradient
    check_counted(optimizer, module, used)


def test_a_call_counts_as_often_as_the_gradient_came_through_it():
    module, optimizer = build()
    twice, once = randn(4, 3), randn(5, 3, seed=1)
    loss = module(twice).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    backward(module, once)
    check_counted(optimizer, module, twice, twice, once)


@pytest.mark.parametrize("of", ["optimizer", "model"])
def test_a_reset_drops_the_calls_of_its_gradient_alone(of):
    module, optimizer = build()
    dropped, kept = randn(4, 3), randn(5, 3, seed=1)
    later = module(kept).sum()
    backward(module, dropped)
    (optimizer if of == "optimizer" else module).zero_grad()
    later.backward()
    check_counted(optimizer, module, kept)


def test_a_backward_pass_that_misses_the_weight_counts_nothing():
    module, optimizer = build()
    penalised, used = randn(4, 3).requires_grad_(), randn(5, 3, seed=1)
    torch.autograd.grad(module(penalised).sum(), penalised)
    backward(module, used)
    check_counted(optimizer, module, used)


def test_a_call_counts_in_the_next_step_of_the_same_window():
    module, optimizer = build()
    for seed in (0, 1):
        backward(module, randn(4, 3, seed=seed))
        loss = module(randn(5, 3, seed=2)).sum() if seed else None
        optimizer.step()
        optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    blocks = [rows(module, randn(n, 3, seed=seed)) for seed, n in ((0, 4), (1, 4), (2, 5))]
    expected = Schedule(0.95, 1, 2, restarts=False)
    for block in blocks:
        expected.update(block)
    assert error(inverse_of(optimizer, module), expected.inverse(0.1)) < 1e-12


# --- any order -------------------------------------------------------------------------------


@dataclass
class Graph:
    """The loss of a few calls, and the rows that they count for."""

    loss: Tensor
    inputs: Tensor
    rows: list[Tensor]


class Record:
    """A layer that is used in any order, and beside it a plain list of what its gradient holds."""

    def __init__(self, *, by_hand=False):
        self.module = nn.Linear(3, 2).double()
        options = {"rank": 4, "damping": 0.1, "stat_decay": DECAY, "inv_interval": INV_INTERVAL}
        self.optimizer = plain(self.module, **options)
        self.expected = Schedule(DECAY, 1, INV_INTERVAL, restarts=False)
        self.by_hand = by_hand  # whether gradients come from autograd.grad and are assigned
        self.graphs: list[Graph] = []
        self.contents: list[Tensor] = []
        self.drawn = 0

    def _draw(self, *, requires_grad=False):
        self.drawn += 1
        return randn(self.drawn % 3 + 1, 3, seed=self.drawn).requires_grad_(requires_grad)

    def _take(self, number, *, keep):
        if not self.graphs:
            return None
        index = number % len(self.graphs)
        return self.graphs[index] if keep else self.graphs.pop(index)

    def forward(self, number, of_inputs):
        """One call, or two whose outputs are added up."""
        inputs = self._draw(requires_grad=of_inputs)
        calls = [inputs, *([self._draw()] if number % 2 else [])]
        outputs = torch.cat([self.module(each) for each in calls])
        loss = (outputs * randn(*outputs.shape, seed=self.drawn)).sum()
        counted = [rows(self.module, each.detach()) for each in calls]
        self.graphs.append(Graph(loss, inputs, counted))

    def backward(self, number, retain):
        graph = self._take(number, keep=retain)
        if graph:
            self._differentiate(graph.loss, retain=retain)
            self.contents += graph.rows

    def backward_of_all(self, number, retain):
        """One backward pass through all graphs."""
        if self.graphs:
            self._differentiate(sum(graph.loss for graph in self.graphs), retain=retain)
            self.contents += [each for graph in self.graphs for each in graph.rows]
            self.graphs = self.graphs if retain else []

    def _differentiate(self, loss, *, retain):
        if not self.by_hand:
            loss.backward(retain_graph=retain)
            return
        params = list(self.module.parameters())
        gradients = torch.autograd.grad(loss, params, retain_graph=retain)
        for param, gradient in zip(params, gradients, strict=True):
            param.grad = gradient if param.grad is None else param.grad + gradient

    def gradient_of_inputs(self, number, flag):
        """A backward pass that doesn't reach the weight."""
        graph = self._take(number, keep=True)
        if graph and graph.inputs.requires_grad:
            torch.autograd.grad(graph.loss, graph.inputs, retain_graph=True)

    def detached_forward(self, number, without_graph):
        with torch.set_grad_enabled(not without_graph):
            self.module(self._draw()).detach()

    def abandon(self, number, flag):
        self._take(number, keep=False)

    def zero_grad(self, number, to_none):
        self.optimizer.zero_grad(set_to_none=to_none)
        self.contents = []

    def zero_grad_of_model(self, number, flag):
        # Gradients of autograd.grad may be added up before they are assigned: nothing tells that
        # those before a reset by the model are gone.
        reset = self.optimizer if self.by_hand else self.module
        reset.zero_grad()
        self.contents = []

    def step(self, number=0, flag=False):
        had_data, refreshes = self.expected.covariance is not None, self._step % INV_INTERVAL == 0
        self.optimizer.step()
        self.expected.update(*self.contents)
        self.contents = []
        # The step changed the weight that these graphs hold.
        self.graphs = [graph for graph in self.graphs if not graph.inputs.requires_grad]
        if refreshes or had_data != (self.expected.covariance is not None):
            # A new window has new probes: calls from before can't be added to its statistics.
            for graph in self.graphs:
                graph.rows = []
        self.check()

    @property
    def _step(self):
        return self.expected.step

    def check(self):
        inverse = inverse_of(self.optimizer, self.module)
        if self.expected.covariance is None:
            assert torch.equal(inverse[0], torch.eye(4, dtype=torch.float64))
        else:
            assert error(inverse, self.expected.inverse(0.1)) < 1e-10


ACTIONS = (
    "forward",
    "backward",
    "backward_of_all",
    "gradient_of_inputs",
    "detached_forward",
    "abandon",
    "zero_grad",
    "zero_grad_of_model",
    "step",
)
# Forwards and backwards are drawn more often: most orders of the rest alone have no gradient.
WEIGHTED = st.sampled_from([*["forward"] * 4, *["backward"] * 4, *["step"] * 2, *ACTIONS])
ORDERS = st.lists(st.tuples(WEIGHTED, st.integers(0, 3), st.booleans()), max_size=24)


def check_order(order, by_hand):
    record = Record(by_hand=by_hand)
    for action, number, flag in order:
        getattr(record, action)(number, flag)
    record.step()


@given(ORDERS, st.booleans())
@hypothesis_settings(max_examples=100)
def test_calls_in_any_order_count_by_the_gradient(order, by_hand):
    check_order(order, by_hand)


@pytest.mark.slow
@given(ORDERS, st.booleans())
@hypothesis_settings(max_examples=500)
def test_calls_in_any_order_count_by_the_gradient_at_length(order, by_hand):
    check_order(order, by_hand)
