"""Runs configurations in other processes, so many at a time, wherever those may be."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from nysact.experiments.config import Config
from nysact.experiments.sweeps.outcome import Outcome, folder_of, is_finished


class Job(Protocol):
    """A run under way."""

    def done(self) -> bool:
        """Tell whether it has ended."""

    def outcome(self) -> Outcome:
        """Say what came of it once it has ended."""

    def stop(self) -> None:
        """End it now; it may have ended."""


class Executor(ABC):
    """Runs configurations in other processes.

    Args:
        root: The folder of all runs.
        jobs: How many run at a time.
        poll_seconds: Seconds between looks at them.
    """

    def __init__(self, root: Path, jobs: int, poll_seconds: float) -> None:
        self.root = root
        self.jobs = jobs
        self.poll_seconds = poll_seconds

    @abstractmethod
    def start(self, config: Config, slot: int) -> Job:
        """Start a run.

        Args:
            config: Its configuration.
            slot: Its place among those that run at a time, from 0.

        Returns:
            The run under way.
        """

    def execute(
        self, configs: Iterable[Config], on_start: Callable[[Config], None] = lambda _: None
    ) -> Iterator[Outcome]:
        """Run all of them; one that fails stops no other, and finished ones are left alone.

        Args:
            configs: What to run; the next is asked for when there is room for it.
            on_start: Called as each of them starts.

        Yields:
            What came of each, as it ends.
        """
        waiting = iter(configs)
        slots: dict[int, Job] = {}
        try:
            while True:
                for slot in range(self.jobs):
                    while slot not in slots and (config := next(waiting, None)) is not None:
                        if is_finished(config, self.root):
                            yield Outcome(config, folder_of(config, self.root))
                            continue
                        on_start(config)
                        slots[slot] = self.start(config, slot)
                if not slots:
                    return
                time.sleep(self.poll_seconds)
                for slot in [slot for slot, job in slots.items() if job.done()]:
                    yield slots.pop(slot).outcome()
        finally:
            for job in slots.values():
                job.stop()
