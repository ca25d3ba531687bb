"""The labels by which a profiler tells the phases of a step apart."""

from itertools import groupby

from torch.profiler import profile

from ..steps import images, plain, two_layers

STEP = ["nysact.capture", "nysact.reduce", "nysact.refresh", "nysact.apply", "nysact.update"]


def test_a_profiled_step_shows_its_phases_in_order():
    model = two_layers()
    optimizer = plain(model)
    with profile() as seen:
        model(images()).sum().backward()
        optimizer.step()
    labels = [event for event in seen.events() if event.name.startswith("nysact.")]
    labels.sort(key=lambda event: event.time_range.start)
    # Calls are captured in the forward and the backward pass too.
    assert [name for name, _ in groupby(event.name for event in labels)] == STEP
    assert len(labels) > len(STEP)
