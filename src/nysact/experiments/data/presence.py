"""Whether data is on this machine, or would be downloaded."""

from torchvision import datasets

from nysact.experiments.config.data import ImageData, Section
from nysact.experiments.data.cifar import files_of
from nysact.experiments.data.fashion_mnist import DEBIAN_FOLDER, cache_folder, files_in


def would_be_downloaded(data: Section) -> bool:
    """Tell whether loading data would download it.

    Args:
        data: The data of a configuration.

    Returns:
        Whether it would: data of a folder, or of the machine, never is.
    """
    if not isinstance(data, ImageData) or data.folder is not None or data.name == "digits":
        return False
    if data.name == "fashion-mnist":
        return not any(files_in(folder) for folder in (DEBIAN_FOLDER, cache_folder()))
    dataset = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[data.name]
    folder = cache_folder() / dataset.base_folder
    return not all((folder / name).is_file() for name, _ in files_of(dataset))
