"""The layers and the counts behind the table of what optimizers send."""

from collections import Counter

import pytest
import torch
from benchmarks.communication import (
    NETWORKS,
    SCHEMES,
    Network,
    Weight,
    table,
    weights_of,
)

from nysact import NysAct


def real_models():
    import timm
    from torchvision.models import resnet50

    with torch.device("meta"):
        return {"ResNet-50": resnet50(), "DeiT-S": timm.create_model("deit_small_patch16_224")}


def test_the_layers_on_paper_are_those_of_the_real_models():
    networks = {network.name: network for network in NETWORKS}
    for name, model in real_models().items():
        found = Counter(weights_of(NysAct(model, rank=1, sketch="columns")))
        listed = Counter()
        for weight in networks[name].weights:
            shape = Weight(1, weight.groups, weight.outputs, weight.inputs)
            listed[shape] += weight.count
        assert listed == found


def test_the_large_transformer_has_its_parameters():
    *_, large = NETWORKS
    embedding = 32000 * 4096
    assert large.total(lambda m, d: m * d) + embedding == pytest.approx(6.74e9, rel=1e-3)


def test_the_counts_of_one_small_layer():
    network = Network("one", (Weight(2, 3, 5, 7),), rank=2, cov_interval=2, inv_interval=8)
    reduced = [scheme.reduced(network) for scheme in SCHEMES]
    gathered = [scheme.gathered(network) for scheme in SCHEMES]
    both = 6 * (49 + 25)
    sketches, factors, product = 6 * 16, 6 * (14 + 4 + 3), 6 * 35
    shared = (sketches + factors) / 8
    assert reduced == [sketches / 8, shared, both / 8, both / 2, both / 2, 0, product]
    assert gathered == [0, 0, 0, both / 8, product, product, 0]
    assert SCHEMES[3].sent(network, 4) == (2 * reduced[3] + gathered[3]) * 3 / 4


def test_the_table_has_a_row_a_scheme_and_a_column_a_network_and_number():
    lines = table((8, 1024)).splitlines()
    assert len(lines) == 2 + len(SCHEMES)
    assert {line.count("|") for line in lines} == {2 + 2 * len(NETWORKS)}
    first = float(lines[2].split("|")[2].replace(",", ""))
    sent = SCHEMES[0].sent(NETWORKS[0], 8)
    assert first == pytest.approx(4e-6 * sent, rel=1e-2)
