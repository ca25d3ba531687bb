"""Several processes, on gloo or NCCL: what stays equal, what is sent, and what a step costs.

    torchrun --nproc-per-node 2 benchmarks/distributed.py               # about 1 minute on 2 cores
    torchrun --nproc-per-node 8 benchmarks/distributed.py --model resnet50 --batch-size 64   # GPUs

Takes NCCL where there is a GPU for each process. It ends with an error if a check fails:

    replicas    parameters and factors are equal bit for bit, for every sketch, under DDP and HSDP
    union       LeNet-5 in float64 learns under DDP and under FSDP2 what one process learns from the
                union of the batches, to 1e-10
    traffic     a step sends no more than the sketches, their traces and counts once a window
    times       of a step against torch.optim.SGD under DDP, by kind; refreshes computed by every
                process, and shared
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Optimizer

from communication import SCHEMES, Network, Traffic, weights_of
from nysact import FOOF, NysAct
from nysact.distributed import local
from nysact.experiments.models import MODELS, build_model, lenet5
from report import markdown, write_json

SKETCHES = ("columns", "gaussian", "subspace")


def spread(model: nn.Module, how: str, device: torch.device) -> nn.Module:
    """Wrap a model for all processes."""
    model = model.to(device)
    if how == "ddp":
        return DistributedDataParallel(model)
    count = dist.get_world_size()
    if how == "hsdp" and count % 2 == 0:
        shape, names = (2, count // 2), ("replicate", "shard")
    else:
        shape, names = (count,), ("shard",)
    return fully_shard(model, mesh=init_device_mesh(device.type, shape, mesh_dim_names=names))


def batch(
    step: int, samples: int, shape: tuple[int, ...], dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """Noise and classes for all processes, the same on each of them."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(samples, *shape, generator=generator, dtype=torch.float64).to(dtype)
    return inputs, torch.randint(0, 10, (samples,), generator=generator)


def mine(tensors: tuple[Tensor, ...], device: torch.device) -> list[Tensor]:
    """This process's part of a batch."""
    return [t.chunk(dist.get_world_size())[dist.get_rank()].to(device) for t in tensors]


def step(model: nn.Module, optimizer: Optimizer, inputs: Tensor, targets: Tensor) -> None:
    optimizer.zero_grad()
    F.cross_entropy(model(inputs), targets).backward()
    optimizer.step()


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


def parts(optimizer: Optimizer) -> Iterator[Tensor]:
    """What lies in this process of parameters and state."""
    with torch.no_grad():
        for group in optimizer.param_groups:
            for param in group["params"]:
                yield local(param)
                yield from (local(value) for value in optimizer.state[param].values())


def check_replicas(how: str, sketch: str, steps: int, device: torch.device) -> None:
    """Compare the parameters and factors of processes that hold the same rows."""
    model = spread(seeded(lenet5), how, device)
    optimizer = NysAct(model, lr=0.02, sketch=sketch)
    for number in range(steps):
        data = batch(number, 8 * dist.get_world_size(), (1, 32, 32), torch.float32)
        step(model, optimizer, *mine(data, device))
    replicas = None
    if how == "hsdp":
        replicas = next(model.parameters()).device_mesh.get_group("replicate")
    for index, value in enumerate(parts(optimizer)):
        least, most = value.clone(), value.clone()
        dist.all_reduce(least, dist.ReduceOp.MIN, group=replicas)
        dist.all_reduce(most, dist.ReduceOp.MAX, group=replicas)
        if not torch.equal(least, most):
            raise SystemExit(f"{how}, {sketch}: tensor {index} differs between replicas")


def whole(model: nn.Module) -> Tensor:
    values = [param.detach() for param in model.parameters()]
    values = [v.full_tensor() if hasattr(v, "full_tensor") else v for v in values]
    return torch.cat([value.flatten() for value in values])


def union_error(how: str, steps: int, device: torch.device) -> float:
    """Distance of several processes' parameters from those of one, relative to their length."""
    one = seeded(lenet5).double().to(device)
    model = spread(seeded(lenet5).double(), how, device)
    options = {"lr": 0.02, "subsample": 1, "inv_interval": 10}
    alone = NysAct(one, process_group=False, **options)
    together = NysAct(model, **options)
    for number in range(steps):
        # More samples than the rank: of what has none, a basis holds nothing but rounding errors.
        data = batch(number, 16 * dist.get_world_size(), (1, 32, 32), torch.float64)
        step(one, alone, *(tensor.to(device) for tensor in data))
        step(model, together, *mine(data, device))
    return float((whole(model) - whole(one)).norm() / whole(one).norm())


def check_traffic(model: nn.Module, shape: tuple[int, ...], device: torch.device) -> list[str]:
    """Count what two windows send, and hold it against the count on paper."""
    optimizer = NysAct(model)
    group = optimizer.param_groups[0]
    window = group["inv_interval"]
    data = mine(batch(0, 2 * dist.get_world_size(), shape, torch.float32), device)
    step(model, optimizer, *data)
    numbers, size = 0, 0
    for _ in range(window):
        optimizer.zero_grad()
        F.cross_entropy(model(data[0]), data[1]).backward()
        with Traffic() as traffic:
            optimizer.step()
        numbers += sum(map(sum, traffic.numbers.values()))
        size += traffic.bytes
    layers = weights_of(optimizer)
    paper = SCHEMES[0].reduced(Network("", layers, group["rank"], inv_interval=window))
    groups = len({id(layer.pending.window) for layer in optimizer.layers.values()})
    if numbers > window * paper + groups:
        raise SystemExit(f"{numbers / window} numbers a step, expected at most {paper}")
    return [f"{numbers / window:,.0f}", f"{paper:,.0f}", f"{size / window / 1e3:,.1f}"]


def timed(
    model: nn.Module, optimizer: Optimizer, data: list[Tensor], steps: int, interval: int
) -> dict[str, float]:
    """Median seconds of plain steps, of ones with statistics, and of ones that refresh too."""
    seconds: dict[str, list[float]] = {"plain": [], "statistics": [], "refresh": []}
    for number in range(steps):
        if data[0].is_cuda:
            torch.cuda.synchronize()
        dist.barrier()
        start = time.perf_counter()
        step(model, optimizer, *data)
        if data[0].is_cuda:
            torch.cuda.synchronize()
        kind = "plain" if number % 5 else "statistics" if number % interval else "refresh"
        if number >= interval:
            seconds[kind].append(time.perf_counter() - start)
    return {kind: median(values) for kind, values in seconds.items()}


def times(
    make: Callable[[], nn.Module], data: list[Tensor], steps: int, device: torch.device
) -> list[list[str]]:
    """Milliseconds of a step with each optimizer, by kind, as rows of a table."""
    interval = 10
    options = {"lr": 0.01, "cov_interval": 5, "inv_interval": interval}
    candidates: dict[str, Callable[[nn.Module], Optimizer]] = {
        "SGD": lambda model: SGD(model.parameters(), lr=0.01, momentum=0.9),
        "NysAct": lambda model: NysAct(model, **options),
        "NysAct, shared": lambda model: NysAct(model, share_refresh=True, **options),
        "FOOF": lambda model: FOOF(model, **options),
        "FOOF, shared": lambda model: FOOF(model, share_refresh=True, **options),
    }
    rows = []
    for name, build in candidates.items():
        model = spread(seeded(make), "ddp", device)
        found = timed(model, build(model), data, steps, interval)
        rows.append([name, *(f"{1e3 * value:.1f}" for value in found.values())])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet20", choices=sorted(MODELS))
    parser.add_argument("--batch-size", type=int, default=16, help="samples a process")
    parser.add_argument("--steps", type=int, default=50, help="steps of each check and timing")
    parser.add_argument("--cpu", action="store_true", help="gloo, even if there are GPUs")
    parser.add_argument("--json", type=Path, default=Path("runs/distributed.json"))
    args = parser.parse_args()
    rank = int(os.environ["LOCAL_RANK"])
    uses_gpus = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"]) and not args.cpu
    device = torch.device("cuda", rank) if uses_gpus else torch.device("cpu")
    if uses_gpus:
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    dist.init_process_group("nccl" if uses_gpus else "gloo")
    print_here = print if dist.get_rank() == 0 else lambda *_: None
    print_here(f"{dist.get_world_size()} processes, {dist.get_backend()}, {device.type}")

    spreads = ["ddp", "hsdp"] if dist.get_world_size() % 2 == 0 else ["ddp"]
    for how in spreads:
        for sketch in SKETCHES:
            check_replicas(how, sketch, args.steps, device)
    print_here(f"replicas: equal bit for bit after {args.steps} steps, {', '.join(spreads)}")
    errors = {how: union_error(how, args.steps, device) for how in ("ddp", "fsdp")}
    print_here(f"union: relative distance {errors}")
    if max(errors.values()) > 1e-10:
        raise SystemExit("several processes have not learned what one learns from the union")

    model = MODELS[args.model]
    shape = model.sample_shape()
    heads = ["NysAct", "numbers a step", "on paper", "kB a step"]
    sent = []
    for how in ("ddp", "fsdp"):
        wrapped = spread(seeded(lambda: build_model(args.model)), how, device)
        sent.append([how, *check_traffic(wrapped, shape, device)])
    print_here("\n" + markdown(heads, sent))

    data = mine(batch(0, args.batch_size * dist.get_world_size(), shape, torch.float32), device)
    heads = [f"{args.model}, ms a step", "plain", "with statistics", "and a refresh"]
    rows = times(lambda: build_model(args.model), data, max(args.steps, 30), device)
    print_here("\n" + markdown(heads, rows))
    if dist.get_rank() == 0:
        write_json(args.json, {"errors": errors, "sent": sent, "times": rows, **_setting(args)})
    dist.destroy_process_group()


def _setting(args: argparse.Namespace) -> dict[str, object]:
    return {
        "model": args.model,
        "batch_size": args.batch_size,
        "processes": dist.get_world_size(),
        "backend": dist.get_backend(),
    }


if __name__ == "__main__":
    main()
