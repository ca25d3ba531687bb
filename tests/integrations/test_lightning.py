"""Lightning's ``Trainer``."""

import os

import pytest
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler

from nysact import NysAct

from ..loops.training import SETTINGS, assert_same, dense, rows, train
from .training import (
    BUILDERS,
    FIXED_ORDER,
    PROCESSES,
    SAMPLES,
    STEPS,
    KilledError,
    assert_a_kill_changes_nothing,
    dataset,
)

lightning = pytest.importorskip("lightning")
integration = pytest.importorskip("nysact.integrations.lightning")

# Advice for longer trainings than these, and what Lightning calls that torch deprecates.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*number of training batches"),
    pytest.mark.filterwarnings("ignore:The `srun` command is available"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint"),
]


class Module(lightning.LightningModule):
    def __init__(self, inner, build=None):
        super().__init__()
        self.model = inner
        self.build = build

    def training_step(self, batch, _):
        inputs, targets = batch
        return F.cross_entropy(self.model(inputs), targets)

    def validation_step(self, batch, _):
        inputs, targets = batch
        self.log("loss", F.cross_entropy(self.model(inputs), targets))

    def configure_optimizers(self):
        return self.build(self)


class Kill(lightning.Callback):
    """The machine fails two steps after a checkpoint."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == STEPS // 2 + 2:
            raise KilledError


def fit(module, folder, checkpoint=None, count=STEPS, samples=SAMPLES, **options):
    strategy = "ddp_find_unused_parameters_true" if FIXED_ORDER else "ddp"
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=PROCESSES,
        strategy=strategy if PROCESSES > 1 else "auto",
        use_distributed_sampler=False,  # it shuffles
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **{"max_epochs": 1, "logger": False, **options},
    )
    lightning.seed_everything(0, verbose=False)
    data = dataset(count, next(module.parameters()).dtype)
    parts = DistributedSampler(data, PROCESSES, int(os.environ.get("RANK", 0)), shuffle=False)
    loader = DataLoader(data, batch_size=samples, sampler=parts)
    trainer.fit(module, loader, loader, ckpt_path=checkpoint)
    return trainer


@pytest.mark.parametrize("clip", [None, 100.0])
def test_a_trainer_trains_as_a_plain_loop_does(clip, tmp_path):
    alone = nn.ModuleDict({"model": dense()})
    reference = NysAct(alone, **SETTINGS)
    module = Module(dense(), lambda module: NysAct(module, **SETTINGS))
    trainer = fit(module, tmp_path, gradient_clip_val=clip, enable_checkpointing=False, count=9)
    train(alone, reference, rows(9, SAMPLES), alone["model"])
    assert set(reference.layers) == {"model.0", "model.2", "model.4"}
    assert_same(trainer.optimizers[0], reference, tolerance=1e-6)


def run(build, folder, *, seed=0, kill=False, resume=False, inner=dense, samples=SAMPLES):
    """Two epochs with a checkpoint after each, to continue from the first."""
    saves = lightning.pytorch.callbacks.ModelCheckpoint(folder, "{epoch}", save_top_k=-1)
    callbacks = [saves, Kill()] if kill else [saves]
    options = {"count": STEPS // 2, "max_epochs": 2, "callbacks": callbacks, "samples": samples}
    checkpoint = folder / "epoch=0.ckpt" if resume else None
    return fit(Module(inner(seed), build), folder, checkpoint, **options).optimizers[0]


@pytest.mark.parametrize("build", BUILDERS)
def test_a_killed_training_resumes_bit_for_bit(build, tmp_path):
    # Lightning saves no random states, so the model draws nothing.
    assert_a_kill_changes_nothing(run, build, tmp_path)


class Memory(lightning.pytorch.loggers.Logger):
    """Keeps what is logged."""

    name, version = "memory", 0

    def __init__(self):
        super().__init__()
        self.lines = []

    def log_metrics(self, metrics, step=None):
        self.lines.append((step, metrics))

    def log_hyperparams(self, *args, **kwargs): ...


@pytest.mark.parametrize("build", BUILDERS)
def test_diagnostics_are_logged(build, tmp_path):
    logger = Memory()
    callback = integration.NysActCallback(every=4)
    fit(Module(dense(), build), tmp_path, logger=logger, callbacks=[callback],
        accumulate_grad_batches=2, enable_checkpointing=False)  # fmt: skip
    found = [(step, line) for step, line in logger.lines if "nysact/model.0/damping" in line]
    assert [step for step, _ in found] == [4]
    assert 0 < found[0][1]["nysact/model.4/trace_captured"] <= 1
