"""NysAct: SGD with momentum on gradients preconditioned by a sketched activation covariance."""

from collections.abc import Mapping
from typing import Any, Unpack

from torch import nn

from nysact.curvature import Curvature, Nystrom
from nysact.optim.optimizer import PreconditionedOptimizer
from nysact.optim.settings import EngineOptions, NystromOptions, UpdateOptions


class NysActOptions(UpdateOptions, NystromOptions, EngineOptions, total=False):
    """Options of :class:`nysact.NysAct`."""


class NystromOptimizer(PreconditionedOptimizer):
    """An optimizer on the Nystrom approximation of the activation covariance."""

    @staticmethod
    def _curvature(options: Mapping[str, Any]) -> Curvature:
        power, long = options["power"], options["memory"] == "long"
        if power == "auto":
            power = 1.0 if options["convolves"] else 0.5
        return Nystrom(options["sketch"], tail=options["tail"], power=power, carries=long)


class NysAct(NystromOptimizer, options=NysActOptions):
    """SGD with momentum on gradients preconditioned by a sketched activation covariance.

    Implements NysAct (Seung, Lee and Ko, IEEE BigData 2024) with the sketch taken matrix-free, a
    single test matrix a window, and a sharper sketch of its own. For a layer with weight gradient
    G and covariance A of the rows its weight reads, the momentum step is fed with ``G P``, where
    P approximates ``(A + damping I)^-1`` at rank r. Parameters of other layers get plain SGD with
    momentum. Replace ``torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)`` by
    ``NysAct(model, lr=0.1)`` and keep the rest of the training loop.

    Forward hooks on the layers take the statistics of the forwards that run with gradients
    enabled, in steps 0, ``cov_interval``, 2 ``cov_interval``, ...; a forward counts if the
    gradient of the step came through it. ``param.grad`` is only read. A layer costs two
    ``d x rank`` matrices of state, d being its fan-in, in float32 at least, and one more that is
    derived from them (two with the sketches that are drawn).

    The defaults of ``sketch`` and ``tail`` are those that came closest to the exact inverse:
    relative error of the preconditioned gradient after 150 steps of a ResNet-20 on Fashion-MNIST,
    rank 10, damping 1, mean of 3 trainings (``make approximation``; docs/measurements.md):

    ============= ========= =========
    sketch        with tail no tail
    ============= ========= =========
    columns       0.67      1.08
    gaussian      0.67      1.09
    subspace      0.57      0.85
    best possible 0.52      0.79
    ============= ========= =========

    Example:
        >>> optimizer = NysAct(model, lr=0.1)
        >>> loss = loss_function(model(inputs), targets)
        >>> loss.backward()
        >>> optimizer.step()
        >>> optimizer.zero_grad()
    """

    def __init__(
        self, model: nn.Module, params: Any = None, **options: Unpack[NysActOptions]
    ) -> None:
        super().__init__(model, params, **options)
