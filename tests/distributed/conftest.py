"""Worlds of processes, each started when the first test asks for it."""

import pytest

from .workers import Workers


def world(count):
    workers = Workers(count)
    yield workers
    workers.close()


@pytest.fixture(scope="session")
def two():
    yield from world(2)


@pytest.fixture(scope="session")
def four():
    yield from world(4)
