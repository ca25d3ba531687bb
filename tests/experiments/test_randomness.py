import random

import numpy
import torch

from nysact.experiments.randomness import (
    mixed,
    random_state,
    seeded,
    set_random_state,
    start_streams,
    stream,
)


def draws() -> tuple[float, ...]:
    numbers = (random.random(), float(numpy.random.rand()), float(numpy.random.randn()))
    return (*numbers, float(torch.rand(())), float(torch.randn(())))


def test_stream_depends_on_all_its_numbers():
    first = torch.rand(3, generator=stream(1, "order", 2))
    assert torch.equal(first, torch.rand(3, generator=stream(1, "order", 2)))
    for other in ((2, "order", 2), (1, "else", 2), (1, "order", 3), (12, "order")):
        assert not torch.equal(first, torch.rand(3, generator=stream(*other)))
    assert mixed(1, 23) != mixed(12, 3)


def test_first_process_has_the_stream_of_the_seed_and_each_other_one_of_its_own():
    with seeded(3):
        first = draws()
    found = []
    for process in range(3):
        with seeded(3):
            start_streams(3, process)
            found.append(draws())
    assert found[0] == first
    for numbers in zip(*found, strict=True):
        assert len(set(numbers)) == 3
    with seeded(9):
        start_streams(3, 1)
        assert draws() == found[1]


def test_restored_state_gives_the_same_draws():
    draws()  # leaves a spare normal number in NumPy's stream
    state = random_state()
    first = draws()
    set_random_state(state)
    assert draws() == first


def test_state_can_be_saved_with_weights_only(tmp_path):
    state = random_state()
    torch.save(state, tmp_path / "state")
    first = draws()
    set_random_state(torch.load(tmp_path / "state", weights_only=True))
    assert draws() == first


def test_seeded_body_draws_the_same_and_leaves_the_streams_alone():
    before = random_state()
    with seeded(7):
        first = draws()
    assert draws() != first
    set_random_state(before)
    outside = draws()
    set_random_state(before)
    with seeded(7):
        assert draws() == first
    assert draws() == outside
