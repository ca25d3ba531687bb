import pytest
import torch

from nysact.experiments.bench.candidate import candidates
from nysact.experiments.bench.measure import Interleaved

from .subjects import CountingClock, workload


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
