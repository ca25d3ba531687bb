"""Every model that can be trained or timed: its name, its options, and what it reads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from nysact.experiments.errors import ExperimentError, unknown
from nysact.experiments.models.densenet import cifar_densenet121
from nysact.experiments.models.digits import digits_network
from nysact.experiments.models.imagenet import deit_small, resnet50
from nysact.experiments.models.language import gpt
from nysact.experiments.models.lenet import lenet5
from nysact.experiments.models.mlp import mlp
from nysact.experiments.models.resnet import CifarResNet
from nysact.experiments.models.vit import vit

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Model:
    """A model that can be built by its name.

    Args:
        description: What it is, in a few words.
        inputs: What a sample is: an image, numbers, or tokens.
        make: Makes it, untrained, from its options.
        defaults: Every option with its default. ``image_size`` is one also where the weights
            don't depend on it.
    """

    description: str
    inputs: Literal["images", "features", "tokens"]
    make: Callable[..., nn.Module]
    defaults: Options

    def options(self, given: Options) -> dict[str, Any]:
        """Complete options by the defaults.

        Args:
            given: Options in the place of the defaults.

        Returns:
            A value for every option.

        Raises:
            ExperimentError: If there is no such option, or a value is out of range.
        """
        for name, value in given.items():
            if name not in self.defaults:
                what = unknown(name, self.defaults)
                raise ExperimentError(f"{self.description} has no option {what}")
            check(name, value, self.defaults[name])
        return {**self.defaults, **given}

    def sample_shape(self, **given: Any) -> tuple[int, ...]:
        """Give the shape of one sample.

        Args:
            **given: Options in the place of the defaults.

        Returns:
            (channels, height, width) of an image, the number of features, or of tokens.
        """
        options = self.options(given)
        if self.inputs == "images":
            side: int = options["image_size"]
            return options.get("in_channels", 3), side, side
        return (options["in_features" if self.inputs == "features" else "context"],)

    def classes(self, **given: Any) -> int:
        """Give the number of classes, which for a language model is that of the tokens.

        Args:
            **given: Options in the place of the defaults.

        Returns:
            The number.
        """
        options = self.options(given)
        number: int = options["vocabulary" if self.inputs == "tokens" else "classes"]
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


def convolutional(make: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Let go of the option ``image_size``, on which a convolutional network doesn't depend."""
    return lambda image_size, **options: make(**options)


def lenet5_of(image_size: int, **options: Any) -> nn.Module:
    """Make LeNet-5 by the names of options that all models share."""
    return lenet5(side=image_size, **options)


CIFAR: Options = {"classes": 10, "in_channels": 3, "image_size": 32}
IMAGENET: Options = {"classes": 1000, "image_size": 224}
VIT: Options = {**CIFAR, "patch": 4, "width": 64, "depth": 4, "heads": 4}
GPT: Options = {"layers": 6, "heads": 6, "width": 384, "vocabulary": 65, "context": 256}
GPT2: Options = {"layers": 12, "heads": 12, "width": 768, "vocabulary": 50257, "context": 1024}

MODELS: Mapping[str, Model] = {
    "digits": Model(
        "small convolutional network for 8x8 digits",
        "images",
        convolutional(digits_network),
        {"classes": 10, "in_channels": 1, "image_size": 8},
    ),
    "lenet5": Model(
        "LeNet-5",
        "images",
        lenet5_of,
        {"classes": 10, "in_channels": 1, "image_size": 32},
    ),
    **{
        f"resnet{depth}": Model(
            f"ResNet-{depth} in its CIFAR form",
            "images",
            convolutional(partial(CifarResNet, depth)),
            CIFAR,
        )
        for depth in (20, 32, 110)
    },
    "densenet121-cifar": Model(
        "DenseNet-121 in its CIFAR form",
        "images",
        convolutional(cifar_densenet121),
        CIFAR,
    ),
    "resnet50": Model("ResNet-50", "images", convolutional(resnet50), IMAGENET),
    "deit-s": Model(
        "DeiT-S",
        "images",
        deit_small,
        {**IMAGENET, "in_channels": 3, "drop_path": 0.0},
    ),
    "vit": Model("vision transformer of any size", "images", vit, {**VIT, "drop_path": 0.0}),
    "gpt2-small": Model("GPT-2 small", "tokens", gpt, {**GPT2, "dropout": 0.1}),
    "gpt": Model("GPT of any size", "tokens", gpt, {**GPT, "dropout": 0.0}),
    "mlp": Model(
        "multilayer perceptron",
        "features",
        mlp,
        {"in_features": 784, "width": 2048, "depth": 3, "classes": 10},
    ),
}


def find_model(name: str) -> Model:
    """Look a model up.

    Args:
        name: A key of :data:`MODELS`.

    Returns:
        Its entry.

    Raises:
        ExperimentError: If there is none; the message names the nearest.
    """
    if name not in MODELS:
        raise ExperimentError(f"there is no model {unknown(name, MODELS)}")
    return MODELS[name]


def build_model(name: str, **options: Any) -> nn.Module:
    """Make an untrained model by its name, with weights of the global random stream.

    Args:
        name: A key of :data:`MODELS`.
        **options: Options in the place of its defaults.

    Returns:
        The model.

    Raises:
        ExperimentError: If there is no such model or option, a value doesn't do, or a package is
            missing; the message names the nearest, what was expected, or what to install.
    """
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


def loss_function(outputs: Any, targets: Tensor) -> Tensor:
    """Take the mean cross-entropy, of classifiers and of language models.

    Args:
        outputs: What a model of :data:`MODELS` returned: scores (..., classes), or an output of
            transformers with such ``logits``.
        targets: Class numbers (...).

    Returns:
        The loss.
    """
    scores: Tensor = getattr(outputs, "logits", outputs)
    return F.cross_entropy(scores.flatten(0, -2), targets.flatten())
