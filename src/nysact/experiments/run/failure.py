"""Whether a stored run failed, and why."""

from nysact.experiments.run.store import StoredRun

# The file in a run's folder in which a crashed process leaves its last words.
FAILURE = "failure.txt"


def failure_of(run: StoredRun) -> str | None:
    """Say why a run diverged or crashed; ``None`` if it did not, or finished later."""
    if run.result is not None:
        failure: str | None = run.result.get("failure")
        return failure
    path = run.path / FAILURE
    return path.read_text("utf-8") if path.is_file() else None


def succeeded(run: StoredRun) -> bool:
    """Whether a run finished and did not diverge."""
    return run.result is not None and failure_of(run) is None
