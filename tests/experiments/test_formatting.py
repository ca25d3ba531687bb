import math

import pytest

from nysact.experiments.formatting import (
    describe_settings,
    duration,
    mean_and_std,
    mean_std_text,
    number,
    slug,
)


def test_mean_and_standard_deviation():
    assert mean_and_std([1.0, 2.0, 3.0]) == pytest.approx((2.0, 1.0))
    assert mean_and_std([5.0]) == (5.0, 0.0)
    assert not math.isfinite(mean_and_std([1.0, math.inf])[0])
    assert mean_std_text([1.0, 2.0, 3.0], 2) == "2.00 ± 1.00"
    assert mean_std_text([1.0], 1) == "1.0"
    assert mean_std_text([], 1) == "–"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.9, "0.9"), (5e-4, "5e-4"), (0.003, "3e-3"), (0.00125, "0.00125"), (1.0, "1"), (0, "0"),
     (True, "true"), ("x", "x"), ((0.9, 0.999), "0.9 and 0.999")],
)  # fmt: skip
def test_number_is_short(value, text):
    assert number(value) == text


def test_settings_are_words():
    settings = {"optimizer.options.weight_decay": 5e-4, "lr": 0.1}
    assert describe_settings(settings) == "weight decay 5e-4, lr 0.1"


@pytest.mark.parametrize(
    ("seconds", "text"), [(39.2, "40 s"), (61, "2 min"), (7200, "2 h 00 min"), (7500, "2 h 05 min")]
)
def test_duration_is_rounded_up(seconds, text):
    assert duration(seconds) == text


def test_slug_is_fit_for_a_file_name():
    assert slug("ResNet-32, 100 epochs") == "resnet-32-100-epochs"
    assert slug("../x/..") == "..-x-.."
