"""After a fault the parameters are finite, the state loads, and the next steps are right."""

import warnings

import pytest

from ..steps import same, state_of, values
from .faults import (
    FACES,
    INTERVALS,
    SKIPPED,
    InjectedError,
    Training,
    drawn,
    failing_factorisations,
    failing_step,
    keep_finite,
    reset,
    spoiled_activations,
    spoiled_gradients,
)

pytestmark = [
    # A backward hook on a first layer has nothing to do.
    pytest.mark.filterwarnings("ignore:Full backward hook:UserWarning"),
    # After a step that stopped half-way a layer may keep its factors for a window, and says so.
    pytest.mark.filterwarnings("ignore:the factorisation for layer:UserWarning"),
]
BEFORE, AFTER = 3, 3  # steps


def check_sound(training):
    """Everything is finite, and a training that is loaded from the state goes on alike."""
    assert all(value.isfinite().all() for value in training.tensors())
    check_alike(training, training.reloaded())


def check_alike(*trainings):
    for step in range(AFTER):
        for each in trainings:
            each.step(50 + step)
    first, *others = trainings
    for other in others:
        assert same(values(other.model), values(first.model))
        assert same(state_of(other.optimizer), state_of(first.optimizer))
    assert all(value.isfinite().all() for value in first.tensors())
    ages = [known["refresh_age"] for known in first.optimizer.diagnostics().values()]
    assert all(age is not None and age < AFTER for age in ages)


def prepared(face, seed):
    trainings = Training(face), Training(face)
    for step in range(drawn(face, seed, "before").randrange(BEFORE + 1)):
        for each in trainings:
            each.step(step)
    return trainings


def check_skipped(kind, face, seed):
    """A batch that failed and was skipped leaves no trace: a twin never saw it."""
    training, undisturbed = prepared(face, seed)
    draw = drawn(kind, face, seed)
    try:
        SKIPPED[kind](training, 40, draw)
        raised = False
    except InjectedError:
        raised = True
    assert raised != ("NaN" in kind)
    reset(training, draw)
    if face == "SKFAC":  # An abandoned call moves the next to other rows of its random sketch.
        training.step(41)
        check_sound(training)
    else:
        check_alike(training, undisturbed)


def check_kept(fault, face, seed):
    """A spoiled batch whose gradients were made finite is used, without its statistics."""
    training, _ = prepared(face, seed)
    fault(training, 40, drawn(fault.__name__, face, seed))
    keep_finite(training)
    training.optimizer.step()
    check_sound(training)


def check_step(face, seed):
    """A step that failed half-way raises what it met, and those after it are sound."""
    training, twin = prepared(face, seed)
    with pytest.raises(InjectedError):
        failing_step(training, twin, 40, drawn("step", face, seed))
    check_sound(training)


def check_factorisations(face, seed):
    """Factorisations that failed are retried in float64, or the previous factors stay in use."""
    training, _ = prepared(face, seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        failing_factorisations(training, 40, drawn("factorisation", face, seed))
    reports = [str(each.message) for each in caught if "factorisation" in str(each.message)]
    assert all("previous factors stay in use" in report for report in reports)
    assert all(value.isfinite().all() for value in training.tensors())
    # What was made for a step from sound factors is not saved: it goes with the next ones.
    for step in range(41, 41 + INTERVALS["inv_interval"]):
        training.step(step)
    check_sound(training)


CHECKS = {
    **{f"{kind}, skipped": (lambda *a, kind=kind: check_skipped(kind, *a)) for kind in SKIPPED},
    "NaN or infinity in activations, kept": lambda *a: check_kept(spoiled_activations, *a),
    "NaN or infinity in gradients, kept": lambda *a: check_kept(spoiled_gradients, *a),
    "an exception at any operation of a step": check_step,
    "failed factorisations": check_factorisations,
}


@pytest.mark.parametrize("kind", CHECKS)
@pytest.mark.parametrize("face", FACES)
def test_a_fault_does_no_harm(face, kind):
    CHECKS[kind](face, 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CHECKS)
@pytest.mark.parametrize("face", FACES)
def test_many_faults_do_no_harm(face, kind):
    for seed in range(1, 21):
        CHECKS[kind](face, seed)
