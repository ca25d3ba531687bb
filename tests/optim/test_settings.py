"""Bad input: a clear error, and nothing changed."""

import math
import re

import pytest
import torch
from torch import nn

from nysact import NysAct, Preconditioner

from ..steps import hooks_on, plain, same, state_of, two_layers, values

BAD_OPTIONS = [
    ({"lr": -0.1}, "lr=-0.1, expected a finite learning rate >= 0"),
    ({"lr": math.nan}, "lr=nan"),
    ({"lr": "fast"}, "lr='fast'"),
    ({"lr": torch.ones(2)}, "one element"),
    ({"lr": torch.tensor(math.nan)}, r"lr=tensor\(nan\), expected a finite learning rate"),
    ({"lr": torch.tensor(-0.1)}, "a finite learning rate >= 0"),
    ({"lr": torch.tensor(1)}, "lr=tensor"),
    ({"nesterov": "False"}, "nesterov='False', expected True or False"),
    ({"maximize": "no"}, "maximize='no', expected True or False"),
    ({"foreach": True, "fused": True}, "foreach=True and fused=True exclude each other"),
    ({"momentum": -0.9}, "momentum=-0.9, expected a number >= 0"),
    ({"weight_decay": -1}, "weight_decay=-1"),
    ({"weight_decay": math.inf}, "weight_decay=inf"),
    ({"damping": 0}, "damping=0, expected a number > 0"),
    ({"damping": -1.0}, "damping=-1.0"),
    ({"damping": math.nan}, "damping=nan"),
    ({"rank": 0}, "rank=0, expected an integer >= 1"),
    ({"rank": -3}, "rank=-3"),
    ({"rank": 2.5}, "rank=2.5"),
    ({"rank": True}, "rank=True"),
    ({"stat_decay": 1.0}, r"stat_decay=1.0, expected a number in \[0, 1\)"),
    ({"stat_decay": -0.1}, "stat_decay=-0.1"),
    ({"cov_interval": 0}, "cov_interval=0, expected an integer >= 1"),
    ({"cov_interval": 2.0}, "cov_interval=2.0"),
    ({"inv_interval": 0}, "inv_interval=0"),
    (
        {"cov_interval": 5, "inv_interval": 12},
        "inv_interval=12 is not a multiple of cov_interval=5",
    ),
    ({"cov_interval": 5, "inv_interval": 1}, "inv_interval=1 is not a multiple"),
    (
        {"sketch": "columsn"},
        r"sketch='columsn', expected one of \('columns', 'gaussian', 'subspace'\)",
    ),
    ({"sketch": None}, "sketch=None"),
    ({"tail": 1}, "tail=1, expected True or False"),
    ({"subsample": 0}, "subsample=0, expected 'auto', or an integer"),
    ({"subsample": "all"}, "subsample='all'"),
    ({"seed": 1.5}, "seed=1.5"),
    ({"max_failures": -1}, "max_failures=-1"),
    ({"damping_scale": "relative"}, "damping_scale='relative', expected one of"),
    ({"power": 0.0}, r"power=0.0, expected a number in \(0, 1\]"),
    ({"power": 1.5}, "power=1.5"),
    ({"power": "half"}, "power=.half., expected a number in .0, 1., or .auto."),
    ({"memory": "short"}, "memory='short', expected one of"),
    ({"update": "adam"}, "update='adam', expected one of"),
    ({"nesterov": True, "momentum": 0}, "nesterov=True needs momentum > 0"),
]
OF_THE_ENGINE = [
    (options, message)
    for options, message in BAD_OPTIONS
    if not options.keys()
    & {"lr", "momentum", "weight_decay", "nesterov", "update", "maximize", "foreach"}
]


def ids(cases):
    return [str(options) for options, _ in cases]


@pytest.fixture
def model():
    """A model of which nothing may have changed when the test is over."""
    model = two_layers()
    before = values(model)
    yield model
    assert not hooks_on(model)
    assert same(values(model), before)


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS, ids=ids(BAD_OPTIONS))
def test_a_bad_option_is_refused_with_its_value_and_what_was_expected(model, options, message):
    with pytest.raises(ValueError, match=message):
        NysAct(model, **options)


@pytest.mark.parametrize(("options", "message"), OF_THE_ENGINE, ids=ids(OF_THE_ENGINE))
def test_the_engine_alone_refuses_the_same(model, options, message):
    with pytest.raises(ValueError, match=message):
        Preconditioner(model, **options)


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS, ids=ids(BAD_OPTIONS))
def test_a_bad_option_of_a_group_is_refused(model, options, message):
    first, *others = model.parameters()
    with pytest.raises(ValueError, match=message):
        NysAct(model, [{"params": others}, {"params": [first], **options}])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("dampening", "unknown parameter group option 'dampening' .* did you mean 'damping'"),
        ("weight_decy", "did you mean 'weight_decay'"),
        ("inverse_interval", "did you mean 'inv_interval'"),
        ("rnak", "did you mean 'rank'"),
    ],
)
def test_a_misspelt_option_of_a_group_is_kept_with_a_warning_that_names_the_nearest(
    option, message
):
    model = two_layers()
    with pytest.warns(UserWarning, match=message):
        optimizer = NysAct(model, [{"params": model.parameters(), option: 1}])
    assert optimizer.param_groups[0][option] == 1


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("dampening", "NysAct has no option 'dampening': did you mean 'damping'"),
        ("inverse_interval", "did you mean 'inv_interval'"),
        ("zzz", "expected one of"),
    ],
)
def test_an_unknown_option_names_the_nearest(model, option, message):
    with pytest.raises(TypeError, match=message):
        NysAct(model, **{option: 1})


PARAMS = {
    "another model's": (lambda m: two_layers().parameters(), ValueError, "not a parameter of the"),
    "one of another model": (
        lambda m: [*m.parameters(), nn.Parameter(torch.zeros(3, 2))],
        ValueError,
        r"shape \(3, 2\), is not a parameter of the model",
    ),
    "in two groups": (
        lambda m: [{"params": m.parameters()}, {"params": [m[5].bias]}],
        ValueError,
        "'5.bias' is given twice",
    ),
    "twice in a group": (
        lambda m: [m[0].weight, m[0].weight],
        ValueError,
        "'0.weight' is given twice",
    ),
    "none": (lambda m: [], ValueError, "params is empty"),
    "one tensor": (lambda m: m[0].weight, TypeError, "params is a Parameter, expected an iterable"),
    "without order": (lambda m: set(m.parameters()), TypeError, "params is a set.* fixed order"),
    "a group without order": (
        lambda m: [{"params": set(m.parameters())}],
        TypeError,
        "params is a set.* fixed order",
    ),
    "a rate": (lambda m: 0.1, TypeError, r"params is a float.*options are keywords, as in lr=0\.1"),
    "one group": (lambda m: {"params": m.parameters()}, TypeError, "params is a dict"),
    "names": (lambda m: ["0.weight"], TypeError, "params holds a str"),
    "a group without params": (lambda m: [{"lr": 0.1}], TypeError, "dict with 'params'"),
}


@pytest.mark.parametrize(("params", "kind", "message"), PARAMS.values(), ids=PARAMS)
@pytest.mark.parametrize("optimizer", [NysAct, Preconditioner])
def test_bad_parameters_are_refused(model, optimizer, params, kind, message):
    with pytest.raises(kind, match=message):
        optimizer(model, params(model))


def test_a_model_without_trainable_parameters_is_refused(model):
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameter: set requires_grad=True"):
        NysAct(model)
    with pytest.raises(ValueError, match="no trainable parameter"):
        NysAct(nn.Sequential(nn.ReLU()))


@pytest.mark.parametrize("params", [lambda m: None, lambda m: m[1].parameters()])
def test_a_model_without_supported_layer_is_refused_and_says_why_of_each(params):
    model = nn.Sequential(nn.Embedding(3, 2), nn.LayerNorm(2))
    with pytest.raises(ValueError, match=r"no layer .* can be preconditioned.*1: .*LayerNorm"):
        NysAct(model, params(model))


def test_a_model_of_which_everything_is_excluded_is_refused(model):
    with pytest.raises(ValueError, match=r"excluded by the pattern '\*'"):
        NysAct(model, exclude=["*"])


@pytest.mark.parametrize("exclude", [["6"], ["0", "head.*"]])
def test_a_pattern_that_matches_nothing_is_refused(model, exclude):
    message = re.escape(f"exclude pattern {exclude[-1]!r} matches no module")
    with pytest.raises(ValueError, match=message):
        NysAct(model, exclude=exclude)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exclude": "0"}, "exclude='0', expected a list of patterns"),
        ({"exclude": None}, "exclude=None, expected a list of patterns"),
        ({"share_refresh": "x"}, "share_refresh='x', expected True, False or None"),
        ({"kl_clip": "no"}, "kl_clip='no', expected a number > 0"),
    ],
)
def test_a_bad_option_of_the_whole_optimizer_is_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        NysAct(model, **options)


@pytest.mark.parametrize(
    "bad", [lambda m: m.parameters(), lambda m: m.state_dict(), lambda m: None]
)
def test_what_is_no_model_is_refused(model, bad):
    message = r"expected an nn\.Module: write NysAct\(model\) in place of NysAct\(model\.parameters"
    with pytest.raises(TypeError, match=message):
        NysAct(bad(model))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", [NysAct, Preconditioner])
def test_data_parallel_is_refused_with_the_remedy(model, kind):
    for wrapped in (nn.DataParallel(model), nn.Sequential(nn.DataParallel(model))):
        with pytest.raises(TypeError, match=r"DistributedDataParallel \(DDP\)"):
            kind(wrapped)


@pytest.mark.parametrize(
    ("group", "kind", "message"),
    [
        (lambda m: {"params": m[0].parameters()}, ValueError, "'0.weight' is given twice"),
        (lambda m: {"params": [nn.Parameter(torch.ones(1))]}, ValueError, "not a parameter"),
        (lambda m: {"params": m[5].parameters(), "rank": 0}, ValueError, "rank=0"),
        (lambda m: m[5].parameters(), TypeError, "a parameter group is a dict"),
    ],
)
def test_a_bad_group_added_later_changes_nothing(group, kind, message):
    model = two_layers()
    optimizer = plain(model, model[0].parameters())
    before, hooks = state_of(optimizer), len(hooks_on(model))
    with pytest.raises(kind, match=message):
        optimizer.add_param_group(group(model))
    assert same(state_of(optimizer), before)
    assert len(hooks_on(model)) == hooks
    assert list(optimizer.layers) == ["0"]


@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0},
        {"lr": torch.tensor(0.1)},
        {"momentum": 0},
        {"damping": 1e-30},
        {"rank": 10**9},
        {"stat_decay": 0},
        {"cov_interval": 7, "inv_interval": 7},
        {"seed": -1},
        {"seed": 2**70},
        {"max_failures": 0},
    ],
    ids=str,
)
def test_values_at_the_border_are_taken(options):
    model = two_layers()
    optimizer = NysAct(model, **options)
    model(torch.ones(2, 2, 6, 6).double()).sum().backward()
    optimizer.step()
    assert all(param.isfinite().all() for param in model.parameters())
