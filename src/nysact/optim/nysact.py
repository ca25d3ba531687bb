"""NysAct: SGD with momentum on gradients preconditioned by a sketched activation covariance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from nysact.curvature import Curvature, Nystrom
from nysact.optim.momentum import MomentumOptimizer

if TYPE_CHECKING:
    from nysact.distributed import Group


class NysAct(MomentumOptimizer):
    """SGD with momentum on gradients preconditioned by a sketched activation covariance.

    Implements NysAct (Seung, Lee and Ko, IEEE BigData 2024) with the sketch taken matrix-free, a
    single test matrix a window, and a sharper sketch of its own. For a layer with weight gradient
    G and covariance A of the rows its weight reads, the momentum step is fed with ``G P``, where
    P approximates ``(A + damping I)^-1`` at rank r. Parameters of other layers get plain SGD with
    momentum. Replace ``torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)`` by
    ``NysAct(model, lr=0.1)`` and keep the rest of the training loop.

    Forward hooks on the layers take the statistics of the forwards that run with gradients
    enabled, in steps 0, ``cov_interval``, 2 ``cov_interval``, ...; ``param.grad`` is only read.
    A layer costs two ``d x rank`` matrices of state, d being its fan-in, in float32 at least, and
    one more that is derived from them (two with the sketches that are drawn).

    The defaults of ``sketch`` and ``tail`` are those that came closest to the exact inverse:
    relative error of the preconditioned gradient after 150 steps of a ResNet-20 on Fashion-MNIST,
    rank 10, damping 1, mean of 3 trainings (``make approximation``; docs/measurements.md):

    ============= ========= =========
    sketch        with tail no tail
    ============= ========= =========
    columns       0.66      1.07
    gaussian      0.64      1.04
    subspace      0.53      0.80
    best possible 0.49      0.75
    ============= ========= =========

    Args:
        model: The model that is trained. Its layers get forward hooks, so the same model must
            run the forwards.
        params: Parameters, named parameters or parameter groups of the model, as in
            ``torch.optim``; default all trainable parameters. A group may set every option below
            down to ``fused``, and ``precondition=False`` for plain SGD.
        lr: Learning rate, a number or a tensor with one element.
        momentum: Momentum factor.
        nesterov: Whether to use Nesterov momentum.
        weight_decay: Coefficient of the weight decay.
        decoupled_weight_decay: Whether the decay acts on the parameters themselves, as in AdamW,
            and not on the preconditioned gradient.
        damping: Damping rho, added to every eigenvalue. It may be changed during training.
        rank: Rank r of the approximation; where ``rank >= d`` the exact inverse is used.
        sketch: What A is multiplied with: ``"columns"`` of the identity (NysAct-S of the paper),
            ``"gaussian"`` (NysAct-G), or ``"subspace"``, the basis found by the last refresh: one
            step of subspace iteration a window at the same price.
        tail: Whether the trace that the approximation misses is spread over the other directions,
            which the paper leaves at zero.
        stat_decay: Decay beta2 of the statistics' average, which starts anew with each window.
        cov_interval: Steps between statistics (tau_cov).
        inv_interval: Steps between refreshes (tau_inv), a multiple of ``cov_interval``.
        subsample: Take statistics of every n-th sample. ``"auto"`` chooses n by the layer: 1 for
            up to 31 positions a sample, then positions / 16, 32 at most.
        exclude: Shell-style patterns of names of modules to leave out.
        seed: Seed of the test matrices; the global random stream is not touched.
        max_failures: How often in a row a layer's factorisation may fail, with a warning and the
            previous factors kept, before an error is raised.
        process_group: The processes that share each batch: a ``ProcessGroup``, a ``DeviceMesh``,
            or a sequence of groups to sum over in turn. By default those that
            ``DistributedDataParallel`` or ``fully_shard`` reduce the gradients over; ``False`` for
            none.
        share_refresh: Whether these processes divide the layers' factorisations between them and
            exchange the factors, or each computes all; by default where that takes less time,
            from a rank of about 32 on.
        maximize: Whether to maximise the objective.
        foreach: Use the multi-tensor update; by default where the framework does.
        fused: Use the fused update; off by default.

    Raises:
        TypeError: If an argument is of the wrong type, or the model is an ``nn.DataParallel``.
        ValueError: If a value is out of range, a parameter is not of the model or given twice,
            nothing is trainable, or no layer can be preconditioned.

    Example:
        >>> optimizer = NysAct(model, lr=0.1)
        >>> loss = loss_function(model(inputs), targets)
        >>> loss.backward()
        >>> optimizer.step()
        >>> optimizer.zero_grad()
    """

    _own = frozenset({"rank", "sketch", "tail", "seed"})

    def __init__(
        self,
        model: nn.Module,
        params: Any = None,
        *,
        lr: float | Tensor = 0.1,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 5e-4,
        decoupled_weight_decay: bool = False,
        damping: float = 1.0,
        rank: int = 10,
        sketch: Literal["columns", "gaussian", "subspace"] = "subspace",
        tail: bool = True,
        stat_decay: float = 0.95,
        cov_interval: int = 5,
        inv_interval: int = 50,
        subsample: int | Literal["auto"] = "auto",
        exclude: Sequence[str] = (),
        seed: int = 0,
        max_failures: int = 3,
        process_group: Group | Literal[False] | None = None,
        share_refresh: bool | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            model,
            params,
            lr=lr,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            damping=damping,
            stat_decay=stat_decay,
            cov_interval=cov_interval,
            inv_interval=inv_interval,
            subsample=subsample,
            exclude=exclude,
            max_failures=max_failures,
            process_group=process_group,
            share_refresh=share_refresh,
            maximize=maximize,
            foreach=foreach,
            fused=fused,
            rank=rank,
            sketch=sketch,
            tail=tail,
            seed=seed,
        )

    def _curvature(self, group: Mapping[str, Any]) -> Curvature:
        return Nystrom(group["sketch"], tail=group["tail"])
