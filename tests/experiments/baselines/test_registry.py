import pytest
import torch
from torch import nn

from nysact.experiments.baselines import BASELINES, Needs, build, find, needs_of
from nysact.experiments.errors import ExperimentError

NEEDS = {"adahessian": Needs.GRAPH, "sketchysgd": Needs.GRAPH, "kbfgs": Needs.CLOSURE}


@pytest.mark.parametrize("name", BASELINES)
def test_defaults_and_sources_are_documented(name):
    entry = BASELINES[name]
    assert entry.defaults["lr"] > 0
    assert entry.source
    optimizer = entry.build(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)))
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert optimizer.param_groups[0]["lr"] == entry.defaults["lr"]
    assert needs_of(optimizer) is NEEDS.get(name, Needs.GRADIENT)


def test_overrides_replace_defaults():
    optimizer = build("sgd", nn.Linear(2, 2), lr=0.5)
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert optimizer.param_groups[0]["momentum"] == 0.9


def test_unknown_optimizer_names_the_nearest():
    with pytest.raises(ExperimentError, match=r"'sketchysdg': the nearest is 'sketchysgd'; exp"):
        find("sketchysdg")
    with pytest.raises(ExperimentError, match="'KBFGS': the nearest is 'kbfgs'"):
        find("KBFGS")


def test_unknown_setting_names_the_nearest():
    with pytest.raises(ExperimentError, match=r"M-FAC has no setting 'dampening': .*'damping'"):
        build("mfac", nn.Linear(2, 2), dampening=0.1)


def test_evas_vectors_are_nearly_the_newest_and_act_at_once():
    (group,) = build("eva", nn.Linear(2, 2)).param_groups
    assert group["stat_decay"] == 0.05
    assert group["inv_interval"] == group["cov_interval"]


@pytest.mark.parametrize("name", ["shampoo", "soap", "ggt", "adamw"])
def test_vectors_can_be_left_out_of_the_weight_decay(name):
    model = nn.Linear(2, 2)
    optimizer = find(name).build_for_run(model, {"weight_decay": 0.3}, 0, decay_vectors=False)
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decays == {id(model.weight): 0.3, id(model.bias): 0.0}


def test_vectors_are_left_out_of_the_weight_decay_of_adamw_beside_muon():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    overrides = {"weight_decay": 0.3, "adamw_weight_decay": 0.2}
    optimizer = find("nysmuon").build_for_run(model, overrides, 0, decay_vectors=False)
    decays = {n: g["weight_decay"] for g in optimizer.param_groups for n in g["param_names"]}
    vectors = dict.fromkeys(["0.bias", "1.weight", "1.bias", "2.bias"], 0.0)
    assert decays == {"0.weight": 0.3, "2.weight": 0.2, **vectors}
