"""How each metric is called, in which unit, and whether more of it is better."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A number that a run records.

    Args:
        name: Its key in the records.
        label: What tables and figures call it.
        unit: Its unit, empty for a pure number.
        higher: Whether higher is better.
        digits: Digits after the point in tables.
        log: Whether figures show it on a logarithmic axis.
    """

    name: str
    label: str
    unit: str = ""
    higher: bool = False
    digits: int = 4
    log: bool = False

    @property
    def title(self) -> str:
        """The label with the unit, such as ``test accuracy (%)``."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


METRICS = {
    metric.name: metric
    for metric in (
        Metric("test_accuracy", "test accuracy", "%", higher=True, digits=2),
        Metric("validation_accuracy", "validation accuracy", "%", higher=True, digits=2),
        Metric("train_accuracy", "training accuracy", "%", higher=True, digits=2),
        Metric("train_loss", "training loss", "cross-entropy", log=True),
        Metric("test_loss", "test loss", "cross-entropy", log=True),
        Metric("validation_loss", "validation loss", "cross-entropy", log=True),
        Metric("bits_per_byte", "bits per byte", "bit", digits=3),
    )
}


def metric_of(name: str) -> Metric:
    """Look a metric up.

    Args:
        name: Its key in the records.

    Returns:
        The metric; one that is not known is taken as a cost, of which less is better, as losses
        are.
    """
    return METRICS.get(name) or Metric(name, name.replace("_", " "))
