"""What acts alike has one fingerprint, in any process; what does not has another."""

import functools
import os
import subprocess
import sys

import numpy
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from nysact.experiments.fingerprint import fingerprint

SCALED = """
import torch
from torch import nn

SCALE = {scale}

def scaled(x):
    return x * SCALE

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.power = {power}

    # {comment}
    def forward(self, x):
        return scaled(self.layer(x)) {sign} self.power
"""


def network(**changes) -> nn.Module:
    values = {"scale": 2.0, "power": 1, "comment": "a comment", "sign": "+", **changes}
    scope = {"__name__": "a_script"}
    exec(SCALED.format(**values), scope)
    torch.manual_seed(0)
    return scope["Net"]()


def test_network_made_again_is_the_same_whatever_its_comments():
    assert fingerprint(network()) == fingerprint(network())
    assert fingerprint(network(comment="another\n\n")) == fingerprint(network())


@pytest.mark.parametrize("change", [{"scale": 3.0}, {"power": 2}, {"sign": "-"}], ids=str)
def test_what_a_network_computes_counts_down_to_globals_of_its_helpers(change):
    assert fingerprint(network(**change)) != fingerprint(network())


def test_weights_count():
    model = network()
    before = fingerprint(model)
    with torch.no_grad():
        model.layer.weight[0, 0] += 1
    assert fingerprint(model) != before


def test_hooks_count_but_not_their_numbers():
    def hooked():
        layer = nn.Linear(2, 2, bias=False)
        nn.init.ones_(layer.weight)
        layer.register_forward_hook(print)
        return layer

    first = fingerprint(hooked())
    assert fingerprint(hooked()) == first
    bare = nn.Linear(2, 2, bias=False)
    nn.init.ones_(bare.weight)
    assert fingerprint(bare) != first


def power(exponent: float):
    return lambda a, b: (a - b).abs().pow(exponent).mean()


def test_functions_count_by_code_closure_and_defaults():
    kinds = [
        power(1.0),
        power(2.0),
        lambda a, b: (a - b).abs().mean(),
        lambda a, b: (a - b).square().mean(),
        lambda a, b=1: (a - b).abs().mean(),
        F.cross_entropy,
        functools.partial(F.cross_entropy, label_smoothing=0.1),
        functools.partial(F.cross_entropy, label_smoothing=0.2),
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(label_smoothing=0.1),
        nn.CrossEntropyLoss(weight=torch.ones(2)),
        nn.CrossEntropyLoss(weight=torch.zeros(2)),
        functools.cache(power(1.0)),
    ]
    assert len({fingerprint(kind) for kind in kinds}) == len(kinds)
    assert fingerprint(power(2.0)) == fingerprint(kinds[1])


def test_functions_and_objects_that_refer_to_each_other_come_to_an_end():
    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n > 0 and even(n - 1)

    items = [even]
    items.append(items)
    assert fingerprint(items) == fingerprint(items)


@given(st.lists(st.integers(0, 255), min_size=4, max_size=4))
def test_arrays_of_any_kind_count_by_content(values):
    pixels = numpy.array(values, dtype=numpy.uint8).reshape(2, 2)
    other = pixels.copy()
    other[1, 1] ^= 1
    for kind in (torch.from_numpy, Image.fromarray, numpy.asfortranarray):
        assert fingerprint(kind(pixels)) == fingerprint(kind(pixels.copy()))
        assert fingerprint(kind(pixels)) != fingerprint(kind(other))
    assert fingerprint(torch.zeros(2, 3)) != fingerprint(torch.zeros(3, 2))
    assert fingerprint(torch.zeros(2)) != fingerprint(torch.zeros(2, dtype=torch.int32))


ELSEWHERE = """
import functools, torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from nysact.experiments.fingerprint import fingerprint

class Net(nn.Module):
    names = {"a", "b", "c"}

    def forward(self, x):
        return x if len(x) in {1, 2, 3} else self.block(x)

print(fingerprint(
    functools.partial(F.cross_entropy, label_smoothing=0.1),
    Image.new("L", (3, 3), 7),
    lambda a, b: Net.names and (a - b).abs().mean(),
    Net(),
    torch.Generator(),
    print,
    object(),
))
"""


def test_another_process_gives_the_same():
    found = set()
    for seed in "12":
        done = subprocess.run(
            [sys.executable, "-c", ELSEWHERE],
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        found.add(done.stdout)
    assert len(found) == 1
