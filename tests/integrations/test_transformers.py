"""The ``Trainer`` of transformers."""

import json

import pytest
import torch.nn.functional as F
from torch import nn
from torch.optim import AdamW

from nysact import NysAct
from nysact.integrations import unwrap

from ..loops.training import SETTINGS, assert_same, dense, rows, train
from .training import (
    BUILDERS,
    ENGINE,
    SAMPLES,
    SAVED_AT,
    STEPS,
    KilledError,
    assert_a_kill_changes_nothing,
    dataset,
    model,
)

transformers = pytest.importorskip("transformers")
integration = pytest.importorskip("nysact.integrations.transformers")

pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory:UserWarning")
FACTORIES = {
    "nysact": integration.factory(NysAct, **SETTINGS),
    "adamw": integration.factory(AdamW, preconditioner=ENGINE, lr=0.01, weight_decay=0.1),
}


class Classifier(nn.Module):
    """What the Trainer expects of a model: a loss among its outputs."""

    def __init__(self, inner):
        super().__init__()
        self.model = inner

    def forward(self, inputs, labels):
        outputs = self.model(inputs)
        return {"loss": F.cross_entropy(outputs, labels), "logits": outputs}


class Kill(transformers.TrainerCallback):
    """The machine fails two steps after a checkpoint."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == SAVED_AT + 2:
            raise KilledError


def trainer_of(inner, folder, **options):
    settings = {
        "max_steps": STEPS,
        "per_device_train_batch_size": SAMPLES,
        "save_strategy": "no",
        "train_sampling_strategy": "sequential",
    }
    given = {k: options.pop(k) for k in ("optimizer_cls_and_kwargs", "optimizers") if k in options}
    arguments = transformers.TrainingArguments(
        output_dir=folder, use_cpu=True, report_to=[], disable_tqdm=True, **{**settings, **options}
    )
    pairs = dataset(dtype=next(inner.parameters()).dtype)
    data = [{"inputs": x, "labels": y} for x, y in pairs]
    return transformers.Trainer(Classifier(inner), arguments, train_dataset=data, **given)


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_a_trainer_trains_as_a_plain_loop_does(micro_batches, tmp_path):
    alone = nn.ModuleDict({"model": dense()})
    reference = NysAct(alone, **SETTINGS)
    inner = dense()
    trainer = trainer_of(inner, tmp_path, max_grad_norm=100.0, max_steps=9,
        per_device_train_batch_size=SAMPLES // micro_batches,
        gradient_accumulation_steps=micro_batches, lr_scheduler_type="constant",
    )  # fmt: skip
    trainer.optimizer = NysAct(trainer.model, **SETTINGS)
    trainer.train()
    train(alone, reference, rows(STEPS, SAMPLES)[:9], alone["model"])
    optimizer = unwrap(trainer.optimizer)
    assert optimizer.param_groups[0]["step"] == 9
    assert_same(optimizer, reference, tolerance=1e-4 if micro_batches > 1 else 1e-6)


def run(build, folder, *, seed=0, kill=False, resume=False, inner=model, samples=SAMPLES):
    """Train with a checkpoint, to continue from it."""
    trainer = trainer_of(
        inner(seed),
        folder,
        save_steps=SAVED_AT,
        save_strategy="steps",
        per_device_train_batch_size=samples,
        optimizer_cls_and_kwargs=FACTORIES[build.__name__],
    )
    trainer.add_callback(integration.NysActCallback(trainer))
    if kill:
        trainer.add_callback(Kill())
    trainer.train(resume_from_checkpoint=resume)
    return trainer.optimizer.optimizer


@pytest.mark.parametrize("build", BUILDERS)
def test_a_killed_training_resumes_bit_for_bit(build, tmp_path):
    assert_a_kill_changes_nothing(run, build, tmp_path)


def test_the_factory_spares_biases_from_weight_decay(tmp_path):
    trainer = trainer_of(dense(), tmp_path, optimizer_cls_and_kwargs=FACTORIES["adamw"])
    decays = {
        g["params"][0].ndim: g["weight_decay"] for g in trainer.create_optimizer().param_groups
    }
    assert decays == {2: 0.1, 1: 0.0}


def test_the_factory_may_be_used_twice_and_leaves_its_options_alone(tmp_path):
    pair = integration.factory(NysAct, lr=0.2)
    for _ in range(2):
        trainer = trainer_of(dense(), tmp_path, optimizer_cls_and_kwargs=pair)
        assert trainer.create_optimizer().param_groups[0]["lr"] == 0.2


@pytest.mark.parametrize("name", FACTORIES)
def test_diagnostics_are_logged(name, tmp_path):
    trainer = trainer_of(dense(), tmp_path, optimizer_cls_and_kwargs=FACTORIES[name])
    trainer.add_callback(integration.NysActCallback(trainer, every=5))
    trainer.train()
    logged = [line for line in trainer.state.log_history if "nysact/model.0/damping" in line]
    assert [line["step"] for line in logged] == [5, 10]
    assert 0 < logged[0]["nysact/model.4/trace_captured"] <= 1
    json.dumps(logged)
