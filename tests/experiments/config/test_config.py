import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nysact.experiments.baselines import BASELINES
from nysact.experiments.config import Config
from nysact.experiments.errors import ExperimentError
from tests.experiments.configs import config


def test_options_that_are_not_given_are_the_defaults_of_model_and_optimizer():
    found = config(optimizer={"name": "adamw", "options": {"lr": 0.5}})
    assert found.optimizer.options == {"lr": 0.5, "betas": [0.9, 0.999], "weight_decay": 0.05}
    assert found.model.options["classes"] == 10


def test_configuration_survives_json():
    for name in BASELINES:
        found = config(name, sweep={"batch_size": 3}, batch_size=3)
        assert Config.checked(json.loads(json.dumps(found.model_dump()))) == found


def test_override_changes_what_it_names_and_nothing_else():
    before = config()
    after = before.override(["optimizer.options.lr=3", " data.flip = true "])
    values = before.model_dump()
    values["optimizer"]["options"]["lr"] = 3
    values["data"]["flip"] = True
    assert after.model_dump() == values
    assert before == config()


@given(st.integers(1, 9), st.floats(0.01, 10), st.booleans(), st.sampled_from(["none", "7"]))
def test_overridden_values_are_read_back(batch_size, lr, flip, threads):
    found = config().override(
        [
            f"batch_size={batch_size}",
            f"optimizer.options.lr={lr}",
            f"data.flip={str(flip).lower()}",
            f"threads={threads}",
        ]
    )
    assert (found.batch_size, found.optimizer.options["lr"]) == (batch_size, lr)
    assert (found.data.flip, found.threads) == (flip, None if threads == "none" else 7)


def test_another_optimizer_starts_from_its_own_defaults():
    found = config("nysact").override(["optimizer.options.lr=7", "optimizer.name=adamw"])
    assert found.optimizer.options == config("adamw").optimizer.options
    kept = config("nysact").override(["optimizer.options.lr=7", "optimizer.name=nysact"])
    assert kept.optimizer.options["lr"] == 7


def test_other_data_keeps_what_both_have():
    found = config().override(["data.name=fashion-mnist", "data.crop=2"])
    assert (found.data.train_size, found.data.crop) == (64, 2)
    assert config().override(["data.name=text"]).data.context == 128


def test_steps_take_the_place_of_epochs_and_back():
    found = config().override(["steps=5"])
    assert (found.steps, found.epochs) == (5, None)
    assert found.override(["epochs=3"]).steps is None


MISTAKES = {
    "batchsize=3": "there is no setting 'batchsize': the nearest is 'batch_size'",
    "optimzer.options.lr=1": "'optimzer.options.lr': the nearest is 'optimizer.options.lr'",
    "optimizer.options.damp=1": "the nearest is 'optimizer.options.damping'",
    "optimizer.lr=1": "'optimizer.lr': the nearest is 'optimizer.options.lr'",
    "lr=1": "'lr': the nearest is 'optimizer.options.lr'",
    "model.options.clases=1": "the nearest is 'model.options.classes'",
    "data.flpi=true": "the nearest is 'data.flip'",
    "epochs=ten": "epochs='ten': expected a valid integer",
    "epochs=0": "epochs=0: expected greater than 0",
    "epochs=none": "give epochs or steps",
    "batch_size=3.5": "batch_size=3.5: expected a valid integer",
    "optimizer.options.lr=fast": "NysAct: lr='fast', expected a number",
    "optimizer.options.lr=true": "NysAct: lr=True, expected a number",
    "optimizer.options.rank=1.5": "NysAct: rank=1.5, expected a whole number",
    "optimizer.options.tail=1": "NysAct: tail=1, expected true or false",
    "optimizer.options.sketch=1": "NysAct: sketch=1, expected text",
    "optimizer.name=nysct": "there is no optimizer 'nysct': the nearest is 'nysact'",
    "model.name=resnet33": "there is no model 'resnet33': the nearest is 'resnet32'",
    "model.options.classes=0": "classes=0: expected a whole number from 1 up",
    "data.name=cifar": "data.name is 'cifar': the nearest is 'cifar10'",
    "data.flip=1": "data.flip=1: expected a valid boolean",
    "data.loader=fast": "data.loader='fast': expected 'device' or 'standard'",
    "data.interpolation=nearest": "data.interpolation='nearest': expected 'bilinear' or 'bicubic'",
    "data.validation_size=-1": "data.validation_size=-1: expected greater than or equal to 0",
    "precision=fp8": "precision='fp8': expected 'fp32', 'tf32', 'bf16' or 'fp16'",
    "schedule.name=linear": "schedule.name='linear': expected 'cosine' or 'constant'",
    "optimizer=adam": "optimizer is a section: expected one of its settings: optimizer.name",
    "batch_size": "--set batch_size: expected NAME=VALUE",
    "label_smoothing=1": "label_smoothing=1: expected less than 1",
}


@pytest.mark.parametrize(("assignment", "message"), MISTAKES.items(), ids=MISTAKES)
def test_mistake_is_an_error_that_names_it_and_what_is_right(assignment, message):
    with pytest.raises(ExperimentError) as error:
        config().override([assignment])
    assert message in str(error.value)


def test_list_of_betas_must_have_two_numbers():
    with pytest.raises(ExperimentError, match=r"betas=\[0.9\], expected a list of 2 numbers"):
        config("adamw").override(["optimizer.options.betas=[0.9]"])


def test_mistakes_in_nested_values_name_the_nearest():
    values = config().model_dump()
    values["data"]["flipp"] = True
    with pytest.raises(ExperimentError, match=r"'data\.flipp': the nearest is 'data\.flip'"):
        Config.checked(values)
    with pytest.raises(ExperimentError, match=r"'epoch': the nearest is 'epochs'"):
        Config.checked({**config().model_dump(), "epoch": 1})
    with pytest.raises(ExperimentError, match="optimizer: it is missing"):
        Config.checked({k: v for k, v in config().model_dump().items() if k != "optimizer"})


def test_both_kinds_of_warm_up_are_refused():
    with pytest.raises(ExperimentError, match="warmup_epochs or warmup_steps, not both"):
        config().override(["schedule.warmup_epochs=1", "schedule.warmup_steps=1"])


def test_run_id_tells_runs_apart_but_not_where_their_data_lies():
    base = config()
    assert base.run_id() == config().run_id()
    assert base.run_id().startswith("nysact_digits_seed-0_")
    for assignment in ("seed=1", "optimizer.options.lr=1", "threads=2", "data.flip=true"):
        assert base.override([assignment]).run_id() != base.run_id()
    assert base.override(["data.folder=elsewhere"]).run_id() == base.run_id()
    text = base.override(["data.name=text"])
    assert text.override(["data.folder=elsewhere"]).run_id() != text.run_id()


class Longer(Config):
    """The configuration of a later version."""

    added: int = 3


def test_a_setting_that_is_added_renames_no_run():
    longer = Longer.model_validate(config().model_dump())
    assert longer.run_id() == config().run_id()
    assert longer.model_copy(update={"added": 4}).run_id() != config().run_id()


def test_default_of_an_option_that_changes_is_another_run(monkeypatch):
    before = config("adam").run_id()
    baseline = BASELINES["adam"]
    changed = replace(baseline, defaults={**baseline.defaults, "lr": 0.5})
    monkeypatch.setitem(BASELINES, "adam", changed)
    assert config("adam").run_id() != before


def test_run_id_shows_what_is_varied():
    found = config(sweep={"optimizer.options.lr": 0.3}, row="NysAct, as released")
    assert found.run_id().startswith("nysact-as-released_digits_lr-0.3_seed-0_")
