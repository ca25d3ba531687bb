"""Training frameworks that own the loop: Accelerate, Lightning and the Trainer of transformers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nysact import NysAct

from .training import SETTINGS, assert_same, dense, learned, rows, train

SAMPLES = 8


def wrapped():
    """A model whose layers are called as in the frameworks' wrappers: probes depend on names."""
    return nn.ModuleDict({"model": dense()})


def dataset(count):
    data = rows(count, SAMPLES)
    return TensorDataset(torch.cat([x for x, _ in data]), torch.cat([y for _, y in data]))


# --- Accelerate ---------------------------------------------------------------------------------


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_accelerate_trains_as_a_plain_loop_does(micro_batches):
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=micro_batches)
    model, alone = dense(), dense()
    reference = NysAct(alone, **SETTINGS)
    loader = DataLoader(dataset(9), batch_size=SAMPLES // micro_batches)
    prepared, optimizer, loader = accelerator.prepare(model, NysAct(model, **SETTINGS), loader)
    for inputs, targets in loader:
        with accelerator.accumulate(prepared):
            accelerator.backward(F.cross_entropy(prepared(inputs), targets))
            accelerator.clip_grad_norm_(prepared.parameters(), 100.0)
            optimizer.step()
            optimizer.zero_grad()
    train(alone, reference, rows(9, SAMPLES))
    assert reference.param_groups[0]["step"] == optimizer.optimizer.param_groups[0]["step"] == 9
    assert_same(optimizer.optimizer, reference, tolerance=1e-4 if micro_batches > 1 else 1e-6)


def test_accelerate_saves_and_loads(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    model = dense()
    model, optimizer = accelerator.prepare(model, NysAct(model, **SETTINGS))
    train(model, optimizer, rows(7))
    accelerator.save_state(tmp_path)
    before = learned(optimizer.optimizer)
    train(model, optimizer, rows(3, seed=2))
    accelerator.load_state(tmp_path)
    after = learned(optimizer.optimizer)
    assert all(torch.equal(after[name], value) for name, value in before.items())


# --- Lightning ----------------------------------------------------------------------------------


def lightning_module(lightning):
    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = dense()

        def training_step(self, batch, _):
            inputs, targets = batch
            return F.cross_entropy(self.model(inputs), targets)

        def validation_step(self, batch, _):
            inputs, targets = batch
            self.log("loss", F.cross_entropy(self.model(inputs), targets))

        def configure_optimizers(self):
            return NysAct(self, **SETTINGS)

    return Module()


def fit(lightning, module, folder, epochs, checkpoint=None, **options):
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )
    loader = DataLoader(dataset(9), batch_size=SAMPLES)
    trainer.fit(module, loader, loader, ckpt_path=checkpoint)
    return trainer


# Advice for longer trainings than these, and what Lightning calls that the framework deprecates.
QUIET = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*number of training batches"),
    pytest.mark.filterwarnings("ignore:The `srun` command is available"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint"),
]


def quiet(test):
    for mark in QUIET:
        test = mark(test)
    return test


@quiet
@pytest.mark.parametrize("clip", [None, 100.0])
def test_lightning_trains_as_a_plain_loop_does(clip, tmp_path):
    lightning = pytest.importorskip("lightning")
    module, alone = lightning_module(lightning), wrapped()
    reference = NysAct(alone, **SETTINGS)
    trainer = fit(
        lightning, module, tmp_path, 1, gradient_clip_val=clip, enable_checkpointing=False
    )
    train(alone, reference, rows(9, SAMPLES), alone["model"])
    assert set(reference.layers) == {"model.0", "model.2", "model.4"}
    assert_same(trainer.optimizers[0], reference, tolerance=1e-6)


@quiet
def test_lightning_resumes_bit_for_bit(tmp_path):
    lightning = pytest.importorskip("lightning")
    straight = lightning_module(lightning)
    whole = fit(lightning, straight, tmp_path / "a", 2, enable_checkpointing=False)
    half = fit(lightning, lightning_module(lightning), tmp_path / "b", 1)
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed = lightning_module(lightning)
    rest = fit(
        lightning, resumed, tmp_path / "c", 2, tmp_path / "half.ckpt", enable_checkpointing=False
    )
    assert rest.global_step == whole.global_step == 18
    assert_same(rest.optimizers[0], whole.optimizers[0])


# --- transformers -------------------------------------------------------------------------------


class Classifier(nn.Module):
    """What the Trainer expects of a model: a loss among its outputs."""

    def __init__(self):
        super().__init__()
        self.model = dense()

    def forward(self, inputs, labels):
        outputs = self.model(inputs)
        return {"loss": F.cross_entropy(outputs, labels), "logits": outputs}


@pytest.mark.parametrize("micro_batches", [1, 4])
@pytest.mark.filterwarnings("ignore:.*pin_memory:UserWarning")
def test_the_trainer_of_transformers_trains_as_a_plain_loop_does(micro_batches, tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    data = dataset(9)
    model, alone = Classifier(), wrapped()
    optimizer, reference = NysAct(model, **SETTINGS), NysAct(alone, **SETTINGS)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    arguments = transformers.TrainingArguments(
        output_dir=tmp_path,
        use_cpu=True,
        per_device_train_batch_size=SAMPLES // micro_batches,
        gradient_accumulation_steps=micro_batches,
        num_train_epochs=1,
        max_grad_norm=100.0,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        train_sampling_strategy="sequential",
    )
    trainer = transformers.Trainer(
        model,
        arguments,
        train_dataset=[{"inputs": x, "labels": y} for x, y in data],
        optimizers=(optimizer, scheduler),
    )
    trainer.train()
    train(alone, reference, rows(9, SAMPLES), alone["model"])
    assert optimizer.param_groups[0]["step"] == 9
    assert_same(optimizer, reference, tolerance=1e-4 if micro_batches > 1 else 1e-6)
