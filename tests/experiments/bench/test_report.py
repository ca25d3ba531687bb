import pytest

from nysact.experiments.baselines import BASELINES
from nysact.experiments.bench.report import COLUMNS, NEAREST, ROWS, lines, reported
from nysact.experiments.models import MODELS


def test_every_line_is_of_a_model_and_an_optimizer_that_there_are():
    assert set(COLUMNS) <= set(MODELS)
    for model in COLUMNS:
        assert {"kfac", "eva", "foof", "nysact-columns"} <= set(lines(model)) <= set(BASELINES)
    assert set(NEAREST) <= set(BASELINES)
    assert set(NEAREST.values()) <= set(ROWS)


@pytest.mark.parametrize(
    ("model", "optimizer", "expected"),
    [
        ("resnet32", "kfac", (2.29, 1.05)),
        ("resnet110", "nysact-gaussian", (1.36, 1.00)),
        ("densenet121-cifar", "foof", (1.67, 1.04)),
        ("resnet50", "eva", (1.02, 1.00)),
        ("deit-s", "nysact", (1.03, 1.00)),
        ("resnet32", "released-gaussian", (1.33, 1.00)),
    ],
)
def test_ratios_of_the_paper(model, optimizer, expected):
    assert reported(model, optimizer) == expected


@pytest.mark.parametrize(("model", "optimizer"), [("resnet50", "nysact-gaussian"), ("mlp", "foof")])
def test_what_the_paper_does_not_have(model, optimizer):
    assert reported(model, optimizer) is None
