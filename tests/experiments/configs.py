"""Small configurations for tests."""

from typing import Any

from nysact.experiments.config import Config


def config(name: str = "nysact", **changes: Any) -> Config:
    """Two epochs of four steps on digits."""
    values = {
        "recipe": "test",
        "row": name,
        "column": "digits",
        "model": {"name": "digits"},
        "data": {"name": "digits", "train_size": 64, "test_size": 50},
        "optimizer": {"name": name},
        "batch_size": 16,
        "epochs": 2,
        "threads": 1,
    }
    return Config.checked({**values, **changes})
