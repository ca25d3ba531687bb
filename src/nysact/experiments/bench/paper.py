"""Time and peak memory relative to SGD, as the NysAct paper reports them.

Seung, Lee and Ko, IEEE BigData 2024, measured on GPUs: table 3 (CIFAR, batch 128) and table 6
(ImageNet, batch 1,024).
"""

from collections.abc import Mapping
from typing import NamedTuple


class Ratio(NamedTuple):
    """Relative to SGD: time of training, and peak memory."""

    time: float
    memory: float


TABLES: Mapping[str, str] = {
    "resnet32": "table 3",
    "resnet110": "table 3",
    "densenet121-cifar": "table 3",
    "resnet50": "table 6",
    "deit-s": "table 6",
}
RATIOS: Mapping[str, Mapping[str, Ratio]] = {
    "resnet32": {
        "kfac": Ratio(2.29, 1.05),
        "eva": Ratio(1.77, 1.00),
        "foof": Ratio(1.52, 1.04),
        "nysact-gaussian": Ratio(1.33, 1.00),
        "nysact-columns": Ratio(1.40, 1.00),
    },
    "resnet110": {
        "kfac": Ratio(2.45, 1.09),
        "eva": Ratio(1.71, 1.00),
        "foof": Ratio(1.55, 1.06),
        "nysact-gaussian": Ratio(1.36, 1.00),
        "nysact-columns": Ratio(1.31, 1.00),
    },
    "densenet121-cifar": {
        "kfac": Ratio(2.18, 1.05),
        "eva": Ratio(1.24, 1.00),
        "foof": Ratio(1.67, 1.04),
        "nysact-gaussian": Ratio(1.22, 1.00),
        "nysact-columns": Ratio(1.19, 1.00),
    },
    "resnet50": {
        "kfac": Ratio(1.21, 1.02),
        "eva": Ratio(1.02, 1.00),
        "foof": Ratio(1.25, 1.01),
        "nysact-columns": Ratio(1.06, 1.00),
    },
    "deit-s": {
        "kfac": Ratio(1.37, 1.03),
        "eva": Ratio(1.01, 1.00),
        "foof": Ratio(1.11, 1.02),
        "nysact-columns": Ratio(1.03, 1.00),
    },
}
# The line of the paper that a variant of NysAct stands beside.
SAME_AS: Mapping[str, str] = {
    "nysact": "nysact-columns",
    "released-columns": "nysact-columns",
    "released-gaussian": "nysact-gaussian",
}


def reported(model: str, optimizer: str) -> Ratio | None:
    """Look up what the paper reports; this library's NysAct stands beside its nearest variant."""
    return RATIOS.get(model, {}).get(SAME_AS.get(optimizer, optimizer))
