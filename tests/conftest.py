"""Settings of every test: seeded draws, a global random state left as it was, no deadlines."""

import os

import pytest
import torch
from hypothesis import settings

# No deadline: a busy machine is no failure. In CI the examples are the same on every run.
COMMON = {"deadline": None, "derandomize": bool(os.environ.get("CI")), "print_blob": True}
settings.register_profile("fast", max_examples=30, **COMMON)
settings.register_profile("thorough", max_examples=100, **COMMON)
settings.load_profile("fast")


@pytest.fixture(autouse=True)
def _random_state():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def pytest_runtest_setup(item):
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
