import pandas as pd
import pytest
import torch

from nysact.experiments.bench.candidate import Schedule, candidates
from nysact.experiments.bench.measure import Interleaved, figures, quartiles

from .subjects import CountingClock, workload

SCHEDULE = Schedule(2, 4)
PLAIN = Schedule(0, 0)


def summed_up(seconds, reference, schedule, *, first, cycle):
    kinds = [schedule.kind(first + step) for step in range(len(seconds))]
    return figures(pd.Series(seconds), pd.Series(reference), kinds, cycle)


def test_figures_of_known_times():
    # Steps 3 to 10: plain, refresh, plain, statistics, plain, refresh, plain, statistics.
    seconds = [1.0, 4.0, 1.0, 2.0, 3.0, 12.0, 3.0, 6.0]
    reference = [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]
    found = summed_up(seconds, reference, SCHEDULE, first=3, cycle=4)
    assert found.steps == 8
    assert found.mean == 4.0
    assert found.median == 3.0
    assert found.total == pytest.approx(32 / 12)
    assert found.windows == [2.0, 3.0]
    assert found.window_median == 2.5
    assert found.window_quartiles == (2.25, 2.75)
    assert list(found.kinds) == ["plain", "statistics", "refresh"]
    plain, statistics, refresh = found.kinds.values()
    assert (plain.steps, plain.median, plain.ratio) == (4, 2.0, 1.25)
    assert plain.quartiles == (1.0, 1.5)
    assert (statistics.steps, statistics.median, statistics.ratio) == (2, 4.0, 2.5)
    assert (refresh.steps, refresh.median, refresh.ratio) == (2, 8.0, 5.0)
    assert found.composed == pytest.approx((4 * 1.25 + 2 * 2.5 + 2 * 5.0) / 8)


def test_p99_and_its_ratio_to_the_median():
    seconds = [float(n) for n in range(1, 102)]
    found = summed_up(seconds, [1.0] * 101, PLAIN, first=0, cycle=101)
    assert found.p99 == pytest.approx(100)
    assert found.tail == pytest.approx(100 / 51)


def test_quartiles_are_interpolated():
    assert quartiles(pd.Series([7.0])) == (7.0, 7.0)
    assert quartiles(pd.Series([3.0, 0.0, 2.0, 1.0])) == (0.75, 2.25)


def test_one_disturbed_step_hardly_moves_the_composed_ratio():
    reference = [1.0] * 40
    seconds = [1.1] * 40
    seconds[5] = 100.0
    found = summed_up(seconds, reference, SCHEDULE, first=0, cycle=4)
    assert found.composed == pytest.approx(1.1)
    assert found.total > 3


def test_the_reference_has_ratio_one():
    found = summed_up([1.0, 5.0], [1.0, 5.0], PLAIN, first=0, cycle=1)
    assert found.composed == found.total == found.window_median == 1.0
    assert found.kinds["plain"].quartiles == (1.0, 1.0)


@pytest.mark.parametrize(("steps", "others"), [(0, 0), (6, 6), (8, 7)])
def test_times_of_broken_cycles_are_refused(steps, others):
    with pytest.raises(ValueError, match=f"{steps} steps and {others} .* cycles of 4"):
        summed_up([1.0] * steps, [1.0] * others, SCHEDULE, first=0, cycle=4)


def interleaved(names=("nysact", "adamw")) -> Interleaved:
    return Interleaved(workload(), candidates(list(names)), CountingClock())


def test_all_train_the_same_model_on_the_same_batch():
    trainings = list(interleaved().trainings.values())
    for other in trainings[1:]:
        assert torch.equal(trainings[0].inputs, other.inputs)
        assert torch.equal(trainings[0].targets, other.targets)
        for mine, theirs in zip(
            trainings[0].model.parameters(), other.model.parameters(), strict=True
        ):
            assert torch.equal(mine, theirs)
            assert mine.data_ptr() != theirs.data_ptr()


def test_each_takes_a_step_a_round_and_each_is_timed():
    subject = interleaved()
    before = {name: of.model[1].weight.clone() for name, of in subject.trainings.items()}
    subject.run(5)
    subject.run(2)
    seconds = subject.seconds()
    assert list(seconds) == ["sgd", "nysact", "adamw"]
    assert seconds.shape == (7, 3)
    assert (seconds == 1.0).all(axis=None)
    for name, training in subject.trainings.items():
        assert not torch.equal(training.model[1].weight, before[name])
    assert set(subject.losses()) == set(subject.trainings)


def test_everyone_is_first_in_about_as_many_rounds():
    subject = interleaved()
    rounds = [subject.next_order() for _ in range(300)]
    assert all(sorted(names) == ["adamw", "nysact", "sgd"] for names in rounds)
    for name in subject.trainings:
        assert sum(names[0] == name for names in rounds) == pytest.approx(100, abs=25)


def test_a_step_is_what_the_optimizer_does_alone():
    subject = interleaved(["nysact"])
    alone = interleaved(["nysact"]).trainings["nysact"]
    subject.run(4)
    for _ in range(4):
        alone.step()
    for mine, theirs in zip(
        subject.trainings["nysact"].model.parameters(), alone.model.parameters(), strict=True
    ):
        assert torch.equal(mine, theirs)
