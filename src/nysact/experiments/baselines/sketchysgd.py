"""SketchySGD: a low-rank Nystrom approximation of the minibatch Hessian."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nysact.experiments.baselines.optimizer import Needs, OwnOptimizer, buffer_of, check_positive


class SketchySGD(OwnOptimizer):
    """SGD with momentum, preconditioned by ``(H + rho I)^-1`` with H of low rank.

    From Frangella, Rathore, Zhao and Udell, "SketchySGD: Reliable stochastic optimization via
    randomized curvature estimates" (SIAM Journal on Mathematics of Data Science, 2024). Every
    ``update_interval`` steps, ``rank`` Hessian-vector products on the batch sketch its Hessian
    for a randomised Nystrom approximation ``V diag(l) V^T``. Where the Hessian is indefinite, the
    sketch is shifted until it can be factorised, as in the authors' experiments with networks.

    In those steps the gradients must carry their graph: :attr:`needs` tells when. The momentum
    buffer, divided by ``1 - momentum^t`` as in the authors' code, is preconditioned, and the weight
    decay is added. All groups share one approximation. ``seed`` is that of the test matrices; the
    global random stream is not touched.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.03,
        *,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        rank: int = 10,
        rho: float = 1.0,
        update_interval: int = 50,
        seed: int = 0,
    ) -> None:
        check_positive(rho=rho, rank=rank, update_interval=update_interval)
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "rank": rank}
        sketch = {"rho": rho, "update_interval": update_interval, "seed": seed}
        super().__init__(params, {**defaults, **sketch})

    @property
    def needs(self) -> Needs:
        """What the next step needs: the graph if it renews the approximation."""
        group = self.param_groups[0]
        return Needs.GRADIENT if group["step"] % group["update_interval"] else Needs.GRAPH

    def update(self) -> None:
        """Renew the approximation where it is due, and step."""
        params = [param for _, param in self.with_gradient()]
        if self.needs is Needs.GRAPH:
            self._approximate(params)
        for group, param in self.with_gradient():
            assert param.grad is not None
            buffer = buffer_of(self.state[param], param)
            buffer.mul_(group["momentum"]).add_(param.grad.detach())
        coordinates = self._coordinates(params)
        for group, param in self.with_gradient():
            state = self.state[param]
            direction = state["momentum_buffer"] / group["rho"]
            direction += torch.tensordot(coordinates.to(param), state["basis"], dims=1)
            direction /= 1 - group["momentum"] ** (group["step"] + 1)
            direction.add_(param, alpha=group["weight_decay"])
            param.add_(direction, alpha=-group["lr"])

    def _approximate(self, params: Sequence[Tensor]) -> None:
        """Sketch the Hessian and keep the eigenpairs of the Nystrom approximation."""
        group = self.param_groups[0]
        if not all(p.grad is not None and p.grad.requires_grad for p in params):
            raise RuntimeError(
                f"step {group['step']} renews the curvature and needs gradients with their graph: "
                "call backward(create_graph=True), or use training_step"
            )
        sizes = [p.numel() for p in params]
        generator = torch.Generator().manual_seed(group["seed"] + group["step"])
        size = (sum(sizes), min(group["rank"], sum(sizes)))
        probes = torch.randn(size, generator=generator, dtype=torch.float64)
        probes = torch.linalg.qr(probes.to(params[0].device)).Q
        sketch = torch.stack([hessian_product(params, v.split(sizes)) for v in probes.T], dim=1)
        eigenvalues, basis = nystrom(sketch, probes)
        for param, rows in zip(params, basis.split(sizes), strict=True):
            self.state[param]["basis"] = rows.T.reshape(-1, *param.shape).to(param)
        self.state[params[0]]["eigenvalues"] = eigenvalues.to(params[0])

    def _coordinates(self, params: Sequence[Tensor]) -> Tensor:
        """Give the change of the averaged gradient along each vector of the basis."""
        rho, eigenvalues = self.param_groups[0]["rho"], self.state[params[0]]["eigenvalues"]
        products = torch.zeros_like(eigenvalues)
        for state in (self.state[param] for param in params):
            products += state["basis"].flatten(1) @ state["momentum_buffer"].flatten()
        changes: Tensor = (1 / (eigenvalues + rho) - 1 / rho) * products
        return changes


def hessian_product(params: Sequence[Tensor], vectors: Sequence[Tensor]) -> Tensor:
    """Multiply the Hessian by flat vectors, one a parameter, whose gradients carry their graph."""
    products = torch.autograd.grad(
        [p.grad for p in params if p.grad is not None],
        params,
        [v.reshape(p.shape).to(p) for v, p in zip(vectors, params, strict=True)],
        retain_graph=True,
        materialize_grads=True,
    )
    return torch.cat([product.flatten() for product in products]).double()


def nystrom(sketch: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenpairs of the Nystrom approximation from sketch and orthonormal probes, both (n, r)."""
    shift = float(len(sketch) ** 0.5 * torch.finfo(torch.float32).eps * sketch.norm()) or 1.0
    core = probes.T @ sketch
    core = (core + core.T) / 2
    lowest = float(torch.linalg.eigvalsh(core)[0])
    if lowest < 0:
        # The minibatch Hessian of a network is indefinite.
        shift -= lowest
    factor = torch.linalg.cholesky(core + shift * torch.eye(len(core)).to(core))
    root = torch.linalg.solve_triangular(factor, (sketch + shift * probes).T, upper=False).T
    basis, singular_values, _ = torch.linalg.svd(root, full_matrices=False)
    return (singular_values.square() - shift).clamp(min=0), basis
