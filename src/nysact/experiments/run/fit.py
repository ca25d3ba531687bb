"""Whether a model of the registry fits the data: channels, context and classes."""

from torch import Tensor

from nysact.experiments.config import OWN, Config
from nysact.experiments.errors import ExperimentError
from nysact.experiments.models import find_model


def check_fit(config: Config, inputs: Tensor, targets: Tensor) -> None:
    """Make sure that the model reads a batch of the data, and has all its classes."""
    model = find_model(config.model.name)
    found, wanted = inputs.shape[1], model.sample_shape(**config.model.options)[0]
    if model.inputs == "images" and found != wanted:
        raise ExperimentError(
            f"model.options.in_channels is {wanted}, but {config.data.name} has images of "
            f"{found} channels: set model.options.in_channels={found}"
        )
    if model.inputs == "tokens" and found > wanted:
        raise ExperimentError(
            f"data.context is {found}, but model.options.context is {wanted}: set both alike"
        )
    # Targets that are shares of classes were made for as many as the model has.
    if not targets.is_floating_point():
        classes_for(config, targets)


def classes_for(config: Config, targets: Tensor) -> int:
    """Count the classes of the model (of the data, for one's own model), and check the targets."""
    highest = int(targets.max())
    if config.model.name == OWN:
        return highest + 1
    model = find_model(config.model.name)
    classes = model.classes(**config.model.options)
    if highest >= classes:
        option = "vocabulary" if model.inputs == "tokens" else "classes"
        raise ExperimentError(
            f"model.options.{option} is {classes}, but {config.data.name} has a target {highest}: "
            f"set model.options.{option} to the number of classes"
        )
    return classes
