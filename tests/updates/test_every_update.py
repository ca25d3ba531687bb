"""Every curvature with every update: one state dict, groups that choose, loops of every kind."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from nysact import FOOF, KFAC, SKFAC, Eva, NysAct, NysAdamW, NysMuon

from ..loops.test_schedulers import SCHEDULERS
from ..loops.test_schedulers import build as build_scheduler
from ..oracles import randn

SETTINGS = {"lr": 0.02, "cov_interval": 2, "inv_interval": 4}
FACES = [NysAct, FOOF, KFAC, Eva, SKFAC, NysMuon, NysAdamW]
UPDATES = ["sgd", "adamw", "muon"]
every_face = pytest.mark.parametrize("face", FACES)
pair = pytest.mark.parametrize("face", [NysMuon, NysAdamW])
every_update = pytest.mark.parametrize("update", UPDATES)


class Network(nn.Module):
    """A convolution, a norm, hidden matrices and a head."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 4, 3, stride=2, groups=2)
        self.hidden = nn.Linear(36, 8)
        self.head = nn.Linear(8, 3)
        self.to(dtype)

    def forward(self, inputs):
        inner = torch.tanh(self.norm(self.convolution(inputs)))
        inner = torch.tanh(self.grouped(inner)).flatten(1)
        return self.head(torch.tanh(self.hidden(inner)))


def loss_of(model, step, samples=8, dtype=torch.float32):
    inputs = randn(samples, 1, 8, 8, seed=step, dtype=dtype)
    return F.cross_entropy(model(inputs), torch.arange(samples) % 3)


def run(model, optimizer, steps, loss=loss_of):
    found = []
    for step in steps:
        optimizer.zero_grad()
        value = loss(model, step)
        value.backward()
        optimizer.step()
        found.append(value.item())
    return found


def learned(optimizer):
    found = [p.detach() for group in optimizer.param_groups for p in group["params"]]
    return [*found, *(v for state in optimizer.state.values() for v in state.values())]


def same(left, right):
    pairs = zip(learned(left), learned(right), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


@every_face
@every_update
def test_every_curvature_with_every_update_trains_and_resumes_bit_for_bit(face, update):
    settings = {**SETTINGS, "lr": 0.002, "update": update}
    model, fresh = Network(), Network()
    optimizer, restored = face(model, **settings), face(fresh, **settings)
    first = sum(run(model, optimizer, [0] * 2))
    run(model, optimizer, range(9))
    fresh.load_state_dict(model.state_dict())
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each, chosen in ((model, optimizer), (fresh, restored)):
        run(each, chosen, range(9, 15))
    assert same(optimizer, restored)
    assert sum(run(model, optimizer, [0] * 2)) < first


@pytest.mark.parametrize("update", UPDATES)
def test_a_state_dict_of_another_update_is_refused(update):
    other = UPDATES[UPDATES.index(update) - 1]
    optimizer = NysAct(Network(), update=update)
    saved = NysAct(Network(), update=other).state_dict()
    with pytest.raises(ValueError, match=r"update=|parameter groups of"):
        optimizer.load_state_dict(saved)


# --- which update each parameter gets --------------------------------------------------------


def test_the_reason_of_every_parameters_update_is_told():
    assert NysMuon(Network()).updates == {
        "convolution.weight": "muon: a convolution",
        "convolution.bias": "adamw: a bias",
        "norm.weight": "adamw: a parameter of BatchNorm2d, which is not a linear map",
        "norm.bias": "adamw: a parameter of BatchNorm2d, which is not a linear map",
        "grouped.weight": "muon: a convolution",
        "grouped.bias": "adamw: a bias",
        "hidden.weight": "muon: a hidden matrix",
        "hidden.bias": "adamw: a bias",
        "head.weight": "adamw: the last layer: the head",
        "head.bias": "adamw: a bias",
    }
    assert set(NysAdamW(Network()).updates.values()) == {"adamw: the default of every parameter"}


class Tied(nn.Module):
    """A language model whose head is its embedding."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(7, 6)
        self.hidden = nn.Linear(6, 6)
        self.head = nn.Linear(6, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(torch.tanh(self.hidden(self.embedding(tokens))))


def tied_loss(model, step):
    tokens = (torch.arange(8) * (step + 1)) % 7
    return F.cross_entropy(model(tokens), tokens)


def test_a_weight_that_is_tied_to_an_embedding_gets_adamw_and_one_state():
    model = Tied()
    optimizer = NysMuon(model, **SETTINGS)
    assert optimizer.updates["embedding.weight"] == "adamw: an embedding, or tied to one"
    losses = run(model, optimizer, [0] * 9, tied_loss)
    assert losses[-1] < losses[0]
    assert model.head.weight is model.embedding.weight


def test_a_patch_embedding_and_single_rows_get_adamw():
    layers = [nn.Conv2d(1, 8, 4, stride=4), nn.Flatten(), nn.Linear(32, 1), nn.Linear(1, 3)]
    updates = NysMuon(nn.Sequential(*layers)).updates
    assert updates["0.weight"] == "adamw: the first layer: a patch embedding"
    assert updates["2.weight"] == "adamw: its matrices are vectors"


def test_a_group_chooses_its_update():
    model = Network()
    groups = [
        {"params": [model.hidden.weight], "update": "sgd", "lr": 0.5},
        {"params": [model.head.weight], "update": "muon"},
        {"params": [model.grouped.weight], "update": "adamw", "betas": (0.5, 0.6)},
        {"params": [model.convolution.weight, *model.norm.parameters()]},
    ]
    optimizer = NysMuon(model, groups)
    kinds = [(group["update"], len(group["params"])) for group in optimizer.param_groups]
    assert kinds == [("sgd", 1), ("muon", 1), ("adamw", 1), ("muon", 1), ("adamw", 2)]
    assert optimizer.updates["head.weight"] == "muon: chosen by its parameter group"
    run(model, optimizer, range(3))
    assert "exp_avg" in optimizer.state[model.grouped.weight]
    assert "momentum_buffer" in optimizer.state[model.hidden.weight]


@pytest.mark.parametrize("name", ["norm.weight", "hidden.bias"])
def test_muon_for_a_vector_is_refused_with_the_remedy(name):
    model = Network()
    group = {"params": [model.get_parameter(name)], "update": "muon"}
    with pytest.raises(ValueError, match=r"update='muon' for .* put it into .* update='adamw'"):
        NysAct(model, [{"params": [model.hidden.weight]}, group])


def test_an_unknown_update_is_refused():
    with pytest.raises(ValueError, match="update='lion', expected one of"):
        NysAct(Network(), update="lion")


# --- options ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SCHEDULERS, ids=lambda kind: kind.__name__)
@pair
def test_every_scheduler_drives_every_group_as_it_drives_adamws(face, kind):
    model = Network()
    optimizer = face(model, **SETTINGS)
    groups = [
        {"params": [nn.Parameter(torch.ones(1))], "lr": group["lr"]}
        for group in optimizer.param_groups
    ]
    adamw = torch.optim.AdamW(groups)
    schedulers = build_scheduler(kind, optimizer), build_scheduler(kind, adamw)
    rates = set()
    for step in range(8):
        run(model, optimizer, [step])
        adamw.step()
        for scheduler in schedulers:
            scheduler.step(*([1.0 + step] if kind is ReduceLROnPlateau else []))
        for mine, theirs in zip(optimizer.param_groups, adamw.param_groups, strict=True):
            assert mine["lr"] == theirs["lr"]
            assert face is NysMuon or mine["betas"] == theirs["betas"]
        rates.add(optimizer.param_groups[0]["lr"])
    assert len(rates) > 1


def test_sparse_gradients_go_to_sgd():
    def model():
        return nn.Sequential(nn.Embedding(7, 6, sparse=True), nn.Linear(6, 6), nn.Linear(6, 3))

    tokens, refused, served = torch.arange(7), model(), model()
    optimizer = NysMuon(refused)
    refused(tokens).sum().backward()
    with pytest.raises(ValueError, match=r"sparse=False, .* update='sgd'"):
        optimizer.step()
    groups = [{"params": served[0].weight, "update": "sgd", "momentum": 0, "nesterov": False}]
    optimizer = NysMuon(served, [*groups, {"params": served[1:].parameters()}])
    before = served[0].weight.detach().clone()
    served(tokens).sum().backward()
    optimizer.step()
    assert not torch.equal(served[0].weight, before)


@pair
def test_fused_kernels_take_the_steps_of_the_others(face):
    fused, plain = Network(), Network()
    run(fused, face(fused, fused=True, **SETTINGS), range(4))
    run(plain, face(plain, foreach=False, **SETTINGS), range(4))
    for mine, theirs in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


@every_face
def test_what_muon_leaves_out_has_a_rate_of_its_own_under_every_curvature(face):
    optimizer = face(Network(), update="muon", lr=0.3)
    rates = {group["update"]: group["lr"] for group in optimizer.param_groups}
    assert rates == {"muon": 0.3, "adamw": 3e-3}


def test_clipping_acts_on_the_groups_of_sgd_alone():
    def moves(bound):
        model = Network()
        groups = [
            {"params": [model.hidden.weight], "update": "sgd"},
            {"params": [model.grouped.weight], "update": "muon"},
            {"params": [model.head.weight], "update": "adamw"},
        ]
        before = [group["params"][0].detach().clone() for group in groups]
        run(model, NysAct(model, groups, kl_clip=bound), range(1))
        pairs = zip(groups, before, strict=True)
        return [group["params"][0].detach() - value for group, value in pairs]

    free, bound = moves(None), moves(1e-9)
    assert bound[0].norm() < 0.1 * free[0].norm()
    assert torch.equal(bound[1], free[1])
    assert torch.equal(bound[2], free[2])


# --- loops -----------------------------------------------------------------------------------


@pair
def test_micro_batches_give_the_update_of_their_union(face):
    whole, parts = (Network(torch.float64).eval() for _ in range(2))
    # Of eight rows: at a higher rank some directions of the sketch would be rounding alone.
    settings = {**SETTINGS, "rank": 4, "subsample": 1}
    reference, optimizer = face(whole, **settings), face(parts, **settings)
    for step in range(6):
        inputs, targets = randn(8, 1, 8, 8, seed=step), torch.arange(8) % 3
        for model, chosen, sizes in ((whole, reference, 8), (parts, optimizer, [3, 1, 4])):
            chosen.zero_grad()
            for x, y in zip(inputs.split(sizes), targets.split(sizes), strict=True):
                (F.cross_entropy(model(x), y, reduction="sum") / 8).backward()
            chosen.step()
    for mine, theirs in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-7)


@pair
def test_a_closure_does_what_the_lines_of_a_loop_do(face):
    model, alone = Network(), Network()
    optimizer, reference = face(model, **SETTINGS), face(alone, **SETTINGS)
    for step in range(6):

        def closure(step=step):
            optimizer.zero_grad()
            loss = loss_of(model, step)
            loss.backward()
            return loss

        optimizer.step(closure)
    run(alone, reference, range(6))
    assert same(optimizer, reference)


@pair
def test_a_scaler_skips_and_scales_without_a_trace(face):
    model, alone = Network(), Network()
    optimizer, reference = face(model, **SETTINGS), face(alone, **SETTINGS)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=100)
    for step in range(6):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, step)).backward()
        if step == 3:
            model.hidden.weight.grad[0, 0] = torch.inf
        before = [p.detach().clone() for p in model.parameters()]
        scaler.step(optimizer)
        scaler.update()
        unmoved = zip(before, model.parameters(), strict=True)
        assert all(torch.equal(*each) for each in unmoved) == (step == 3)
    run(alone, reference, [0, 1, 2, 4, 5])
    assert optimizer.param_groups[0]["step"] == reference.param_groups[0]["step"] == 5


@pytest.mark.parametrize("face", [NysMuon, pytest.param(NysAdamW, marks=pytest.mark.slow)])
def test_a_compiled_model_trains_as_an_eager_one(face):
    model, alone = Network(torch.float64), Network(torch.float64)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager")
    optimizer, reference = face(compiled, **SETTINGS), face(alone, **SETTINGS)

    def loss(net, step):
        return loss_of(net, step, dtype=torch.float64)

    run(compiled, optimizer, range(6), loss)
    run(alone, reference, range(6), loss)
    for mine, theirs in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-7)


@pair
def test_autocast_keeps_updates_in_the_dtype_of_the_weights(face):
    model = Network()
    optimizer = face(model, **SETTINGS)

    def loss(net, step):
        with torch.autocast("cpu", torch.bfloat16):
            return loss_of(net, step)

    run(model, optimizer, [0] * 9, loss)
    values = learned(optimizer)
    assert all(v.isfinite().all() for v in values)
    assert {v.dtype for v in values if v.is_floating_point()} == {torch.float32}
