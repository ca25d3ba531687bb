"""Faults that are put into a training on purpose, each at a place that a seed draws."""

import copy
import random
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nysact import FOOF, KFAC, SKFAC, Eva, NysAct, NysAdamW, NysMuon, Preconditioner

from ..steps import images

INTERVALS = {"cov_interval": 1, "inv_interval": 2}
FACES = {
    "NysAct": lambda model: NysAct(model, rank=4, **INTERVALS),
    "NysAct, long memory": lambda model: NysAct(model, rank=4, memory="long", **INTERVALS),
    "NysMuon": lambda model: NysMuon(model, rank=4, **INTERVALS),
    "NysAdamW": lambda model: NysAdamW(model, rank=4, **INTERVALS),
    "FOOF": lambda model: FOOF(model, **INTERVALS),
    "KFAC": lambda model: KFAC(model, **INTERVALS),
    "Eva": lambda model: Eva(model, **INTERVALS),
    "SKFAC": lambda model: SKFAC(model, **INTERVALS),
    "Preconditioner": lambda model: Preconditioner(model, rank=4, **INTERVALS),
}


class InjectedError(Exception):
    """What a fault raises, so that nothing else is taken for it."""


class Training:
    """A small model and its optimizer, which takes steps of its own or a twin's batches."""

    def __init__(self, face):
        self.face = face
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Conv2d(2, 3, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(12, 5),
            nn.Tanh(),
            nn.Linear(5, 2),
        ).double()
        self.optimizer = FACES[face](self.model)

    def forward(self, seed):
        self.optimizer.zero_grad()
        return self.model(images(seed)).square().mean()

    def step(self, seed):
        self.forward(seed).backward()
        self.optimizer.step()

    def reloaded(self):
        """A new training that continues from the state dicts of this one."""
        twin = Training(self.face)
        twin.model.load_state_dict(self.model.state_dict())
        twin.optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
        return twin

    def tensors(self):
        """Every parameter, and everything in the state."""
        values = list(self.model.parameters())
        for state in self.optimizer.state.values():
            values += [value for value in state.values() if isinstance(value, torch.Tensor)]
        return values


class FailingOperation(TorchDispatchMode):
    """Raises in place of the n-th operation, and counts them."""

    def __init__(self, number=-1):
        super().__init__()
        self.number, self.count = number, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        if self.count - 1 == self.number:
            raise InjectedError(f"operation {self.number}, {func}")
        return func(*args, **(kwargs or {}))


class FailingFactorisation(TorchDispatchMode):
    """Lets some of the factorisations fail, as LAPACK does: by a flag with NaN, or by an error."""

    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, result = func.overloadpacket.__name__, func(*args, **(kwargs or {}))
        if name.startswith(("linalg", "_linalg")) and is_identity(args[0]):
            return result  # what a layer gets whose own factorisation failed
        if name == "linalg_cholesky_ex" and self.draw.random() < 0.5:
            factor, info = result
            failed = torch.rand(info.shape) < 0.7
            factor[failed], info[failed] = torch.nan, 1
        elif name in ("_linalg_eigh", "_linalg_svd") and self.draw.random() < 0.5:
            raise torch.linalg.LinAlgError("failed to converge")
        return result


def is_identity(matrix):
    return matrix.ndim == 2 and torch.equal(matrix, torch.eye(*matrix.shape).to(matrix))


def spoil(tensor, draw):
    """A copy with NaN or an infinity at a place that is drawn, or everywhere."""
    bad, tensor = draw.choice([torch.nan, torch.inf, -torch.inf]), tensor.clone()
    place = draw.choice([slice(None), draw.randrange(tensor.numel())])
    tensor.view(-1)[place] = bad
    return tensor


def fail(*_):
    raise InjectedError("in a hook")


@contextmanager
def hooked(register, hook):
    handle = register(hook)
    try:
        yield
    finally:
        handle.remove()


# --- faults of one batch: each runs it, up to the fault ------------------------------------------


def operations_of(run):
    with FailingOperation() as mode:
        run()
    return mode.count


def spoiled_activations(training, seed, draw):
    layer = draw.choice(list(training.model))
    with hooked(layer.register_forward_pre_hook, lambda _, args: (spoil(args[0], draw),)):
        training.forward(seed).backward()


def spoiled_gradients(training, seed, draw):
    layer = draw.choice(list(training.model))

    def on_output(module, args, output):
        output.register_hook(lambda gradient: spoil(gradient, draw))

    with hooked(layer.register_forward_hook, on_output):
        training.forward(seed).backward()


def failing_forward(training, seed, draw):
    twin = training.reloaded()
    total = operations_of(lambda: twin.forward(seed))
    with FailingOperation(draw.randrange(total)):
        training.forward(seed)


def failing_backward(training, seed, draw):
    twin = training.reloaded()
    loss = twin.forward(seed)
    total = operations_of(loss.backward)
    loss = training.forward(seed)
    with FailingOperation(draw.randrange(total)):
        loss.backward()


def failing_hook(training, seed, draw):
    layer, param = draw.choice(list(training.model)), draw.choice(list(training.model.parameters()))
    register = draw.choice(
        [
            layer.register_forward_pre_hook,
            layer.register_forward_hook,
            layer.register_full_backward_hook,
            layer.register_full_backward_pre_hook,
            param.register_hook,
            param.register_post_accumulate_grad_hook,
        ]
    )
    with hooked(register, fail):
        training.forward(seed).backward()


SKIPPED = {
    "NaN or infinity in activations": spoiled_activations,
    "NaN or infinity in gradients": spoiled_gradients,
    "an exception at any operation of a forward": failing_forward,
    "an exception at any operation of a backward": failing_backward,
    "an exception in a hook": failing_hook,
}


def reset(training, draw):
    """Drop a batch's gradients by one of the usual ways."""
    by = draw.choice(["optimizer", "model", "hand"])
    if by == "hand":
        for param in training.model.parameters():
            param.grad = None
    else:
        getattr(training, by).zero_grad()


def keep_finite(training):
    """Replace what is not finite in the gradients, as some training loops do."""
    for param in training.model.parameters():
        if param.grad is not None:
            torch.nan_to_num_(param.grad, 0.0, 0.0, 0.0)


# --- faults inside a step ------------------------------------------------------------------------


def failing_step(training, twin, seed, draw):
    """A step fails at any of its operations, which a twin counts, and is not tried again."""
    twin.forward(seed).backward()
    total = operations_of(twin.optimizer.step)
    training.forward(seed).backward()
    with FailingOperation(draw.randrange(total)):
        training.optimizer.step()


def failing_factorisations(training, seed, draw):
    """A step in which factorisations fail."""
    training.forward(seed).backward()
    with FailingFactorisation(draw):
        training.optimizer.step()


def drawn(*key):
    return random.Random(repr(key))
