"""Behaviour cloning: an expert steers an unstable linear system, which is seen badly scaled."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nysact.experiments.data.images import Data, ImageSet
from nysact.experiments.randomness import stream

STATES, ACTIONS = 16, 4
CONDITION = 100.0  # of the map from states to observations
STEPS = 50  # of an episode
EPISODES = {"train": 800, "test": 200, "rollout": 200}
NOISE = 0.05
# Costs of states beyond this count as those at it: the system is lost.
LOST = 1e3


@dataclass(frozen=True)
class System:
    """The state s becomes A s + B a + noise; observations are C s."""

    a: Tensor
    b: Tensor
    c: Tensor
    gain: Tensor  # the expert's action is tanh(-gain s)

    def expert(self, states: Tensor) -> Tensor:
        """The expert's actions (n, actions)."""
        return torch.tanh(-states @ self.gain.T)

    def step(self, states: Tensor, actions: Tensor, generator: torch.Generator) -> Tensor:
        """Go on by a step."""
        noise = NOISE * torch.randn(states.shape, generator=generator)
        return (states @ self.a.T + actions @ self.b.T + noise).clamp(-LOST, LOST)


def make_system() -> System:
    """Draw a system with growing states, and the regulator that is best for it."""
    generator = stream("system")

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    a, b = normal(STATES, STATES), normal(STATES, ACTIONS) / STATES**0.5
    a *= 1.02 / torch.linalg.eigvals(a).abs().max()
    cost = torch.eye(STATES, dtype=torch.float64)
    for _ in range(500):  # Riccati's iteration
        inner = torch.eye(ACTIONS, dtype=torch.float64) + b.T @ cost @ b
        gain = torch.linalg.solve(inner, b.T @ cost @ a)
        cost = torch.eye(STATES, dtype=torch.float64) + a.T @ cost @ (a - b @ gain)
    left, right = (torch.linalg.qr(normal(STATES, STATES))[0] for _ in range(2))
    scales = torch.logspace(0, -torch.tensor(CONDITION).log10().item(), STATES, dtype=torch.float64)
    return System(a.float(), b.float(), (left * scales @ right).float(), gain.float())


def load_cloning() -> Data:
    """Record observations (n, 16) and actions (n, 4) of the expert."""
    system = make_system()
    train, test = (episodes(system, part) for part in ("train", "test"))
    return Data(train, test)


def episodes(system: System, part: str) -> ImageSet:
    """Record the episodes of a part."""
    generator = stream("episodes", part)
    states, seen, done = starts(part), [], []
    for _ in range(STEPS):
        actions = system.expert(states)
        seen.append(states @ system.c.T)
        done.append(actions)
        states = system.step(states, actions, generator)
    return ImageSet(torch.cat(seen), torch.cat(done))


def starts(part: str) -> Tensor:
    """Draw the first states of a part's episodes."""
    return torch.randn(EPISODES[part], STATES, generator=stream("starts", part))


@torch.no_grad()
def rollout_cost(policy: nn.Module, device: torch.device) -> dict[str, float]:
    """Let a policy steer, and compare its mean quadratic cost with the expert's on equal noise."""
    system = make_system()
    own = cost_of(system, lambda states: policy((states @ system.c.T).to(device)).cpu())
    return {"rollout_cost": own / cost_of(system, system.expert)}


def cost_of(system: System, act: Callable[[Tensor], Tensor]) -> float:
    """The mean cost of a step over new episodes."""
    generator, states, total = stream("rollouts"), starts("rollout"), 0.0
    for _ in range(STEPS):
        actions = act(states)
        total += float(states.square().sum(1).mean() + actions.square().sum(1).mean())
        states = system.step(states, actions, generator)
    return total / STEPS
