"""Every model that can be trained or timed: its name, its options, and what it reads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import nn

from nysact.experiments.errors import ExperimentError, unknown
from nysact.experiments.models.autoencoder import autoencoder
from nysact.experiments.models.libraries import cifar_densenet121, deit_small, gpt, resnet50, vit
from nysact.experiments.models.networks import CifarResNet, digits_network, lenet5, mlp
from nysact.experiments.models.poisson import PoissonNetwork

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Model:
    """A model that can be built by its name, untrained."""

    title: str
    inputs: Literal["images", "features", "tokens"]
    make: Callable[..., nn.Module]
    defaults: Options  # ``image_size`` is an option even where the weights don't depend on it

    def options(self, given: Options) -> dict[str, Any]:
        """Complete options by the defaults."""
        for name, value in given.items():
            if name not in self.defaults:
                known = unknown(name, self.defaults)
                raise ExperimentError(f"{self.title} has no option {known}")
            check(name, value, self.defaults[name])
        return {**self.defaults, **given}

    def sample_shape(self, **given: Any) -> tuple[int, ...]:
        """Give the shape of a sample: (channels, h, w), or the number of features or tokens."""
        options = self.options(given)
        if self.inputs == "images":
            side: int = options["image_size"]
            return options.get("in_channels", 3), side, side
        return (options["in_features" if self.inputs == "features" else "context"],)

    def classes(self, **given: Any) -> int:
        """Give the number of classes or tokens; 1 for a model whose outputs are real numbers."""
        options = self.options(given)
        number: int = options.get("vocabulary" if self.inputs == "tokens" else "classes", 1)
        return number


def check(name: str, value: Any, default: Any) -> None:
    """Check the value of an option: counts where the default is one, rates where it is one."""
    if isinstance(default, float):
        right = isinstance(value, int | float) and 0 <= value < 1
        expected = "a number from 0 up, less than 1"
    else:
        right, expected = isinstance(value, int) and value >= 1, "a whole number from 1 up"
    if isinstance(value, bool) or not right:
        raise ExperimentError(f"{name}={value!r}: expected {expected}")


def of_any_size(make: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Drop the option ``image_size``, on which the weights don't depend."""
    return lambda image_size, **options: make(**options)


GREY: Options = {"classes": 10, "in_channels": 1, "image_size": 32}
CIFAR: Options = {"classes": 10, "in_channels": 3, "image_size": 32}
IMAGENET: Options = {"classes": 1000, "image_size": 224}
VIT: Options = {**CIFAR, "patch": 4, "width": 64, "depth": 4, "heads": 4, "drop_path": 0.0}
GPT: Options = {"layers": 6, "heads": 6, "width": 384, "vocabulary": 65, "context": 256}
GPT2: Options = {"layers": 12, "heads": 12, "width": 768, "vocabulary": 50257, "context": 1024}
POISSON: Options = {"in_features": 2, "width": 64, "depth": 4}
MLP: Options = {"in_features": 784, "width": 2048, "depth": 3, "classes": 10}
RESNETS = {
    f"resnet{depth}": Model(
        f"ResNet-{depth} in its CIFAR form",
        "images",
        of_any_size(partial(CifarResNet, depth)),
        CIFAR,
    )
    for depth in (20, 32, 110)
}
DENSENET = "DenseNet-121 in its CIFAR form"
DIGITS = "small convolutional network for 8x8 digits"

MODELS: Mapping[str, Model] = {
    "digits": Model(DIGITS, "images", of_any_size(digits_network), {**GREY, "image_size": 8}),
    "lenet5": Model("LeNet-5", "images", lenet5, GREY),
    **RESNETS,
    "densenet121-cifar": Model(DENSENET, "images", of_any_size(cifar_densenet121), CIFAR),
    "resnet50": Model("ResNet-50", "images", of_any_size(resnet50), IMAGENET),
    "deit-s": Model(
        "DeiT-S", "images", deit_small, {**IMAGENET, "in_channels": 3, "drop_path": 0.0}
    ),
    "vit": Model("vision transformer of any size", "images", vit, VIT),
    "gpt2-small": Model("GPT-2 small", "tokens", gpt, {**GPT2, "dropout": 0.1}),
    "gpt": Model("GPT of any size", "tokens", gpt, {**GPT, "dropout": 0.0}),
    "autoencoder": Model(
        "deep autoencoder", "features", autoencoder, {"in_features": 784, "code": 30}
    ),
    "poisson": Model("network for Poisson's equation", "features", PoissonNetwork, POISSON),
    "mlp": Model("multilayer perceptron", "features", mlp, MLP),
}


def find_model(name: str) -> Model:
    """Look a model up, or name the nearest."""
    if name not in MODELS:
        raise ExperimentError(f"there is no model {unknown(name, MODELS)}")
    return MODELS[name]


def build_model(name: str, **options: Any) -> nn.Module:
    """Make an untrained model by its name, with weights from the global random stream."""
    model = find_model(name)
    chosen = model.options(options)
    try:
        return model.make(**chosen)
    except ValueError as error:
        raise ExperimentError(f"{name}: {error}") from error
    except ModuleNotFoundError as error:
        raise ExperimentError(
            f"{name} needs the package {error.name}, which is missing; install it with: "
            'pip install "nysact[models]"'
        ) from error
