"""Which modules are preconditioned, and what is said of the others."""

import pytest
import torch
from torch import nn

from ..oracles import covariance, damped_inverse, error, randn, rows
from ..steps import backward, hooks_on, inverse_of, plain, two_layers


def test_supported_layers_are_found_and_the_others_named_with_a_reason():
    optimizer = plain(two_layers())
    assert list(optimizer.layers) == ["0", "5"]
    assert set(optimizer.skipped) == {"1"}
    assert "BatchNorm2d" in optimizer.skipped["1"]


def test_modules_without_parameters_of_the_optimizer_are_not_mentioned():
    model = two_layers()
    optimizer = plain(model, model[5].parameters())
    assert list(optimizer.layers) == ["5"]
    assert not optimizer.skipped


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["0"], {"1.0", "1.1", "2"}),
        (["1.*"], {"0", "2"}),
        (["[01]*"], {"2"}),
        (["0", "2"], {"1.0", "1.1"}),
    ],
)
def test_patterns_exclude_modules_by_name(patterns, left):
    inner = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    optimizer = plain(nn.Sequential(nn.Linear(3, 3), inner, nn.Linear(3, 3)), exclude=patterns)
    assert set(optimizer.layers) == left
    assert all("excluded by the pattern" in why for why in optimizer.skipped.values())


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["role:contraction"], {"0", "1", "3"}),
        (["role:expansion"], {"0", "2", "3"}),
        (["role:square", "role:convolution"], {"1", "2"}),
        # A pattern of names is no role, whatever letters they share.
        (["*[03]"], {"1", "2"}),
    ],
)
def test_roles_exclude_layers_by_the_shape_of_their_matrix(patterns, left):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 16), nn.Linear(16, 4), nn.Conv1d(4, 16, 1))
    assert set(plain(model, exclude=patterns).layers) == left


@pytest.mark.parametrize("pattern", ["role:contractoin", "role:*", "*square"])
def test_a_pattern_does_not_stand_for_roles(pattern):
    with pytest.raises(ValueError, match=r"matches no module.*role:contraction"):
        plain(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), exclude=[pattern])


@pytest.mark.parametrize(
    ("groups", "reason"),
    [
        (lambda m: [{"params": m[1].parameters()}, {"params": [m[0].bias]}], "not among"),
        (
            lambda m: [
                {"params": m[1].parameters()},
                {"params": m[0].parameters(), "precondition": False},
            ],
            "precondition=False",
        ),
    ],
)
def test_a_weight_left_out_is_skipped_with_its_reason(groups, reason):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    optimizer = plain(model, groups(model))
    assert list(optimizer.layers) == ["1"]
    assert reason in optimizer.skipped["0"]


@pytest.mark.parametrize("how", ["frozen", "left out", "precondition=False"])
def test_a_bias_that_is_not_trained_along_is_no_part_of_the_covariance(how):
    module = nn.Linear(4, 2).double()
    groups = [{"params": [module.weight]}]
    if how == "frozen":
        module.bias.requires_grad_(False)
    elif how == "precondition=False":
        groups.append({"params": [module.bias], "precondition": False})
    optimizer = plain(module, groups, rank=100)
    inputs = randn(9, 4)
    expected = damped_inverse(inputs.T @ inputs / 9, 1.0)
    bias = module.bias.detach().clone()
    backward(module, inputs)
    optimizer.step()
    assert error(optimizer.inverse(""), expected) < 1e-12
    moved = bias - module.bias.detach()
    if how == "precondition=False":
        assert error(moved, 0.1 * module.bias.grad) < 1e-13
    else:
        assert not moved.any()


def test_a_weight_shared_with_a_module_of_another_kind_is_skipped():
    model = nn.ModuleDict({"embedding": nn.Embedding(7, 4), "head": nn.Linear(4, 7)})
    model["head"].weight = model["embedding"].weight
    with pytest.raises(ValueError, match=r"head: its weight is shared with 'embedding'"):
        plain(model)
    model["body"] = nn.Linear(4, 4)
    optimizer = plain(model)
    assert list(optimizer.layers) == ["body"]
    assert "embedding" in optimizer.skipped["head"]


def test_layers_that_share_a_weight_but_not_the_bias_precondition_the_weight_alone():
    one, two = nn.Linear(4, 3).double(), nn.Linear(4, 3).double()
    two.weight = one.weight
    optimizer = plain(nn.ModuleList([one, two]), rank=100)
    inputs = [randn(9, 4), randn(5, 4, seed=1)]
    for module, x in zip((one, two), inputs, strict=True):
        backward(module, x)
    before = [module.bias.detach().clone() for module in (one, two)]
    optimizer.step()
    joined = torch.cat(inputs)
    assert error(optimizer.inverse("1"), damped_inverse(joined.T @ joined / 14, 1.0)) < 1e-12
    for module, bias in zip((one, two), before, strict=True):
        assert error(bias - module.bias.detach(), 0.1 * module.bias.grad) < 1e-13


def test_one_module_under_two_names_is_one_layer_with_one_hook():
    shared = nn.Linear(4, 4).double()
    model = nn.ModuleDict({"a": shared, "b": shared})
    optimizer = plain(model, rank=100)
    assert len(shared._forward_hooks) == 1
    inputs = randn(9, 4)
    expected = damped_inverse(covariance(rows(shared, inputs)), 1.0)
    backward(model["b"], inputs)
    optimizer.step()
    assert error(inverse_of(optimizer, shared, "a"), expected) < 1e-12


def test_every_layer_has_one_forward_hook_and_no_other_module_any():
    model = two_layers()
    optimizer = plain(model)
    hooked = [name for name, module in model.named_modules() if module._forward_hooks]
    assert hooked == ["0", "5"] == list(optimizer.layers)
    assert all(len(model[int(name)]._forward_hooks) == 1 for name in hooked)


def test_named_parameters_and_groups_of_them_are_taken():
    model = two_layers()
    names = [name for name, _ in model.named_parameters()]
    for params in (
        model.named_parameters(),
        model.parameters(),
        list(model.parameters()),
        [{"params": model.named_parameters()}],
    ):
        optimizer = plain(model, params)
        assert optimizer.param_groups[0]["param_names"] == names
        assert list(optimizer.layers) == ["0", "5"]
        optimizer.remove_hooks()
    assert not hooks_on(model)


def test_frozen_parameters_are_left_out_by_default():
    model = two_layers()
    model[0].requires_grad_(False)
    optimizer = plain(model)
    assert list(optimizer.layers) == ["5"]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


def test_the_wrapper_of_a_compiled_model_is_no_part_of_a_name():
    model = two_layers()
    compiled = torch.compile(model, backend="eager")
    assert list(plain(compiled).layers) == ["0", "5"]
    assert plain(compiled).param_groups[0]["param_names"][0] == "0.weight"


# --- shared and left out -----------------------------------------------------------------------


def test_a_pattern_leaves_out_all_that_is_inside_a_module():
    model = nn.ModuleDict({"body": nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))})
    model["head"] = nn.Linear(3, 3)
    optimizer = plain(model, exclude=["body"])
    assert list(optimizer.layers) == ["head"]
    assert set(optimizer.skipped) == {"body.0", "body.1"}


def test_a_pattern_may_name_one_weight_of_a_module_that_has_several():
    attention = nn.MultiheadAttention(4, 1, kdim=3, vdim=2)
    optimizer = plain(attention, exclude=["k_proj_weight"])
    assert list(optimizer.layers) == ["q_proj_weight", "v_proj_weight", "out_proj"]
    assert "excluded" in optimizer.skipped[""]


def test_a_weight_is_left_out_with_any_module_that_shares_it():
    model = nn.ModuleDict({name: nn.Linear(3, 3) for name in "abc"})
    model["b"].weight = model["a"].weight
    optimizer = plain(model, exclude=["a"])
    assert list(optimizer.layers) == ["c"]
    assert "shared with 'a', which is excluded" in optimizer.skipped["b"]


@pytest.mark.parametrize("other", [nn.Conv2d, nn.ConvTranspose2d])
def test_a_weight_that_is_laid_out_in_two_ways_is_left_out(other):
    """A square one too, whose two layouts have equal sizes."""
    model = nn.ModuleList([nn.Conv2d(4, 4, 3), other(4, 4, 3), nn.Linear(2, 2)])
    model[1].weight = model[0].weight
    layers = list(plain(model).layers)
    assert layers == (["0", "1", "2"] if other is nn.Conv2d else ["2"])


def test_a_bias_of_two_weights_gets_the_plain_update():
    model = nn.ModuleList([nn.Linear(3, 2), nn.Linear(4, 2)])
    model[1].bias = model[0].bias
    assert [layer.bias for layer in plain(model).layers.values()] == [None, None]


def test_a_forward_that_was_replaced_on_the_instance_is_not_trusted():
    model = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    model[0].forward = torch.sin
    optimizer = plain(model)
    assert list(optimizer.layers) == ["1"]
    assert "replaced" in optimizer.skipped["0"]


class Wrapped(nn.parallel.DistributedDataParallel):
    """What is read of a wrapped model, without processes to talk to."""

    def __init__(self, module, processes):
        nn.Module.__init__(self)
        self.module, self.process_group = module, processes


@pytest.mark.parametrize("compiled", [False, True])
def test_wrappers_leave_no_trace_in_the_names(monkeypatch, compiled):
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group: group)
    wrapped = Wrapped(two_layers(), 1)
    optimizer = plain(torch.compile(wrapped) if compiled else wrapped)
    assert list(optimizer.layers) == ["0", "5"]
